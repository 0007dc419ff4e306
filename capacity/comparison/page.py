"""The page of a comparison: one HTML file of the report's kind."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

import yaml

from capacity.comparison import figures, tables, words
from capacity.comparison.gather import Gathered
from capacity.report.charts import Figure
from capacity.report.shell import page


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
        headline=words.headline(gathered),
        differs=words.differs(gathered),
        sentences=words.sentences(gathered),
        warnings=words.warnings(gathered),
        summary_table=tables.summary_table(gathered),
        difference_table=tables.difference_table(gathered),
        run_table=tables.run_table(gathered),
        groups=groups,
        shared=_nested(gathered.shared),
        command=_command(gathered),
    )


def _figures(gathered: Gathered) -> dict[str, list[Figure]]:
    made: dict[str, Iterable[Figure | None]] = {
        "verdict": [figures.quantity_figure(gathered, k) for k in range(2)],
        "course": [figures.course_figure(gathered)],
        "tasks": [figures.task_figure(gathered)],
        "more": [figures.quantity_figure(gathered, 2), figures.quantity_figure(gathered, 4)],
        "forecast": [figures.quantity_figure(gathered, 3), figures.forecast_figure(gathered)],
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
    names = [shlex.quote(tables.place(entry.path)) for entry in gathered.entries]
    return " \\\n  ".join(["capacity compare", *names])
