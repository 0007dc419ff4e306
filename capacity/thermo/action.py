"""The action of a path, summed over the steps that were actually taken: the package's one meter.

W2 of a delta distribution is exact, so that T sum |d theta_k|^2/dt_k >= |theta_T - theta_0|^2 holds
for *every* discrete path (Cauchy-Schwarz; theory.md#path-identity). It cannot fail, so it tells
nothing of the learning: it checks the meter, and the product asserts it.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from capacity.records.estimate import Estimate

ROUNDING = 1e-6
"""How far rounding may push the ratio below 1: float32 displacements carry some 1e-7."""
STILL = (
    "No replica moved: its gradient is 0, or the steps are below the rounding of the parameters' "
    "dtype."
)
"""Why whatever is divided by a displacement is not defined."""


class ActionMeter:
    """Action, length and learning time of some replicas, in float64.

    What a rule intends, as lr |g|, is not what rounded parameters do: at small steps float32 theta
    moves by more or by less, or not at all. So steps are read off theta. The difference of two
    float32 numbers is rounded once, to its own size; it is squared and summed in float64.
    """

    def __init__(self) -> None:
        self.action: Tensor = torch.zeros((), dtype=torch.float64)
        self.length: Tensor = torch.zeros((), dtype=torch.float64)
        self.time = 0.0
        self._moved: Tensor | None = None
        self._wide: Tensor | None = None

    @torch.no_grad()
    def add(self, lr: float, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """Add one step.

        Args:
            lr: dt of the step.
            before: theta before it (n, P).
            after: theta after it (n, P).

        Returns:
            The displacement (n, P), which the next step overwrites, and its square (n,), float64.
        """
        if before.dtype not in {torch.float32, torch.float64}:
            before, after = before.float(), after.float()
        if self._moved is None or self._moved.shape != before.shape:
            self._moved = torch.empty_like(before)
            self._wide = torch.empty_like(before, dtype=torch.float64)
        assert self._wide is not None
        torch.sub(after, before, out=self._moved)
        wide = self._moved if before.dtype is torch.float64 else self._wide.copy_(self._moved)
        length = torch.linalg.vector_norm(wide, dim=-1)
        squared = length.square()
        # At rate 0, as warmup begins, no time passes and nothing moves.
        cost = squared / lr if lr else torch.where(squared > 0, torch.inf, squared)
        self.action = self.action.to(squared.device) + cost
        self.length = self.length.to(squared.device) + length
        self.time += lr
        return self._moved, squared


def path_ratio(time: float, action: Tensor, squared: Tensor) -> Tensor:
    """T sum |d theta_k|^2/dt_k / |theta_T - theta_0|^2 of the replicas that moved.

    Args:
        time: T.
        action: sum |d theta_k|^2/dt_k (n,).
        squared: |theta_T - theta_0|^2 (n,).

    Returns:
        The ratios (m,), float64, m at most n, without replicas that are not finite. What lies
        below 1 by rounding alone is 1.
    """
    moved = (squared > 0) & torch.isfinite(squared)
    ratio = time * action[moved].double() / squared[moved].double()
    return torch.where(ratio >= 1 - ROUNDING, ratio.clamp(min=1.0), ratio)


def checked_ratio(time: float, action: Tensor, squared: Tensor) -> Tensor:
    """`path_ratio`, held to its lower limit: below 1 the accounting itself is wrong.

    Args:
        time: T, the sum of the dt.
        action: sum |d theta_k|^2/dt_k (n,).
        squared: |theta_T - theta_0|^2 (n,).

    Returns:
        The ratios (m,).
    """
    ratio = path_ratio(time, action, squared)
    assert bool((ratio >= 1).all()), f"path invariant broken: {float(ratio.min())}"
    return ratio


def at_least_one(estimate: Estimate) -> Estimate:
    """Cut the interval of a ratio that no path can have below 1.

    Args:
        estimate: Of the ratio.

    Returns:
        The same, its interval from 1 up.
    """
    if estimate.interval is None:
        return estimate
    low, high = estimate.interval
    return replace(estimate, interval=(max(low, 1.0), max(high, 1.0)))
