"""What earlier transitions say of a new forecast: a correction where one helps, and intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from capacity.forecasting.corpus import (
    BIAS,
    PLAIN,
    Conditions,
    Corpus,
    complete,
    conformal_row,
    kind_of,
    numbers,
)
from capacity.forecasting.quantities import before, half_width, mean, within
from capacity.forecasting.shipped import speaking
from capacity.forecasting.task_reading import NOTE
from capacity.records.estimate import Estimate, Status

if TYPE_CHECKING:
    from capacity.forecasting.engine import CheapForecast
    from capacity.forecasting.record import Forecast

_SLACK = 1e-3
"""Of budgets that are compared."""
_ASINH = ("rise", "new_loss")
WIDENED = (
    "The interval covers the finite test split, how far the end of the compressed training "
    "wanders, and the bias that such trainings had on the development pairs."
)


def calibrated(
    made: Forecast, said: CheapForecast, conditions: Conditions, corpus: Corpus | None = None
) -> Forecast:
    """Correct a forecast where that helps, and give it intervals that cover.

    Args:
        made: A forecast of the engine within a budget, under one strategy.
        said: The same, as the engine gave it.
        conditions: What it was made for.
        corpus: Earlier transitions; None takes those that ship and speak of it.

    Returns:
        The forecast, corrected, with calibrated intervals; where the corpus does not speak of it,
        the same forecast, `uncalibrated`, with the reason in its notes and the usual bias of such
        trainings in its intervals; where all that differs is a larger budget, which pays as many
        steps as the training asks for, that is calibration enough. Options of a strategy that the
        corpus has otherwise leave it corrected, but `uncalibrated`. With several old tasks the
        correction is that of their mean, and moves each of them by as much.
    """
    few = _too_few(said)
    known, reason = speaking(conditions) if corpus is None else (corpus, corpus.why_not(conditions))
    row = numbers(said, conditions)
    if reason is None and not complete(row):
        reason = "the forecast has no value or interval to start from"
    if known is not None and reason is None and (other := known.other_budget(conditions)):
        # The bias was measured without strategies, and with enough steps is all that is left.
        if said.share >= said.enough - _SLACK and kind_of(conditions.strategy) == PLAIN:
            return _with_bias(made, known.bias, few)
        reason = other
    if known is not None and reason is None:
        reason = known.why_far(row)
    if known is None or reason is not None:
        bias = BIAS if known is None else known.bias
        return _with_bias(made, bias, few, f"Uncalibrated: {reason}. {few}".rstrip())
    say = _Saying(known, row, made.new_loss.level, known.unlike(conditions), few)
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


@dataclass(frozen=True)
class _Saying:
    """What a corpus says of one forecast."""

    corpus: Corpus
    row: Mapping[str, Any]
    level: float
    doubt: str
    few: str

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
            note=" ".join(part for part in (note, self.doubt, self.few) if part),
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


def _with_bias(
    made: Forecast, bias: Mapping[str, Sequence[float]], few: str, why: str = ""
) -> Forecast:
    """Leave the values as the engine gave them, and widen the intervals by its usual bias."""

    def wider(name: str, estimate: Estimate) -> Estimate:
        if estimate.value is None:
            return replace(estimate, note=f"{estimate.note} {why}".strip())
        return replace(
            widened(name, estimate, bias[name][1 if few else 0]),
            status=Status.UNCALIBRATED if why else Status.OK,
            note=f"{estimate.note.replace(NOTE, WIDENED)} {why}".strip(),
        )

    return replace(
        made,
        old=tuple(
            replace(
                each,
                accuracy_drop=wider("drop", each.accuracy_drop),
                loss_increase=wider("rise", each.loss_increase),
            )
            for each in made.old
        ),
        new_accuracy=wider("new_accuracy", made.new_accuracy),
        new_loss=wider("new_loss", made.new_loss),
    )


def _too_few(said: CheapForecast) -> str:
    """Say what budget pays the steps that the training asks for, where this one does not."""
    if not said.share < said.enough - _SLACK:
        return ""
    return (
        "The compressed training has fewer steps than the training asks for; a budget of "
        f"{said.enough:.2g} pays them."
    )


def asinh_half(value: float, half: float) -> float:
    """Give a half-width on the scale of asinh.

    Args:
        value: The middle.
        half: Its half-width.

    Returns:
        Half the distance of the ends there: a slope at the middle would make any width of it.
    """
    return (math.asinh(value + half) - math.asinh(value - half)) / 2


def widened(name: str, estimate: Estimate, bias: float) -> Estimate:
    """Add a bias to an interval, in squares.

    Args:
        name: The quantity; a rise or a loss has its bias on the scale of asinh, where errors of
            small and of large ones are alike.
        estimate: A reading, with the interval of its samples.
        bias: Half-width of the bias.

    Returns:
        The same with the wider interval; as it is without one.
    """
    own, value = half_width(estimate), estimate.value
    if value is None or own is None:
        return estimate
    if name in _ASINH:
        middle, half = math.asinh(value), math.hypot(asinh_half(value, own), bias)
        ends = math.sinh(middle - half), math.sinh(middle + half)
    else:
        half = math.hypot(own, bias)
        ends = value - half, value + half
    return replace(estimate, interval=(within(name, ends[0]), within(name, ends[1])))
