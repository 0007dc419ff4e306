"""Room for a new task in function space: restricted kernel, needed modes, transport cost (ours).

Phi_B are B's feature rows, K_B = Phi_B Phi_B', r the residual at theta_A, and G_A = Phi_A' Phi_A
the old tasks' curvature, the loss metric and sample weights being part of the rows Phi_A. What B
can do without disturbing A goes through K_{B|A} = Phi_B M Phi_B' (theory.md#restricted-kernel) with

- M = P_A, the projector on directions whose curvature G_A is at most a threshold (`hard`);
- M = (1 + s G_A)^-1, which costs a displacement by what it does to A (`soft`);
- M = P_A J J' P_A, which asks also that the training so far has left the direction movable.

The first two need the blocks K_A and K_AB only. All are bounded by data, whatever P is.

They say what B would cost if A were to be spared, and no more: plain training does not spare A, and
whether it forgets is read off `drift`. Nor does B's need tell: a task that is all but learned needs
many modes, thinly, and one that overturns everything needs few (`criterion.SOURCE`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from capacity.base.checks import positive_float
from capacity.records.estimate import Estimate, Status, not_defined
from capacity.records.jackknife import jackknife
from capacity.records.plain import Plain

_SMALL = 64
"""Size of a kernel up to which all its eigenvalues are found when the largest is wanted."""
_CONDITION = 1e12
"""Ratio of the largest eigenvalue to the regularisation above which float64 says nothing."""
_ILL = "K_B is ill-conditioned: its top eigenvalue is {:.2g}, far above its regularisation."
_RANGE = 1e-10
"""Eigenvalues of a kernel below this share of the largest count as zero without regularisation."""
_OUTSIDE = 1e-6
"""Share of the residual outside a kernel's range that rounding may make."""


@dataclass(frozen=True, kw_only=True)
class Room(Plain):
    """What a new task needs and what the old ones leave of it, in function space.

    Attributes:
        needed: Eigenmodes of K_B, largest first, that hold the share 1 - delta of the residual.
        participation: Participation ratio of the residual over those eigenmodes, a smooth count.
        log_volume: 1/2 log det of K_{B|A} + alpha over K_B + alpha in the needed modes, nats; 0 at
            most, and 0 where A takes nothing.
        kept: N_eff of K_{B|A} over N_eff of K_B in the needed modes, in [0, 1].
        cost: C = r'(K_{B|A} + alpha)^-1 r / r'(K_B + alpha)^-1 r, at least 1.
        extra: Numerator minus denominator of C: squared displacement that sparing A adds.
        alpha: Regularisation, the eigenvalue that training time is just enough to learn.
    """

    needed: Estimate
    participation: Estimate
    log_volume: Estimate
    kept: Estimate
    cost: Estimate
    extra: Estimate
    alpha: float


def curvatures(old: Tensor) -> tuple[Tensor, Tensor]:
    """Diagonalise the old tasks' kernel; its non-zero eigenvalues are those of G_A.

    Args:
        old: K_A (m_A, m_A).

    Returns:
        Eigenvalues (m_A,), descending and not negative, and eigenvectors as columns.
    """
    values, vectors = torch.linalg.eigh(old)
    return values.flip(0).clamp(min=0), vectors.flip(1)


def restrict_hard(new: Tensor, cross: Tensor, old: Tensor, threshold: float) -> Tensor:
    """Restrict a kernel to the directions whose curvature is at most a threshold.

    Args:
        new: K_B (m_B, m_B).
        cross: K_AB (m_A, m_B).
        old: K_A (m_A, m_A).
        threshold: Curvature 2a/d^2; above 0.

    Returns:
        Phi_B P_A Phi_B'.
    """
    values, vectors = curvatures(old)
    above = values > positive_float("threshold", threshold)
    # An eigenvector of G_A is Phi_A' v / sqrt(lambda).
    seen = (vectors[:, above].T @ cross) / values[above, None].sqrt()
    return new - seen.T @ seen


def restrict_soft(new: Tensor, cross: Tensor, old: Tensor, strength: float) -> Tensor:
    """Restrict a kernel by what displacements cost A: M = (1 + s G_A)^-1, by Woodbury.

    Args:
        new: K_B (m_B, m_B).
        cross: K_AB (m_A, m_B).
        old: K_A (m_A, m_A).
        strength: s = d^2/2a; above 0. A direction at the hard threshold is halved.

    Returns:
        Phi_B M Phi_B'.
    """
    inner = old + torch.eye(len(old)).to(old) / positive_float("strength", strength)
    factor = torch.linalg.cholesky(inner)
    half = torch.linalg.solve_triangular(factor, cross, upper=False)
    return new - half.T @ half


def transport_cost(
    new: Tensor, restricted: Tensor, residual: Tensor, *, alpha: float = 0.0
) -> tuple[Estimate, Estimate]:
    """Compare the cheapest A-preserving way to fit B with the cheapest of all.

    Args:
        new: K_B (m, m).
        restricted: K_{B|A} (m, m).
        residual: r (m,) or (m, k) where the kernel is meant times the identity over k outputs.
        alpha: Regularisation; 0 takes pseudo-inverses.

    Returns:
        C, the ratio, and the difference of the two squared displacements. Without regularisation
        they are `not_defined` where no A-preserving displacement fits B, and with too little of it
        `not_resolved`.
    """
    r = residual.double().view(len(new), -1)
    if not alpha:
        costs = [_least_norm(k, r) for k in (restricted, new)]
        if costs[0] is None or costs[1] is None:
            which = "B's residual" if costs[1] is None else "B without disturbing A"
            nothing = not_defined(f"No displacement fits {which} to first order: C is infinite.")
            return nothing, nothing
        with_old, alone = costs[0], costs[1]
        status, note = Status.OK, ""
    else:
        ridge = positive_float("alpha", alpha) * torch.eye(len(new)).to(new)
        with_old, alone = (
            float((r * torch.linalg.solve(k + ridge, r)).sum()) for k in (restricted, new)
        )
        top = float(torch.linalg.matrix_norm(new, ord=2))
        lost = top > _CONDITION * alpha
        status = Status.NOT_RESOLVED if lost else Status.OK
        note = _ILL.format(top) if lost else ""
    if alone <= 0:
        nothing = not_defined("B's residual is zero: nothing is left to learn.")
        return nothing, nothing
    return (
        Estimate(value=with_old / alone, status=status, note=note),
        Estimate(value=with_old - alone, status=status, note=note),
    )


