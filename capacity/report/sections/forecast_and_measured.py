"""Forecasts beside what was then measured, and how good they were."""

from __future__ import annotations

from collections.abc import Iterator

from capacity.records.numbers import fixed, plural
from capacity.report.blocks import Absent, Block, Fold, Pair, Section
from capacity.report.prediction import scatter_figure
from capacity.report.predictors import predictor_figure
from capacity.report.sentences import score_sentence
from capacity.report.tables import drop_target, score_table
from capacity.results.view import Record, RunView, pick

_HOW = {
    "rehearsed": (
        "copies of the networks go through the whole training of the new task, in a data order of "
        "their own, since it is short (a rehearsal)"
    ),
    "compressed": (
        "a copy of the network goes through a compressed training of the new task, and what has "
        "then become of the old ones is corrected by what earlier transitions tell"
    ),
    "linearised": (
        "the network is linearised where it stands, and the new task's own training is simulated "
        "on the linearisation"
    ),
}


def _content(view: RunView) -> Iterator[Block | None]:
    if not view.transitions:
        yield Absent("There was no transition to forecast.")
        return
    how = "; or ".join(_HOW[kind] for kind in view.physics)
    lead = f"Each forecast is made before its task is trained: {how}."
    targets = ("accuracy_drop", "loss_increase") if view.classifies else ("loss_increase",)
    scatter = Pair([scatter_figure(view, target) for target in targets])
    if not scatter.drawn:
        yield Absent("No pair of a new and an old task was both forecast and measured.")
        return
    count = plural(view.forecast_scores["pairs"], "pair")
    yield Fold(f"Forecast against measured, pair by pair: {count}", [lead, scatter])
    yield Fold(
        _ranks(view), [score_sentence(view), predictor_figure(view) or score_table(view)], "score"
    )


def _ranks(view: RunView) -> str:
    target, _, _ = drop_target(view)
    scores: Record = view.result.get("scores") or {}
    rank = pick(scores, target, "spearman")
    if rank is None or rank.value is None:
        return "How well the forecast orders the pairs: not defined here"
    controls = (scores.get("controls") or {}).values()
    others = [e.value for c in controls if (e := pick(c, target)) and e.value is not None]
    best = f", the best simpler predictor {fixed(max(others, key=abs), 2)}" if others else ""
    return f"Rank correlation with what was forgotten: forecast {fixed(rank.value, 2)}{best}"


SECTION = Section("forecast", "Forecast and measured", _content)
