"""The sections of a comparison, in the order of its page."""

from __future__ import annotations

import shlex

import yaml

from capacity.comparison import (
    compared_measures,
    comparison_figures,
    comparison_sentences,
    comparison_tables,
    excess_and_anisotropy,
)
from capacity.comparison.comparison_figures import quantity_figure
from capacity.records.numbers import plural, span
from capacity.report.blocks import Absent, Block, Code, Fold, Pair, Section, Sections
from capacity.results.gather import Gathered

_HOW = (
    "Means are over finished runs of one recipe. Of one run, the mean is over its replicas, "
    "networks with an initialisation and a data order of their own; of several, over the runs. "
    "Intervals are Student's at 90 %, those of a gap Welch's."
)


def _verdict(gathered: Gathered) -> list[Block]:
    return [
        comparison_sentences.headline(gathered),
        comparison_tables.summary_table(gathered),
    ]


def _differs(gathered: Gathered) -> list[Block]:
    none = Absent("Nothing but the seeds: all runs have one recipe.")
    return [comparison_tables.difference_table(gathered) or none]


def _course(gathered: Gathered) -> list[Block | None]:
    figure = comparison_figures.course_figure(gathered)
    score = "accuracy" if gathered.classifies else "loss"
    ends = [_found(gathered, k) for k in range(5)]
    tied = excess_and_anisotropy.sentence(gathered)
    return [
        figure or Absent("No finished run learned two tasks."),
        Fold(
            f"Every run: final {score} {ends[0]}, forgetting {ends[1]}",
            [Pair([quantity_figure(gathered, k) for k in range(2)])],
        ),
        Fold(
            f"What is left of every task at the end, {plural(len(gathered.variants), 'variant')}",
            [comparison_figures.task_figure(gathered)],
            "tasks",
        ),
        Fold(
            f"Just after learning the {score} was {ends[2]}; inefficiency {ends[4]}",
            [Pair([quantity_figure(gathered, k) for k in (2, 4)])],
            "more",
        ),
        Fold(
            f"Forecasts of forgetting were off by {ends[3]}",
            [Pair([quantity_figure(gathered, 3), comparison_figures.forecast_figure(gathered)])],
            "forecast",
        ),
        Fold(tied, [excess_and_anisotropy.figure(gathered)], "anisotropy") if tied else None,
    ]


def _found(gathered: Gathered, k: int) -> str:
    """Say what a quantity goes from and to over the runs that are counted."""
    quantity = compared_measures.quantities(gathered)[k]
    found = [quantity.read(entry.view) for entry in gathered.counted]
    known = [quantity.scale * e.value for e in found if e is not None and e.value is not None]
    return f"{span(known)} {quantity.unit}".strip() if known else "not measured"


def _runs(gathered: Gathered) -> list[Block]:
    counted, count = len(gathered.counted), len(gathered.entries)
    names = [shlex.quote(comparison_tables.place(entry.path)) for entry in gathered.entries]
    return [
        Fold(
            f"{counted} of {plural(count, 'run')} counted", [comparison_tables.run_table(gathered)]
        ),
        Fold(
            f"{plural(len(gathered.shared), 'field')} of the recipe that all runs share",
            [Code(_nested(gathered.shared))],
            "configuration",
        ),
        Fold(
            "Compare again, and how the means are taken",
            [
                "Where the run directories lie:",
                Code(" \\\n  ".join(["capacity compare", *names])),
                _HOW,
            ],
            "reproduce",
        ),
    ]


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


SECTIONS: Sections[Gathered] = Sections([
    Section("verdict", "Verdict", _verdict),
    Section("differs", "What differs", _differs),
    Section("course", "Over the sequence", _course),
    Section("runs", "Every run", _runs),
])
"""The page; `SECTIONS.register` adds a section to it."""
