"""The reachable set: what a dissipation budget allows, and whether the next task lies inside it.

The speed limit T Sigma >= W2^2 leaves the ball W2 <= sqrt(T (F_0 - F_1)) around the present law of
theta (theory.md#reachable-set). The cheapest displacement that makes the linearised network
produce the outputs the new task asks for, of residual r, has the squared length r' K^+ r; the
cheapest one that keeps the old tasks has K_{B|A} for the kernel K_B (theory.md#transport-cost;
ours). Outside the ball a solution cannot be reached within the time and the budget; inside it the
speed limit does not forbid it, which is no promise that training finds it.

Every replica is a point of its own, for which W2 is the length of its displacement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from capacity.base.checks import finite_tensor, positive_float, positive_int
from capacity.closed_forms.geodesic import reachable_radius
from capacity.criterion.preserving import Preserving
from capacity.networks.flat_model import FlatModel
from capacity.products.feature_rows import features
from capacity.products.output_sketches import every_output
from capacity.products.output_space import loss_on_outputs, residual, task_outputs
from capacity.records.estimate import Estimate, from_samples, not_defined
from capacity.tasks.task import Task

RANK_TOLERANCE = 1e-6
"""Eigenvalues of a kernel below this share of K_B's largest count as 0: float32 rounding."""
_ROUNDING = 1e-9


class Verdict(StrEnum):
    """Where a solution lies."""

    IN = "in"
    """The speed limit does not forbid it."""
    OUT = "out"
    """It cannot be reached within the time and the budget, or there is none."""
    UNDECIDED = "undecided"
    """The intervals do not tell."""


@dataclass(frozen=True, kw_only=True)
class Solution:
    """The cheapest linearised solution of one kind.

    Attributes:
        distance: Its W2, the mean length of the displacement.
        distance_squared: Its W2^2, the mean squared length.
        least_dissipation: W2^2/T, the least Sigma that gets there within T.
        residue_left: Share of |r|^2 that no displacement of this kind takes away.
        inside: Share of the replicas whose solution lies inside their ball.
        verdict: In, out or undecided.
        reason: Why, in one sentence.
    """

    distance: Estimate
    distance_squared: Estimate
    least_dissipation: Estimate
    residue_left: Estimate
    inside: float
    verdict: Verdict
    reason: str


@dataclass(frozen=True, kw_only=True)
class ReachableSet:
    """The ball, and the two solutions held against it.

    Attributes:
        duration: T, the learning time.
        budget: F_0 - F_1.
        radius: sqrt(T (F_0 - F_1)).
        free: The cheapest solution of the new task.
        preserving: The cheapest one that keeps the old tasks.
        transport_cost: C = W2^2 of the second over that of the first, at least 1.
        extra_dissipation: What not forgetting costs at least: the difference of their W2^2, over T.
    """

    duration: float
    budget: Estimate
    radius: Estimate
    free: Solution
    preserving: Solution
    transport_cost: Estimate
    extra_dissipation: Estimate


def reachable_set(
    demand: Tensor,
    kernel: Tensor,
    preserving_kernel: Tensor,
    *,
    duration: float,
    budget: float | Tensor | Estimate,
    residue_left: float = 0.0,
    rank_tolerance: float = RANK_TOLERANCE,
) -> ReachableSet:
    """Hold the cheapest solutions against the ball that a budget allows.

    Args:
        demand: Change of the outputs that the new task asks for, r: (m,), or (R, m) for replicas.
        kernel: K_B (m, m) or (R, m, m).
        preserving_kernel: K_{B|A}, of the same shape.
        duration: Learning time T, above 0.
        budget: F_0 - F_1: a number, one per replica (R,), or an estimate whose interval counts.
        residue_left: Share of |r|^2 that may stay; 0 asks for all of r.
        rank_tolerance: Eigenvalues below this share of K_B's largest count as 0.

    Returns:
        The ball and the two solutions.

    Raises:
        ValueError: If an argument is not finite, out of its range, or the shapes do not fit.
    """
    r, free, kept = _checked(demand, kernel, preserving_kernel)
    t = positive_float("duration", duration)
    if not 0 <= residue_left < 1:
        raise ValueError(f"residue_left = {residue_left!r} must be at least 0 and below 1")
    tolerance = positive_float("rank_tolerance", rank_tolerance)
    allowed, half = _budget(budget, len(r))
    floors = tolerance * torch.linalg.eigvalsh(free)[:, -1]
    ways = [_cheapest(k, r, residue_left, floors) for k in (free, kept)]
    rooms = (t * allowed, t * half)
    short, long = (way.squared for way in ways)
    both = torch.isfinite(short) & torch.isfinite(long) & (short > 0)
    none = not_defined("No replica has both solutions with something to learn.")
    radii = reachable_radius(duration=t, free_energy_drop=allowed.clamp(min=0).numpy())
    return ReachableSet(
        duration=t,
        budget=budget if isinstance(budget, Estimate) else _spread(allowed),
        radius=_spread(torch.from_numpy(radii)),
        free=_solution(ways[0], rooms, t),
        preserving=_solution(ways[1], rooms, t),
        transport_cost=_spread(long[both] / short[both]) if bool(both.any()) else none,
        extra_dissipation=_spread((long - short)[both] / t) if bool(both.any()) else none,
    )


