"""The page of a comparison: one HTML file of the report's kind."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

import yaml

from capacity.comparison import comparison_figures, comparison_sentences, comparison_tables
from capacity.report.charts import Figure
from capacity.report.shell import page
from capacity.results.gather import Gathered


def to_html(gathered: Gathered) -> str:
    """Make the page.

    Args:
        gathered: The runs.

    Returns:
        HTML.
    """
    groups = _figures(gathered)
    return page(
        "compare.html",
        [figure for group in groups.values() for figure in group],
        len(gathered.variants),
        gathered=gathered,
        headline=comparison_sentences.headline(gathered),
        differs=comparison_sentences.differs(gathered),
        sentences=comparison_sentences.sentences(gathered),
        warnings=comparison_sentences.warnings(gathered),
        summary_table=comparison_tables.summary_table(gathered),
        difference_table=comparison_tables.difference_table(gathered),
        run_table=comparison_tables.run_table(gathered),
        groups=groups,
        shared=_nested(gathered.shared),
        command=_command(gathered),
    )


def _figures(gathered: Gathered) -> dict[str, list[Figure]]:
    made: dict[str, Iterable[Figure | None]] = {
        "verdict": [comparison_figures.quantity_figure(gathered, k) for k in range(2)],
        "course": [comparison_figures.course_figure(gathered)],
        "tasks": [comparison_figures.task_figure(gathered)],
        "more": [
            comparison_figures.quantity_figure(gathered, 2),
            comparison_figures.quantity_figure(gathered, 4),
        ],
        "forecast": [
            comparison_figures.quantity_figure(gathered, 3),
            comparison_figures.forecast_figure(gathered),
        ],
    }
    return {name: [f for f in group if f is not None] for name, group in made.items()}


def _nested(fields: dict[str, object]) -> str:
    """Write dotted fields as the recipe has them."""
    tree: dict[str, object] = {}
    for name, value in fields.items():
        *parts, last = name.split(".")
        section = tree
        for part in parts:
            section = section.setdefault(part, {})  # type: ignore[assignment]
        section[last] = value
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _command(gathered: Gathered) -> str:
    names = [shlex.quote(comparison_tables.place(entry.path)) for entry in gathered.entries]
    return " \\\n  ".join(["capacity compare", *names])
