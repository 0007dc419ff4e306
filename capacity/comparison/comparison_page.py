"""The page of a comparison: one HTML file of the report's kind."""

from __future__ import annotations

from capacity.comparison import comparison_sentences
from capacity.comparison.comparison_sections import SECTIONS
from capacity.records.numbers import plural
from capacity.report.shell import sections_page
from capacity.results.gather import Gathered


def to_html(gathered: Gathered) -> str:
    """Make the page.

    Args:
        gathered: The runs.

    Returns:
        HTML.
    """
    counted, runs = len(gathered.counted), plural(len(gathered.entries), "run")
    state = "finished" if counted == len(gathered.entries) else "diverged"
    return sections_page(
        SECTIONS,
        gathered,
        len(gathered.variants),
        title=f"{gathered.name} \u2013 capacity comparison",
        name=gathered.name,
        state=(state, f"{counted} of {runs} counted"),
        lines=[comparison_sentences.differs(gathered)],
        warnings=[" ".join(said)] if (said := comparison_sentences.warnings(gathered)) else [],
        footer=f"{gathered.name} \u00b7 {plural(len(gathered.variants), 'variant')} \u00b7 {runs}",
    )
