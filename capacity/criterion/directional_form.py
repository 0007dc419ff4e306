"""The directional form of the criterion: where learning B carries A, by a model of the training.

Steps that follow the gradient are read as gradient flow of the linearised network (`drift`). Steps
that are clipped or scaled by their history are none: there the forecast's compressed training of
the network itself says what becomes of A. What diverged says nothing, and the form is undecided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from capacity.criterion.criterion_verdicts import (
    FormVerdict,
    facing_half_width,
    judge,
    own_half_width,
)
from capacity.criterion.output_drift import Drift
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Strategy, Training
from capacity.records.estimate import Estimate, Status, not_defined
from capacity.tasks.task import Task

LOST_THRESHOLD = 0.061
"""Share of A lost above which `directional` predicts forgetting."""
LOST_STRETCH = 0.95
"""Factor that makes intervals of the share lost hold 90 % of the measured drops."""
LOST_FLOOR = 0.01
"""Added to their half-width before: where no sample changes sides there is no spread to see."""
FORECAST_STRETCH = 1.55
"""The same factor for the compressed training where no calibration speaks of it: it holds 95 % of
the plain drops of the corpus that ships, since what needs it lies outside that corpus."""

FLOW_NOTE = "Share of the scored samples of A that B's gradient flow carries over the margin."
_FORECAST_NOTE = (
    "Mean drop of accuracy on the old tasks' samples after a compressed training of the "
    "network itself: these steps, clipped or scaled by their history, are no gradient flow."
)
_RISE_NOTE = "Expected rise of A's loss {}, against the tolerance."


def by_flow(drift: Drift, tolerance: float) -> FormVerdict:
    """Judge by gradient flow.

    Args:
        drift: What B's gradient flow does to A.
        tolerance: a, nats; the threshold where there is no accuracy.

    Returns:
        The verdict; `undecided` where the flow diverged.
    """
    if drift.lost.status is Status.NOT_DEFINED:
        # Regression has no accuracy: a rise of the loss beyond its own noise is forgetting.
        note = _RISE_NOTE.format("under B's gradient flow")
        return judge("directional", drift.loss_rise, tolerance, fires_above=True, note=note)
    return judge(
        "directional", drift.lost, LOST_THRESHOLD,
        fires_above=True, note=FLOW_NOTE, half_width=lost_half_width(drift.lost),
    )  # fmt: skip


def by_forecast(
    model: FlatModel,
    theta: Tensor,
    old: Sequence[Task],
    new: Task,
    training: Training,
    *,
    tolerance: float,
    seed: int,
) -> tuple[FormVerdict, float | None]:
    """Judge by a compressed training of the network itself.

    Args:
        model: The network.
        theta: Its parameters after the old tasks (P,).
        old: The old tasks.
        new: The task to come.
        training: Its planned training; a strategy in it is left out.
        tolerance: a, nats; the threshold where there is no accuracy.
        seed: Seed of the samples drawn.

    Returns:
        The verdict, and how far the parameters went; `undecided` and None where the steps cannot be
        compressed, and `undecided` where the compressed training diverged.
    """
    # Here: the forecasts are built on this package.
    from capacity.forecasting.budget import SHARE
    from capacity.forecasting.compression import unknown_to_compression
    from capacity.forecasting.within_budget import forecast_one

    unknown = unknown_to_compression(training)
    if unknown is not None:
        nothing = not_defined(
            f"Steps of {unknown}, clipped, are no gradient flow, and no compressed training stands "
            "for them: what becomes of A is not known."
        )
        return judge("directional", nothing, LOST_THRESHOLD, fires_above=True), None
    forecast, engine = forecast_one(
        model, theta, tuple(old), new, training,
        budget=SHARE, stretch=True, seed=seed, strategy=Strategy(),
    )  # fmt: skip
    if all(task.classifies for task in old):
        drop = over_tasks([each.accuracy_drop for each in forecast.old])
        half = None
        if drop.status is Status.UNCALIBRATED and drop.value is not None:
            half = FORECAST_STRETCH * (own_half_width(drop) + LOST_FLOOR)
        verdict = judge(
            "directional", drop, LOST_THRESHOLD,
            fires_above=True, note=_noted(_FORECAST_NOTE, drop), half_width=half,
        )  # fmt: skip
        return verdict, engine.displacement
    rise = over_tasks([each.loss_increase for each in forecast.old])
    half = FORECAST_STRETCH * facing_half_width(rise, tolerance)
    note = _noted(_RISE_NOTE.format("after a compressed training of the network itself"), rise)
    verdict = judge("directional", rise, tolerance, fires_above=True, note=note, half_width=half)
    return verdict, engine.displacement


def lost_half_width(lost: Estimate, *, stretch: float = LOST_STRETCH) -> float:
    """Widen the interval of the share lost by what it does not know: the linearisation's error.

    Where few samples of B decide, or A's are close to their margins, the linearisation errs most,
    too: the interval is stretched, not added to, until it held 90 % of the drops that were measured
    on the choosing half (split conformal prediction with a normalised score).

    Args:
        lost: Expected share lost.
        stretch: The factor.

    Returns:
        Half of the 90 % interval for the drop of accuracy to come.
    """
    return stretch * (own_half_width(lost) + LOST_FLOOR)


def over_tasks(each: Sequence[Estimate]) -> Estimate:
    """Average over old tasks that one displacement moves: their errors go together.

    Args:
        each: One estimate per task, at least one.

    Returns:
        The mean, with the mean of errors and intervals and the least certain status; the first
        estimate without a value, where there is one.
    """
    lost = next((one for one in each if one.value is None or not one.resolved), None)
    if lost is not None:
        return lost

    def mean(values: Sequence[float | None]) -> float | None:
        have = [value for value in values if value is not None]
        return math.fsum(have) / len(have) if len(have) == len(values) else None

    ends = [one.interval for one in each if one.interval is not None]
    low, high = mean([a for a, _ in ends]), mean([b for _, b in ends])
    whole = len(ends) == len(each) and low is not None and high is not None
    sure = all(one.status is Status.OK for one in each)
    return Estimate(
        value=mean([one.value for one in each]),
        stderr=mean([one.stderr for one in each]),
        interval=(low, high) if whole and low is not None and high is not None else None,
        level=each[0].level,
        status=Status.OK if sure else Status.UNCALIBRATED,
        note=each[0].note,
    )


def _noted(note: str, value: Estimate) -> str:
    return f"{note} {value.note}".rstrip()
