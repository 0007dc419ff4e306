"""The page of the experiments: one file, no script, nothing to fetch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from thermo_claims import Section

from capacity.report.shell import page

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
    said = Counter(claim.verdict for section in sections for claim in section.claims)
    return page(
        "thermo_page.html",
        [figure for section in sections for figure in section.figures],
        folder=Path(__file__).parent,
        scripts=False,
        sections=[
            ("claims", "Theory and findings"),
            *((section.id, section.title) for section in sections),
            ("reproduce", "Reproduce"),
        ],
        experiments=sections,
        classes=_CLASSES,
        passed=_PASSED,
        words=_WORDS,
        checked=[(section, check) for section in sections for check in section.checks],
        count=said.total(),
        verdicts=[(verdict, said[verdict]) for verdict in _CLASSES if said[verdict]],
    )
