"""The sections of a comparison, in the order of its page."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import yaml

from capacity.comparison import comparison_figures, comparison_sentences, comparison_tables
from capacity.comparison.comparison_figures import quantity_figure
from capacity.report.blocks import Absent, Block, Code, Pair, Part, Section, Sections
from capacity.results.gather import Gathered

_NONE_FINISHED = Absent("No run finished.")


def _verdict(gathered: Gathered) -> list[Block]:
    said = comparison_sentences.sentences(gathered)
    content = {
        "headline": comparison_sentences.headline(gathered),
        "sentences": [("", sentence) for sentence in said],
    }
    return [
        Part("verdict.html", content | {"facts": [], "remarks": []}),
        Pair([quantity_figure(gathered, k) for k in range(2)]),
        comparison_tables.summary_table(gathered),
    ]


def _differs(gathered: Gathered) -> list[Block]:
    none = Absent("Nothing but the seeds: all runs have one recipe.")
    return [comparison_tables.difference_table(gathered) or none]


def _course(gathered: Gathered) -> list[Block]:
    none = Absent("No finished run learned two tasks.")
    return [comparison_figures.course_figure(gathered) or none]


def _tasks(gathered: Gathered) -> list[Block]:
    none = Absent("The runs learn different tasks.") if gathered.counted else _NONE_FINISHED
    return [comparison_figures.task_figure(gathered) or none]


def _more(gathered: Gathered) -> Iterator[Block]:
    pair = Pair([quantity_figure(gathered, k) for k in (2, 4)])
    if pair.drawn:
        yield (
            "A variant that forgets little may simply have learned little: the score just after "
            "learning says which. The inefficiency is by how many times learning exceeded the "
            "least that the speed limit allows."
        )
    yield pair if pair.drawn else _NONE_FINISHED


def _forecast(gathered: Gathered) -> list[Block]:
    pair = Pair([quantity_figure(gathered, 3), comparison_figures.forecast_figure(gathered)])
    none = Absent("No finished run was both forecast and measured.")
    return [pair if pair.drawn else none]


def _configuration(gathered: Gathered) -> list[Block]:
    lead = "The fields of the recipe that all runs have in common."
    return [lead, Code(_nested(gathered.shared))]


def _reproduce(gathered: Gathered) -> list[Block]:
    names = [shlex.quote(comparison_tables.place(entry.path)) for entry in gathered.entries]
    return [
        "Where the run directories lie:",
        Code(" \\\n  ".join(["capacity compare", *names])),
        "Means are over finished runs of one recipe. Of one run, the mean is over its replicas, "
        "networks with an initialisation and a data order of their own; of several, it is over the "
        "runs. Intervals are Student's at 90 %, those of a gap Welch's.",
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
    Section("tasks", "Task by task", _tasks),
    Section("more", "Learning and its cost", _more),
    Section("forecast", "Forecasts", _forecast),
    Section("runs", "Every run", lambda gathered: [comparison_tables.run_table(gathered)]),
    Section("configuration", "Shared configuration", _configuration),
    Section("reproduce", "Reproduce", _reproduce),
])
"""The page; `SECTIONS.register` adds a section to it."""
