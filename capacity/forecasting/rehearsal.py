"""What a rehearsal leaves open: a copy learned the new task at full length, in another order.

Only the data order differs from the training to come. By how much that changes the outcome was
measured on 60 networks of the development half of the scored grid
(`benchmarks/forecast/score_budgets.py`): the interval of the test samples, widened by a floor and
stretched until it held 90 % or more of what two other orders gave (split conformal prediction with
a normalised score).
"""

from __future__ import annotations

from dataclasses import replace

from capacity.forecasting.quantities import half_width, within
from capacity.forecasting.record import Forecast, Forgetting
from capacity.records.estimate import Estimate, Status

FLOOR, STRETCH = 0.005, {"drop": 1.0, "rise": 2.7, "new_accuracy": 1.0, "new_loss": 1.0}
"""Added to the half-width that the test samples give; and the factor of the sum, by quantity."""
NOTE = (
    "Rehearsed: a copy of the network learned the new task at full length, in another data order; "
    "the interval is what another order changes (measured on the development pairs)."
)


def rehearsed(made: Forecast) -> Forecast:
    """Give a rehearsal its intervals.

    Args:
        made: What the engine read off a copy that went through the whole training.

    Returns:
        The same with the intervals that another data order needs. What diverged stays as it is.
    """
    return replace(
        made,
        old=tuple(
            Forgetting(
                accuracy_drop=_widened("drop", each.accuracy_drop),
                loss_increase=_widened("rise", each.loss_increase),
            )
            for each in made.old
        ),
        new_accuracy=_widened("new_accuracy", made.new_accuracy),
        new_loss=_widened("new_loss", made.new_loss),
    )


def _widened(name: str, estimate: Estimate) -> Estimate:
    own = half_width(estimate)
    if estimate.value is None or own is None:
        return estimate
    half = STRETCH[name] * (own + FLOOR)
    ends = (within(name, estimate.value - half), within(name, estimate.value + half))
    return replace(estimate, interval=ends, status=Status.OK, note=NOTE)
