"""The irreversibility R of Langevin training, in nats, by three routes that know of no other.

R = Sigma/tau is how much the divergence KL(q || e^{-V/tau}/Z) from the Gibbs law fell, and how much
likelier the paths are than the same paths run backwards (theory.md#irreversibility). The first
route reads energies, the second products of steps and gradients, the third gradients, Laplacians
and scores along the way. H is bounded from above and the score's square from below, so that R lies
between the first and the third but for terms of first order in the step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.optimizers.dynamics import Dynamics
from capacity.records.estimate import Estimate, Status, not_defined
from capacity.records.jackknife import Statistic
from capacity.records.plain import Plain
from capacity.thermo.dissipation import free_energy_drop
from capacity.thermo.ensemble_record import EnsembleRecord, Start
from capacity.thermo.gram_matrices import BLOCK_BYTES

_FEWEST = 5
"""Replicas from which the inverse of a variance has a mean without one of them."""
_DENSE = 8
"""Checkpoints from which the score's integral is more than a guess."""


@dataclass(frozen=True, kw_only=True)
class Irreversibility(Plain):
    """R in nats, by route; also the fall of the divergence from the Gibbs law.

    Attributes:
        free_energy: (E[V_0 - V_T])/tau + H_T - H_0, with the upper bound of H_T: from above.
        path_ratio: E log of the paths' likelihood over that of the same paths backwards,
            -sum E d theta . (g_k + g_{k+1})/(2 tau) + H_T - H_0: from above, too.
        score: int E|g|^2 dt/tau - 2 int E[tr H] dt + tau int E|grad log q|^2 dt, the last one that
            of independent Gaussians with the same variances: from below. Needs `log_volume` probes
            and checkpoints.
    """

    free_energy: Estimate
    path_ratio: Estimate
    score: Estimate


def irreversibility(record: EnsembleRecord, *, level: float) -> Irreversibility | None:
    """Read R off a record, by every route.

    Args:
        record: The ensemble's record.
        level: Nominal coverage of the intervals.

    Returns:
        R; None for other dynamics than Langevin's in one potential that stands still (and so for
        several tasks as one way), and for a start at one point or on a subspace, from where it is
        infinite.
    """
    if (
        record.dynamics is not Dynamics.LANGEVIN
        or record.start is Start.DELTA
        or record.singular
        or record.series.heat is not None
    ):
        return None
    tau = record.temperature
    energies, certain = free_energy_drop(record, record.energy_start - record.end.energy)
    products, _ = free_energy_drop(record, record.series.trapezoid[-1])
    status = Status.OK if certain else Status.UNCALIBRATED
    note = "" if certain else "Minibatches, folding steps or an unknown H_0 are not accounted for."

    def nats(sigma: Statistic | None) -> Estimate:
        if sigma is None:
            return Estimate(
                value=None,
                status=Status.NOT_RESOLVED,
                note="The entropy needs at least 4 replicas whose every coordinate varies.",
            )
        return (sigma * (1 / tau)).estimate(level=level, status=status, note=note)

    return Irreversibility(
        free_energy=nats(energies), path_ratio=nats(products), score=_by_score(record, level)
    )


def _by_score(record: EnsembleRecord, level: float) -> Estimate:
    volumes, drive, tau = record.series.log_det, record.series.drive, record.temperature
    if volumes is None or drive is None:
        return not_defined("Ask for log_volume probes to have the Laplacian.")
    if len(record.replicas) < _FEWEST:
        return not_defined(f"Fewer than {_FEWEST} replicas have no score.")
    rows = torch.tensor(record.replicas)
    times = [0.0, *(mark.time for mark in record.checkpoints)]
    scores = [score_square(theta, rows=rows) for theta in (record.theta_start, *record.theta)]
    if not all(math.isfinite(score.value) for score in scores):
        return not_defined("Coordinates that do not vary over the ensemble have no score.")
    # log|det(1 - lr H)| is -lr tr H to first order.
    parts = Statistic.mean(drive[-1]) * (1 / tau) + Statistic.mean(volumes[-1]) * 2.0
    dense = len(record.checkpoints) >= _DENSE and record.full and not record.folded
    return (parts + _integral(times, scores) * tau).estimate(
        level=level,
        status=Status.OK if dense else Status.UNCALIBRATED,
        note="Lower bound: no law of these variances has a smaller score."
        if dense
        else f"The score was read at {len(record.checkpoints)} checkpoints; give {_DENSE} or more, "
        "full batches, and steps that do not fold.",
    )


def score_square(theta: Tensor, *, rows: Tensor, block_bytes: int = BLOCK_BYTES) -> Statistic:
    """Bound E|grad log q|^2 from below by sum_p 1/s_p, s_p the variance of coordinate p.

    Args:
        theta: Positions (N, P), in memory or mapped from disk.
        rows: Replicas to keep (n,), at least 5.
        block_bytes: Memory of one block of coordinates in float64.

    Returns:
        The bound, unbiased for Gaussian coordinates; infinite where one does not vary.
    """
    n = len(rows)
    width = max(1, block_bytes // (8 * n))
    value, without = 0.0, torch.zeros(n, dtype=torch.float64)
    for first in range(0, theta.shape[1], width):
        x = theta[:, first : first + width][rows.to(theta.device)].double()
        squares = (x - x.mean(0)).square()
        total = squares.sum(0)
        # The inverse of a sample variance of n is (n - 1)/(n - 3) too large in the mean.
        value += float(((n - 3) / total).sum())
        left = (total - n / (n - 1) * squares).clamp(min=0)
        without += ((n - 4) / left).sum(-1).cpu()
    return Statistic(value, without)


def _integral(times: Sequence[float], values: Sequence[Statistic]) -> Statistic:
    """Integrate what grows or falls exponentially between two moments."""
    total = Statistic(0.0, torch.zeros_like(values[0].without))
    for k in range(len(times) - 1):
        one, other = values[k], values[k + 1]
        mean = torch.tensor([one.value, other.value], dtype=torch.float64)
        part = Statistic(float(_log_mean(mean[0], mean[1])), _log_mean(one.without, other.without))
        total = total + part * (times[k + 1] - times[k])
    return total


def _log_mean(one: Tensor, other: Tensor) -> Tensor:
    """(b - a)/log(b/a), without the difference of what is nearly equal."""
    x = torch.log(other / one)
    small = x.abs() < 1e-6
    return one * torch.where(small, 1 + 0.5 * x, torch.expm1(x) / torch.where(small, 1.0, x))
