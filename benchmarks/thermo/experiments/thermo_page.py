"""The page of the experiments: one file, no script, nothing to fetch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined
from markupsafe import Markup
from thermo_claims import Section

from capacity.report.page import symbols

_CLASSES = {"holds": "yes", "does not hold": "no", "inconclusive": "open"}
"""How verdicts look."""
_PASSED = {True: "yes", False: "no"}
_WORDS = {"holds": "hold", "does not hold": "do not hold", "inconclusive": "are inconclusive"}
"""What several claims do."""


def write(sections: Sequence[Section], path: Path) -> None:
    """Write the page."""
    path.write_text(to_html(sections), encoding="utf-8")


def to_html(sections: Sequence[Section]) -> str:
    """Draw every section.

    Args:
        sections: In the order of the page.

    Returns:
        The page.
    """
    own = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=ChoiceLoader([own, PackageLoader("capacity.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["symbols"] = symbols
    environment.globals["drawn"] = lambda figure, narrow: Markup(figure.svg(narrow=narrow))
    said = Counter(claim.verdict for section in sections for claim in section.claims)
    return environment.get_template("thermo_page.html").render(
        sections=sections,
        classes=_CLASSES,
        passed=_PASSED,
        words=_WORDS,
        checked=[(section, check) for section in sections for check in section.checks],
        count=said.total(),
        verdicts=[(verdict, said[verdict]) for verdict in _CLASSES if said[verdict]],
    )
