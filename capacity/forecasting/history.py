"""What the transitions of one's own runs say of the next forecast: its bias, and its interval.

Every transition that was forecast and then measured tells how wrong forecasts of this project are.
The bias is the mean error over transitions, drawn towards 0 while there are few; the interval is
conformal (`conformal`), from the errors that are left when each transition's bias is taken from the
others. A transition has one vote, however many old tasks it has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from capacity.base.randomness import kept_random_state
from capacity.forecasting.quantities import half_width, within
from capacity.forecasting.record import Forecast, Forgetting
from capacity.records.estimate import Estimate, Status
from capacity.records.forecast_kind import physics_of

NEAREST = 60
"""Transitions that speak: those whose forecasts were nearest to the new one."""
_DRAWN = 4.0
"""Transitions that weigh as much as the belief that there is no bias."""


@dataclass(frozen=True, kw_only=True)
class Past:
    """What was forecast of one quantity, and what was then measured.

    Attributes:
        transition: Names the transition.
        quantity: `drop`, `rise`, `new_accuracy` or `new_loss`.
        said: The forecast.
        half: Half the width of its interval.
        measured: What was measured.
        physics: How it was forecast (`forecast_kind.physics_of`).
        strategy: What was done against forgetting (`forecast_kind.plain_strategy`).
        parameters: P of the network.
    """

    transition: str
    quantity: str
    said: float
    half: float
    measured: float
    physics: str
    strategy: str
    parameters: int


@dataclass(frozen=True)
class History:
    """Forecasts that were made and then measured.

    Attributes:
        past: One entry per transition, old task and quantity.
    """

    past: tuple[Past, ...]

    def calibrated(self, made: Forecast, *, strategy: str, parameters: int) -> Forecast:
        """Correct a forecast, and give it intervals, by what earlier ones missed.

        Args:
            made: The forecast.
            strategy: What is done against forgetting (`forecast_kind.plain_strategy`).
            parameters: P of its network.

        Returns:
            The forecast; what the history has too few transitions for stays as it is, with a
            sentence on that.

        Raises:
            ValueError: If the history is one of other networks alone.
        """
        sizes = sorted({each.parameters for each in self.past})
        if sizes and parameters not in sizes:
            raise ValueError(
                f"history is one of networks with {', '.join(f'{n:,}' for n in sizes)} parameters, "
                f"and this one has {parameters:,}; pass runs of this network, or leave history out"
            )
        kind = physics_of(made.cost_ratio.note)
        mine = [
            each
            for each in self.past
            if (each.strategy, each.physics, each.parameters) == (strategy, kind, parameters)
        ]

        def of(name: str, estimate: Estimate) -> Estimate:
            return _calibrated(name, estimate, [each for each in mine if each.quantity == name])

        old = tuple(
            Forgetting(
                accuracy_drop=of("drop", each.accuracy_drop),
                loss_increase=of("rise", each.loss_increase),
            )
            for each in made.old
        )
        accuracy = of("new_accuracy", made.new_accuracy)
        loss = of("new_loss", made.new_loss)
        drops = [
            _moved(a.accuracy_drop, b.accuracy_drop) for a, b in zip(made.old, old, strict=True)
        ]
        rises = [
            _moved(a.loss_increase, b.loss_increase) for a, b in zip(made.old, old, strict=True)
        ]
        count = len(old) + 1
        gained = (_moved(made.new_accuracy, accuracy) - math.fsum(drops)) / count
        risen = (_moved(made.new_loss, loss) + math.fsum(rises)) / count
        return replace(
            made,
            old=old,
            new_accuracy=accuracy,
            new_loss=loss,
            average_accuracy=_shifted(made.average_accuracy, gained),
            average_loss=_shifted(made.average_loss, risen),
        )


def _moved(before: Estimate, after: Estimate) -> float:
    return (after.value or 0.0) - (before.value or 0.0)


def _shifted(estimate: Estimate, by: float) -> Estimate:
    if estimate.value is None or by == 0:
        return estimate
    ends = estimate.interval
    moved = None if ends is None else (ends[0] + by, ends[1] + by)
    return replace(estimate, value=estimate.value + by, interval=moved)


def _calibrated(name: str, estimate: Estimate, past: Sequence[Past]) -> Estimate:
    with kept_random_state():  # scikit-learn takes a second to load, and draws from Python's stream
        from capacity.forecasting.conformal import GroupedConformal

    half = half_width(estimate)
    if estimate.value is None or half is None:
        return estimate
    said = estimate.value
    names = sorted(
        {each.transition for each in past},
        key=lambda one: min(abs(e.said - said) for e in past if e.transition == one),
    )[:NEAREST]
    near = [each for each in past if each.transition in set(names)]
    # With n transitions the quantile at this level is that of n + 1, one of them unbounded.
    least = math.ceil(estimate.level / (1 - estimate.level) - 1e-9)
    if len(names) < least:
        text = f"History: {len(names)} transitions like this one, and {least} are needed."
        return replace(estimate, note=f"{estimate.note} {text}".strip())
    errors = {
        one: float(np.mean([e.measured - e.said for e in near if e.transition == one]))
        for one in names
    }
    weight = len(names) / (len(names) + _DRAWN)
    total = math.fsum(errors.values())
    bias = weight * total / len(names)
    rows = [
        (e.said + weight * (total - errors[e.transition]) / (len(names) - 1), e.half) for e in near
    ]
    model = GroupedConformal().fit(
        np.array(rows), np.array([e.measured for e in near]), [e.transition for e in near]
    )
    value = within(name, said + bias)
    low, high = model.predict_interval(np.array([[value, half]]), estimate.level)[0]
    return replace(
        estimate,
        value=value,
        interval=(within(name, float(low)), within(name, float(high))),
        status=Status.OK,
        note=f"Calibrated on {len(names)} transitions of your own runs: value and interval.",
    )
