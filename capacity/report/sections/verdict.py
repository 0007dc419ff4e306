"""The verdict: five answers, then every transition at a glance."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from capacity.report import advice
from capacity.report.blocks import Absent, Answer, Block, Lines, Section
from capacity.report.doubts import doubts
from capacity.report.foresight import foresight_sentence, foresight_table
from capacity.report.prediction import drop_figure
from capacity.report.transition_lights import light_table
from capacity.results.view import RunView

_NO_STRATEGY = Markup(
    "No strategy against forgetting was forecast; "
    "<code>measure.strategies=[ewc,replay,gpm]</code> asks for some."
)


def _content(view: RunView) -> Iterator[Block | None]:
    yield Answer("What was lost?", "lost", [advice.lost_sentences(view)])
    if view.transitions:
        yield Answer(
            "Was it foreseen?", "foreseen", [foresight_sentence(view), foresight_table(view)]
        )
        yield Answer(
            "What to do for the next task?",
            "next",
            [advice.next_sentences(view) or Absent(_NO_STRATEGY), advice.next_table(view)],
        )
    if view.learned:
        yield Answer(
            "What not to trust?",
            "doubts",
            [Lines(doubts(view)) if doubts(view) else "Every value has the status ok."],
        )
    yield Answer("What did learning cost?", "cost", [advice.cost_sentence(view)])
    if view.transitions:
        yield light_table(view)
        yield drop_figure(view)
    else:
        yield Absent(
            "There is no transition from learned tasks to a new one, so nothing was forecast."
        )


SECTION = Section("verdict", "Verdict", _content)