def room(
    new: Tensor,
    restricted: Tensor,
    residual: Tensor,
    *,
    alpha: float,
    delta: float = 0.1,
    samples: int | None = None,
    groups: int = 8,
) -> Room:
    """Measure what B needs, what is left of it and what sparing A costs.

    The standard errors are those of a delete-a-group jackknife over B's samples.

    Args:
        new: K_B (m, m).
        restricted: K_{B|A} (m, m).
        residual: r (m,) or (m, k), as for `transport_cost`.
        alpha: Regularisation n/S of n samples: the eigenvalue that a training of learning time S is
            just long enough to learn. Above 0.
        delta: Share of the residual that need not be fitted, in (0, 1).
        samples: n, with m/n rows each in order; None takes one row per sample.
        groups: Groups of the jackknife; fewer than 2 samples per group, or fewer than 2 groups,
            give no errors.

    Returns:
        The record.

    Raises:
        ValueError: If delta is not between 0 and 1.
    """
    positive_float("alpha", alpha)
    if not 0 < delta < 1:
        raise ValueError(f"delta = {delta!r} must lie between 0 and 1, as 0.1")
    n = len(new) if samples is None else samples
    r = residual.double().view(len(new), -1)
    whole = _measure(new, restricted, r, alpha, delta)
    lost: list[list[float]] = []
    if groups >= 2 and n >= 2 * groups:
        for g in range(groups):
            keep = torch.arange(n) % groups != g
            rows = keep.repeat_interleave(len(new) // n).nonzero().flatten().to(new.device)
            share = float(keep.double().mean())
            some, left = (k[rows][:, rows] for k in (new, restricted))
            lost.append(_measure(some, left, r[rows], alpha * share, delta))
    names = ("needed", "participation", "log_volume", "kept", "cost", "extra")
    made = {
        name: jackknife(value, [values[i] for values in lost])
        if math.isfinite(value)
        else not_defined("The value is not finite.")
        for i, (name, value) in enumerate(zip(names, whole, strict=True))
    }
    top = float(torch.linalg.matrix_norm(new, ord=2))
    if top > _CONDITION * alpha:
        note = _ILL.format(top)
        for name in ("log_volume", "kept", "cost", "extra"):
            if made[name].value is not None:
                made[name] = replace(made[name], status=Status.NOT_RESOLVED, note=note)
    return Room(**made, alpha=alpha)


def stable_rank(kernel: Tensor) -> float:
    """Stable rank of the matrix Phi' Phi behind a kernel Phi Phi'.

    Args:
        kernel: The kernel (m, m), symmetric.

    Returns:
        Sum of squared eigenvalues over the square of the largest; 0 for the zero matrix.
    """
    squared = float(kernel.square().sum())
    if not squared:
        return 0.0
    if len(kernel) <= _SMALL:
        top = float(torch.linalg.eigvalsh(kernel).abs().max())
    else:
        from scipy.sparse.linalg import eigsh  # half a second to load

        # A fixed start, so that the same kernel gives the same digits.
        matrix = kernel.cpu().numpy()
        start = matrix.sum(1) + matrix.diagonal()
        top = abs(float(eigsh(matrix, k=1, v0=start, return_eigenvectors=False)[0]))
    return squared / top**2


def _measure(new: Tensor, restricted: Tensor, r: Tensor, alpha: float, delta: float) -> list[float]:
    """needed, participation, log_volume, kept, cost, extra."""
    values, vectors = curvatures(new)
    energy = (vectors.T @ r).square().sum(1)
    total = float(energy.sum())
    if total <= 0:
        return [0.0, 0.0, 0.0, 1.0, math.nan, math.nan]
    held = energy.cumsum(0) / total
    count = int((held < 1 - delta).sum()) + 1
    participation = total**2 / float(energy.square().sum())
    modes = vectors[:, :count]
    left = torch.linalg.eigvalsh(modes.T @ restricted @ modes).clamp(min=0)
    whole = values[:count]
    log_volume = 0.5 * float(torch.log((left + alpha) / (whole + alpha)).sum())
    kept = float((left / (left + alpha)).sum() / (whole / (whole + alpha)).sum())
    alone = float((energy / (values + alpha)).sum())
    ridge = alpha * torch.eye(len(new)).to(new)
    with_old = float((r * torch.linalg.solve(restricted + ridge, r)).sum())
    return [float(count), participation, log_volume, kept, with_old / alone, with_old - alone]


def _least_norm(kernel: Tensor, r: Tensor) -> float | None:
    """r'K^+ r, or None where r is not in the range of K."""
    values, vectors = torch.linalg.eigh(kernel)
    seen = values > _RANGE * max(float(values[-1]), 0.0)
    inside = vectors[:, seen].T @ r
    whole = float(r.square().sum())
    if whole - float(inside.square().sum()) > _OUTSIDE * whole:
        return None
    return float((inside.square() / values[seen, None]).sum())