def reachable_task(
    model: FlatModel,
    theta: Tensor,
    new: Task,
    preserving: Preserving | Sequence[Preserving],
    *,
    duration: float,
    budget: float | Tensor | Estimate | None = None,
    samples: int = 50,
    residue_left: float = 0.01,
) -> ReachableSet:
    """Ask whether a network can learn the next task within a time and a budget.

    Args:
        model: The network.
        theta: Where it stands: (P,), or (R, P) for replicas.
        new: The new task B.
        preserving: The directions that keep the old tasks, one per replica.
        duration: Learning time T of B's training, the sum of its learning rates.
        budget: F_0 - F_1; None takes the fall of B's mean loss that the solution itself brings.
        samples: Most of B's training samples, spread evenly over the split.
        residue_left: Share of the squared residual that may stay; a fit to the last digit is
            priced by the kernel's smallest eigenvalues, which rounding decides.

    Returns:
        The ball and the two solutions.

    Raises:
        ValueError: If an argument is out of its range, or the numbers of replicas differ.
    """
    rows = torch.atleast_2d(theta)
    keepers = [preserving] if isinstance(preserving, Preserving) else list(preserving)
    if len(keepers) != len(rows):
        raise ValueError(
            f"preserving has {len(keepers)} projectors for {len(rows)} replicas of theta; pass one "
            "per replica, made where that replica stands"
        )
    if not 0 <= residue_left < 1:
        raise ValueError(f"residue_left = {residue_left!r} must be at least 0 and below 1")
    split = new.train.first(positive_int("samples", samples))
    loss = loss_on_outputs(new)
    demands, kernels, restricted, drops = [], [], [], []
    for row, keeper in zip(rows, keepers, strict=True):
        f = task_outputs(model, row, new, split.x)
        y = split.y.to(f) if split.y.is_floating_point() else split.y
        r = residual(new, f, y)
        phi = features(model, row, new, split.x, every_output(len(f), f.shape[1], f))
        basis = keeper.removed_basis
        removed = phi.apply(basis).double() if len(basis) else r.new_zeros(0, phi.count)
        k = phi.gram(phi)
        demands.append(r.reshape(-1))
        kernels.append(k)
        restricted.append(k - removed.T @ removed)
        drops.append(loss(f, y) - loss(f + (1 - math.sqrt(residue_left)) * r, y))
    return reachable_set(
        torch.stack(demands),
        torch.stack(kernels),
        torch.stack(restricted),
        duration=duration,
        budget=torch.stack(drops) if budget is None else budget,
        residue_left=residue_left,
    )


