"""The quantities of a forecast as plain numbers: their ranges, half-widths and means."""

from __future__ import annotations

import math
from collections.abc import Sequence

from capacity.records.estimate import Estimate

QUANTITIES = ("drop", "rise", "new_accuracy", "new_loss")
_RANGES = {"drop": (-1.0, 1.0), "new_accuracy": (0.0, 1.0), "new_loss": (0.0, math.inf)}
"""Of quantities that have one."""


def within(name: str, value: float) -> float:
    """Keep a quantity in the range that it can have.

    Args:
        name: The quantity.
        value: A forecast of it.

    Returns:
        The same, or the nearest that is possible.
    """
    lowest, highest = _RANGES.get(name, (-math.inf, math.inf))
    return min(max(value, lowest), highest)


def before(after: Estimate, change: Estimate, sign: int) -> float | None:
    """Say what a quantity was before the new task.

    Args:
        after: What it is then.
        change: By how much it changes.
        sign: 1 where a change makes it less, -1 where more.

    Returns:
        The value; None where one of them has none.
    """
    if after.value is None or change.value is None:
        return None
    return after.value + sign * change.value


def half_width(estimate: Estimate) -> float | None:
    """Give half the width of an interval.

    Args:
        estimate: What has one, or none.

    Returns:
        The half-width; None without an interval.
    """
    return None if estimate.interval is None else (estimate.interval[1] - estimate.interval[0]) / 2


def mean(values: Sequence[float | None]) -> float | None:
    """Average numbers of which some may be missing.

    Args:
        values: The numbers.

    Returns:
        Their mean; None where one is missing, or all.
    """
    have = [value for value in values if value is not None]
    return math.fsum(have) / len(have) if have and len(have) == len(values) else None
