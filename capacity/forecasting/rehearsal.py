"""What a rehearsal leaves open: a copy learned the new task at full length, in another order.

Only the data order differs from the training to come. By how much that changes the outcome was
measured on 60 networks of the development half of the scored grid
(`benchmarks/forecast/score_budgets.py`): the interval of the test samples, widened by a floor and
stretched until it held 90 % or more of what two other orders gave (split conformal prediction with
a normalised score).

Where a training is so short that several copies rehearse it, each in an order of its own, what
they differ by is seen and not only expected. The two go together as a scaled inverse chi-squared
prior and a sample variance do (Smyth, Statistical Applications in Genetics and Molecular Biology 3,
2004, the moderated t).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from capacity.forecasting.architecture import KNOWN
from capacity.forecasting.quantities import half_width, mean, within
from capacity.forecasting.record import Forecast, Forgetting
from capacity.records.estimate import Estimate, Status
from capacity.records.intervals import interval, student

FLOOR, STRETCH = 0.005, {"drop": 1.0, "rise": 2.7, "new_accuracy": 1.0, "new_loss": 1.0}
"""Added to the half-width that the test samples give; and the factor of the sum, by quantity."""
NOTE = (
    "Rehearsed: a copy of the network learned the new task at full length, in another data order; "
    "the interval is what another order changes (measured on the development pairs)."
)

EXPECTED = 8.0
"""Degrees of freedom that the expected spread counts as, beside those of the copies. Chosen on the
development half (`benchmarks/forecast/rehearsal_orders.py`)."""

SEVERAL = (
    "Rehearsed: {n} copies of the network learned the new task at full length, each in a data "
    "order of its own; the value is their mean, the interval is for one further order."
)

LARGEST = 100_000
"""Parameters up to which these intervals are taken to hold: four times those of the largest network
that they were measured on."""
ENOUGH = 3
"""Copies whose own differences suffice for an interval of any network."""
_SEEN = f"{ENOUGH} copies would see it (capacity.forecast(..., orders={ENOUGH}))"


def unlike_measured(architecture: str, parameters: int) -> str:
    """Say why the interval of a single rehearsal is not known to hold for a network.

    Args:
        architecture: Its kind, as `architecture.architecture_of` names it.
        parameters: Its size.

    Returns:
        A sentence; empty where it is like those that the interval was measured on.
    """
    if architecture not in KNOWN:
        return f"Uncalibrated: that was not measured on a {architecture}; {_SEEN}."
    if parameters > LARGEST:
        return (
            f"Uncalibrated: that was measured on networks of less than {LARGEST:,} parameters, and "
            f"this one has {parameters:,}; {_SEEN}."
        )
    return ""


def rehearsed(made: Forecast, unlike: str = "") -> Forecast:
    """Give a rehearsal its intervals.

    Args:
        made: What the engine read off a copy that went through the whole training.
        unlike: Why they are not known to hold (`unlike_measured`).

    Returns:
        The same with the intervals that another data order needs. What diverged stays as it is.
    """
    return replace(
        made,
        old=tuple(
            Forgetting(
                accuracy_drop=_widened("drop", each.accuracy_drop, unlike),
                loss_increase=_widened("rise", each.loss_increase, unlike),
            )
            for each in made.old
        ),
        new_accuracy=_widened("new_accuracy", made.new_accuracy, unlike),
        new_loss=_widened("new_loss", made.new_loss, unlike),
    )


def _widened(name: str, estimate: Estimate, unlike: str) -> Estimate:
    own = half_width(estimate)
    if estimate.value is None or own is None:
        return estimate
    half = STRETCH[name] * (own + FLOOR)
    ends = (within(name, estimate.value - half), within(name, estimate.value + half))
    status = Status.UNCALIBRATED if unlike else Status.OK
    return replace(estimate, interval=ends, status=status, note=f"{NOTE} {unlike}".rstrip())


def over_orders(made: Sequence[Forecast]) -> Forecast:
    """Put rehearsals of one network together, each of which had a data order of its own.

    Args:
        made: The rehearsals, each with its intervals (`rehearsed`); at least one.

    Returns:
        The forecast: means over the orders, with intervals for one further order.
    """
    if len(made) == 1:
        return made[0]

    def put(name: str, of: Callable[[Forecast], Estimate]) -> Estimate:
        return combined(name, [of(one) for one in made])

    def drop_of(k: int) -> Callable[[Forecast], Estimate]:
        return lambda one: one.old[k].accuracy_drop

    def rise_of(k: int) -> Callable[[Forecast], Estimate]:
        return lambda one: one.old[k].loss_increase

    first = made[0]
    return replace(
        first,
        old=tuple(
            Forgetting(
                accuracy_drop=put("drop", drop_of(k)),
                loss_increase=put("rise", rise_of(k)),
            )
            for k in range(len(first.old))
        ),
        new_accuracy=put("new_accuracy", lambda one: one.new_accuracy),
        new_loss=put("new_loss", lambda one: one.new_loss),
        average_accuracy=_averaged([one.average_accuracy for one in made]),
        average_loss=_averaged([one.average_loss for one in made]),
    )


def _averaged(each: Sequence[Estimate]) -> Estimate:
    return replace(each[0], value=mean([one.value for one in each]))


def combined(name: str, each: Sequence[Estimate]) -> Estimate:
    """Put one quantity of several rehearsals together.

    Args:
        name: The quantity.
        each: What every copy says, with its interval.

    Returns:
        The mean with its interval; what the first says where none has a value.
    """
    have = [one for one in each if one.value is not None]
    values = [one.value for one in have if one.value is not None]
    halves = [half for one in have if (half := half_width(one)) is not None]
    if not values or len(halves) < len(values):
        return each[0]
    n, middle = len(values), math.fsum(values) / len(values)
    # An interval of one rehearsal holds the difference of two orders, which varies as both do.
    one = math.fsum(halves) / n / (student(EXPECTED, have[0].level) * math.sqrt(2))
    degrees = EXPECTED + n - 1
    squares = EXPECTED * one**2 + math.fsum((value - middle) ** 2 for value in values)
    sigma = math.sqrt(squares / degrees)
    low, high = interval(middle, sigma * math.sqrt(1 + 1 / n), degrees=degrees)
    lost = len(each) - n
    left = f" {lost} of {len(each)} copies diverged and are left out." if lost else ""
    return replace(
        have[0],
        value=middle,
        stderr=sigma / math.sqrt(n),
        interval=(within(name, low), within(name, high)),
        n=n,
        status=Status.UNCALIBRATED if lost else Status.OK if n >= ENOUGH else have[0].status,
        note=f"{SEVERAL.format(n=n)}{left}",
    )