def _checked(demand: Tensor, kernel: Tensor, preserving: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r = torch.atleast_2d(finite_tensor("demand", demand).double())
    shape = (*r.shape, r.shape[-1])
    blocks = []
    for name, block in (("kernel", kernel), ("preserving_kernel", preserving)):
        k = finite_tensor(name, block).double()
        if k.dim() == 2:
            k = k[None]
        if k.shape != shape:
            raise ValueError(
                f"{name} has shape {tuple(block.shape)}; for a demand of shape "
                f"{tuple(demand.shape)} it must be {shape} (replicas first)"
            )
        blocks.append((k + k.mT) / 2)
    return r.cpu(), blocks[0].cpu(), blocks[1].cpu()


def _budget(budget: float | Tensor | Estimate, replicas: int) -> tuple[Tensor, float]:
    """Give the budget of every replica, and the half-width of what is not known about it."""
    half = 0.0
    if isinstance(budget, Estimate):
        if budget.value is None:
            raise ValueError(
                f"budget has no value ({budget.status}: {budget.note}); pass F_0 - F_1 as a number"
            )
        if budget.interval is not None:
            half = max(abs(end - budget.value) for end in budget.interval)
        budget = budget.value
    values = torch.as_tensor(budget, dtype=torch.float64).reshape(-1).cpu()
    if len(values) == 1:
        values = values.expand(replicas)
    if len(values) != replicas or not bool(torch.isfinite(values).all()):
        raise ValueError(
            f"budget = {budget!r} must be finite: one number, or one per replica ({replicas})"
        )
    return values, half


@dataclass(frozen=True)
class _Cheapest:
    """The shortest displacements of the replicas.

    Attributes:
        squared: Squared lengths (R,); infinite where there is none.
        least: Lower bounds of the squared lengths (R,), finite: what the kernel's rounding leaves.
        stays: Share of |r|^2 outside the kernel's range (R,).
    """

    squared: Tensor
    least: Tensor
    stays: Tensor


def _cheapest(kernel: Tensor, demand: Tensor, left: float, floors: Tensor) -> _Cheapest:
    """Minimise |d|^2 so that |r - Phi d|^2 <= left |r|^2: d = Phi' (K + mu)^-1 r."""
    squared, least, stays = [], [], []
    for k, r, floor in zip(kernel, demand, floors.tolist(), strict=True):
        values, vectors = torch.linalg.eigh(k)
        weights = (vectors.T @ r).square()
        seen = values > floor
        total, unseen = float(weights.sum()), float(weights[~seen].sum())
        values, weights = values[seen], weights[seen]
        stays.append(unseen / total if total else 0.0)
        spare = left * total - unseen
        # What rounding alone leaves outside the range does not count as out of reach.
        if spare < -_ROUNDING * total:
            # Whatever the eigenvalues below the floor truly are, they are no cheaper than it.
            excess = (math.sqrt(unseen) - math.sqrt(left * total)) ** 2
            least.append(excess / floor if floor > 0 else math.inf)
            squared.append(math.inf)
            continue
        length = _ridge(values, weights, spare) if spare > 0 else float((weights / values).sum())
        squared.append(length)
        least.append(length)
    return _Cheapest(*(torch.tensor(part, dtype=torch.float64) for part in (squared, least, stays)))


def _ridge(values: Tensor, weights: Tensor, spare: float) -> float:
    if float(weights.sum()) <= spare:
        return 0.0

    def excess(log_mu: float) -> float:
        mu = math.exp(log_mu)
        return float((weights * (mu / (values + mu)).square()).sum()) - spare

    low, high = math.log(float(values.min())) - 60, math.log(float(values.max())) + 60
    from scipy.optimize import brentq  # half a second to load, for runs that never ask

    mu = math.exp(brentq(excess, low, high, xtol=1e-12)) if excess(low) < 0 else 0.0
    return float((weights * values / (values + mu).square()).sum())


def _solution(way: _Cheapest, rooms: tuple[Tensor, float], duration: float) -> Solution:
    room, half = rooms
    found = torch.isfinite(way.squared)
    inside = found & (way.squared <= room + _ROUNDING * room.abs())
    near = way.squared[found]
    # Solutions that are not found enter with what they cost at least, which can only speak for out.
    bound = way.least.clamp(max=torch.finfo(torch.float64).max ** 0.5)
    verdict, reason = _verdict(room - bound, room, half)
    lost = int((~found).sum())
    if lost and verdict is not Verdict.OUT:
        verdict = Verdict.UNDECIDED
    if lost:
        reason = (
            f"In {lost} of {len(found)} replicas no displacement of this kind that rounding can "
            "tell from none gives the new task its outputs."
        )
    none = not_defined(reason)
    return Solution(
        distance=_spread(near.sqrt()) if len(near) else none,
        distance_squared=_spread(near) if len(near) else none,
        least_dissipation=_spread(near / duration) if len(near) else none,
        residue_left=_spread(way.stays),
        inside=float(inside.double().mean()),
        verdict=verdict,
        reason=reason,
    )


def _verdict(slack: Tensor, room: Tensor, half: float) -> tuple[Verdict, str]:
    """Judge T (F_0 - F_1) - W2^2 by its interval, rounding set apart."""
    mean = from_samples(slack.tolist())
    assert mean.value is not None
    low, high = mean.interval or (mean.value, mean.value)
    rounding = _ROUNDING * float(room.abs().mean())
    if low - half >= -rounding:
        return Verdict.IN, "Inside the ball: the speed limit does not forbid it."
    if high + half < -rounding:
        return Verdict.OUT, "Outside the ball: the budget does not reach that far in this time."
    return Verdict.UNDECIDED, "The rim of the ball lies within the interval of the distance."


def _spread(values: Tensor) -> Estimate:
    return from_samples(values.tolist())
