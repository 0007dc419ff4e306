"""Schedules: the learning rate of every step or epoch, relative to the plan's.

Each is what `torch.optim.lr_scheduler` or transformers has under the name; warmup is that of
transformers, whose first step has rate 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Schedule = Literal["constant", "cosine", "linear", "polynomial", "step", "exponential", "custom"]

NEEDS: dict[str, tuple[str, ...]] = {
    "constant": (),
    "cosine": (),
    "linear": (),
    "polynomial": ("power",),
    "step": ("gamma", "decay_every"),
    "exponential": ("gamma",),
    "custom": ("rates",),
}
"""Schedules, with the fields that each needs; no other one takes them."""


def warm_units(warmup: float, units: int) -> int:
    """Count the steps or epochs of warmup.

    Args:
        warmup: A number of them, or below 1 a share of all.
        units: All of them.

    Returns:
        The number; a share is rounded up, as transformers does.
    """
    return math.ceil(warmup * units) if warmup < 1 else int(warmup)


def factors(
    schedule: str,
    units: int,
    *,
    warmup: float = 0,
    final: float = 0.0,
    power: float | None = None,
    gamma: float | None = None,
    decay_every: int | None = None,
) -> list[float]:
    """List the rate of every step or epoch, relative to the plan's.

    Args:
        schedule: Its name, one of `NEEDS` but `custom`.
        units: Number of steps or epochs.
        warmup: Those at the start over which the rate rises from 0, or their share.
        final: Where cosine, linear and polynomial end.
        power: Exponent of `polynomial`.
        gamma: Factor of `step` and `exponential`.
        decay_every: After how many `step` takes its factor.

    Returns:
        One factor each.
    """
    warm = warm_units(warmup, units)
    rest = max(1, units - warm)

    def after(k: int) -> float:
        if schedule == "cosine":
            return final + (1 - final) * (0.5 * (1 + math.cos(math.pi * k / rest)))
        if schedule in {"linear", "polynomial"}:
            left = 1 - k / rest
            return final + (1 - final) * (left if power is None else left**power)
        if schedule in {"step", "exponential"}:
            assert gamma is not None
            return float(gamma ** (k // (decay_every or 1)))
        return 1.0

    return [k / warm if k < warm else after(k - warm) for k in range(units)]


def named(given: Sequence[float], *, exact: float = 1e-12) -> tuple[str, int] | None:
    """Recognise the schedule that rates follow, so that a plan can say it in two words.

    Args:
        given: Rates relative to the largest, one per step.
        exact: Largest difference.

    Returns:
        `constant`, `linear` or `cosine` and its steps of warmup; None where it is none of them.
    """
    warm = next(k for k, factor in enumerate(given) if factor == 1)
    for schedule in ("constant", "linear", "cosine"):
        ours = factors(schedule, len(given), warmup=warm)
        if all(abs(a - b) <= exact for a, b in zip(given, ours, strict=True)):
            return schedule, warm
    return None
