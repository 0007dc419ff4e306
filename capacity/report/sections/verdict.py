"""The verdict: what the run shows in one sentence, a sentence and lights per transition."""

from __future__ import annotations

from collections.abc import Iterator

from capacity.report import sentences
from capacity.report.blocks import Absent, Block, Part, Section
from capacity.report.prediction import drop_figure
from capacity.report.transition_lights import light_table
from capacity.results.view import RunView
from capacity.tasks.scoring import scoring_words

_ONE_REPLICA = (
    "One replica: there is no spread between networks, so measured values carry no standard error."
)


def _content(view: RunView) -> Iterator[Block | None]:
    alone = view.replicas == 1 and view.learned > 0
    yield Part(
        "verdict.html",
        {
            "headline": sentences.headline(view),
            "facts": sentences.facts(view),
            "remarks": [
                ("scoring", scoring_words(view.tasks)),
                ("", _ONE_REPLICA if alone else ""),
            ],
            "sentences": [
                (f"transition-{int(t['task']) + 1}", sentences.transition_sentence(view, t))
                for t in view.transitions
            ],
        },
    )
    if view.transitions:
        yield light_table(view)
        yield drop_figure(view)
    else:
        yield Absent(
            "There is no transition from learned tasks to a new one, so nothing was forecast."
        )


SECTION = Section("verdict", "Verdict", _content)
