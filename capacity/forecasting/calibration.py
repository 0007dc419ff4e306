"""What earlier transitions say of a new forecast: a correction where one helps, and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from capacity.forecasting.corpus import (
    Conditions,
    Corpus,
    complete,
    conformal_row,
    kind_of,
    numbers,
    shipped,
)
from capacity.forecasting.quantities import before, half_width, mean, within
from capacity.records.estimate import Estimate, Status

if TYPE_CHECKING:
    from capacity.forecasting.engine import CheapForecast
    from capacity.forecasting.record import Forecast

UNLEARNED, FEW_STEPS = 0.2, 64
"""Share of the new task's loss that is left by a copy which has not learned it, and steps of a copy
up to which that says something. Chosen on the development half
(`benchmarks/forecast/score_physics.py`): there errors of short plans are twice as large."""


def calibrated(
    made: Forecast, said: CheapForecast, conditions: Conditions, corpus: Corpus | None = None
) -> Forecast:
    """Correct a forecast where that helps, and give it intervals that cover.

    Args:
        made: A forecast of the engine within a budget, under one strategy.
        said: The same, as the engine gave it.
        conditions: What it was made for.
        corpus: Earlier transitions; None takes those that ship.

    Returns:
        The forecast, corrected, with calibrated intervals; where the corpus does not speak of it,
        the same forecast, `uncalibrated`, with the reason in its notes. Options of a strategy that
        the corpus has otherwise leave it corrected, but `uncalibrated`. With several old tasks the
        correction is that of their mean, and moves each of them by as much.
    """
    known = shipped() if corpus is None else corpus
    reason = "no corpus of earlier transitions" if known is None else known.why_not(conditions)
    row = numbers(said, conditions)
    if reason is None and not complete(row):
        reason = "the forecast has no value or interval to start from"
    if known is not None and reason is None:
        reason = known.why_far(row)
    if known is None or reason is not None:
        return _noted(made, f"Uncalibrated: {reason}.")
    doubt = " ".join(part for part in (known.unlike(conditions), _unlearned(said)) if part)
    say = _Saying(known, row, made.new_loss.level, doubt)
    old = tuple(
        replace(
            each,
            accuracy_drop=say.of("drop", each.accuracy_drop),
            loss_increase=say.of("rise", each.loss_increase),
        )
        for each in made.old
    )
    fresh = replace(
        made,
        old=old,
        new_accuracy=say.of("new_accuracy", made.new_accuracy),
        new_loss=say.of("new_loss", made.new_loss),
    )
    each = list(zip(said.old, old, strict=True))
    accuracies = [(r.accuracy, r.drop, then.accuracy_drop, 1) for r, then in each]
    losses = [(r.loss, r.rise, then.loss_increase, -1) for r, then in each]
    return replace(
        fresh,
        average_accuracy=_average(made.average_accuracy, fresh.new_accuracy, accuracies),
        average_loss=_average(made.average_loss, fresh.new_loss, losses),
    )


def _unlearned(said: CheapForecast) -> str:
    """Say that the copy did not learn the new task: a compressed training betrays itself so."""
    left, before = said.new.loss.value, said.new_loss_before
    if left is None or left <= UNLEARNED * before or said.steps > FEW_STEPS:
        return ""
    return (
        f"The compressed copy did not learn the new task: {100 * left / before:.0f} % of its loss "
        "are left. Where the training itself learns more, give a larger budget."
    )


@dataclass(frozen=True)
class _Saying:
    """What a corpus says of one forecast."""

    corpus: Corpus
    row: Mapping[str, Any]
    level: float
    doubt: str

    def of(self, name: str, estimate: Estimate) -> Estimate:
        assert estimate.value is not None
        kind, row = kind_of(self.row["strategy"]), self.row
        moved = self.corpus.corrected(name, [row])[0] - row[name]
        value = within(name, estimate.value + moved)
        model = self.corpus.conformal(name, kind)
        inputs = np.array([conformal_row(value, half_width(estimate) or 0.0, row["steps"])])
        low, high = model.predict_interval(inputs, self.level)[0]
        if not np.isfinite([low, high]).all():
            return estimate
        note = (
            "Calibrated on earlier transitions of "
            f"{model.groups_} pairs of tasks: the interval (conformal)"
            + (", and the value (learned correction)." if moved else ".")
        )
        return replace(
            estimate,
            value=value,
            interval=(within(name, float(low)), within(name, float(high))),
            status=Status.UNCALIBRATED if self.doubt else Status.OK,
            note=f"{note} {self.doubt}".rstrip(),
        )


def _average(
    average: Estimate, new: Estimate, old: Sequence[tuple[Estimate, Estimate, Estimate, int]]
) -> Estimate:
    """Average over tasks what corrected changes leave of each."""
    ends = [new.value]
    for after, change, changed, sign in old:
        start = before(after, change, sign)
        assert start is not None
        assert changed.value is not None
        ends.append(start - sign * changed.value)
    return replace(average, value=mean(ends))


def _noted(made: Forecast, text: str) -> Forecast:
    def more(estimate: Estimate) -> Estimate:
        return replace(estimate, note=f"{estimate.note} {text}".strip())

    return replace(
        made,
        old=tuple(
            replace(
                each,
                accuracy_drop=more(each.accuracy_drop),
                loss_increase=more(each.loss_increase),
            )
            for each in made.old
        ),
        new_accuracy=more(made.new_accuracy),
        new_loss=more(made.new_loss),
    )
