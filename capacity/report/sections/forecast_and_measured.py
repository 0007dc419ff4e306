"""Forecasts beside what was then measured, and how good they were."""

from __future__ import annotations

from collections.abc import Iterator

from capacity.report.blocks import Absent, Block, Heading, Pair, Section
from capacity.report.prediction import scatter_figure
from capacity.report.predictors import predictor_figure
from capacity.report.sentences import score_sentence
from capacity.report.tables import forecast_table, score_table
from capacity.results.view import RunView

_COMPRESSED = (
    "a copy of the network goes through a compressed training of the new task, and what has then "
    "become of the old ones is corrected by what earlier transitions tell."
)
_LINEARISED = (
    "the network is linearised where it stands, and the new task's own training is simulated on "
    "the linearisation."
)


def _content(view: RunView) -> Iterator[Block | None]:
    if not view.transitions:
        yield Absent("There was no transition to forecast.")
        return
    how = _COMPRESSED if view.compressed else _LINEARISED
    yield f"Each forecast is made before its task is trained: {how}"
    yield forecast_table(view)
    targets = ("accuracy_drop", "loss_increase") if view.classifies else ("loss_increase",)
    scatter = Pair([scatter_figure(view, target) for target in targets])
    none = Absent("No pair of a new and an old task was both forecast and measured.")
    yield scatter if scatter.drawn else none
    yield Heading("How good were the forecasts?", "score")
    yield score_sentence(view)
    yield predictor_figure(view)
    yield score_table(view) if view.forecast_scores["pairs"] else None


SECTION = Section("forecast", "Forecast and measured", _content)
