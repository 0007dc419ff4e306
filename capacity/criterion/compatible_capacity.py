"""R_A(t), literal form: the log-volume of task-preserving directions that are still accessible.

R_A(t) = 1/2 log det(1 + eps^-2 J_t' P_A J_t) in nats; divided by 1/2 log(1 + eps^-2) it counts
directions: an isometry onto k preserving directions gives exactly k (theory.md#compatible-capacity;
ours, [II] gives words only).

log det(1 + eps^-2 J' P J) = log det(1 + eps^-2 (P J)(P J)') on the range of P, whose dimension is
known. There one block Krylov space of J'P gives the trace at every eps: Gauss quadrature from above
and Gauss-Radau with a node at 0 from below, since the even derivatives of log(1 + x) are negative.
What slows it down are the directions that training contracted, down to a thousandth of eps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.base.checks import positive_float
from capacity.criterion.preserving import Preserving
from capacity.jacobian.projected_maps import SquareMap
from capacity.krylov.block_krylov import SingularSpace, singular_space
from capacity.krylov.lanczos import random_signs
from capacity.krylov.spectral_measure import measure_of, radau
from capacity.records.estimate import Estimate, Status
from capacity.records.intervals import student
from capacity.records.plain import Plain

PRECISE = 0.02
"""Half-width of the interval, relative to R_A, at which the sweeps end by default."""

WIDE = 0.05
"""Half-width that the quadrature may leave open before R_A counts as not converged."""

_STRETCHED = (
    "More than the preserving directions there are: J_t stretches some, and a direction "
    "stretched by s counts log(1 + s\u00b2/\u03b5\u00b2) / log(1 + 1/\u03b5\u00b2) times."
)
_NOTHING_KEPT = (
    "The projector keeps nothing: every direction costs the old tasks more than the tolerance."
)


@dataclass(frozen=True, kw_only=True)
class CapacityAtScale(Plain):
    """R_A(t) at one scale eps.

    Attributes:
        eps: Displacement of theta_t below which a direction of theta_0 does not count.
        nats: 1/2 log det(1 + eps^-2 J' P_A J).
        directions: The same in units of one direction, 1/2 log(1 + eps^-2).
    """

    eps: float
    nats: Estimate
    directions: Estimate


def literal_capacity(
    jacobian: SquareMap | None,
    preserving: Preserving,
    *,
    like: Tensor,
    eps: tuple[float, ...],
    probes: int,
    nodes: int,
    precision: float = PRECISE,
    generator: torch.Generator,
) -> tuple[CapacityAtScale, ...]:
    """Estimate R_A(t) at several scales from one block Krylov space.

    A scale that is not a finite number above 0 is a ValueError, a product that is not finite a
    FloatingPointError.

    Args:
        jacobian: J_t; None takes the identity, for which the result is exact.
        preserving: The projector P_A.
        like: A vector (P,) whose size, dtype and device the probes take.
        eps: Scales, each above 0.
        probes: Random probes; their spread gives the standard error.
        nodes: Most sweeps of the space.
        precision: Half-width of the interval, relative to R_A at the first scale, at which the
            sweeps end earlier.
        generator: Source of the probes.

    Returns:
        One record per scale, in the order given. The standard error holds the spread over probes
        and what the quadrature leaves open; `cost` counts products with J and J'.
    """
    scales = [positive_float("eps", e) for e in eps]
    kept = like.numel() - preserving.removed
    if jacobian is None or not kept:
        note = "" if kept else _NOTHING_KEPT
        exact = [Estimate(value=0.5 * kept * math.log1p(e**-2), note=note) for e in scales]
        return tuple(at_scale(e, made, kept) for e, made in zip(scales, exact, strict=True))

    def enough(space: SingularSpace) -> bool:
        found = _log_det(space, kept, scales[0])
        low, high = found.interval or (found.value or 0.0,) * 2
        return space.sweeps > 2 and high - low <= 2 * precision * abs(found.value or 0.0)

    # A projector's rounding grows with its rank: applied once more, what it removed stays out.
    start = preserving.project(random_signs(min(probes, kept), like, generator))
    space = singular_space(
        jacobian.adjoint,
        lambda rows: preserving.project(jacobian.forward(rows)),
        preserving.project(start),
        sweeps=nodes,
        enough=enough,
    )
    made = [_log_det(space, kept, e) for e in scales]
    return tuple(at_scale(e, nats, kept) for e, nats in zip(scales, made, strict=True))


def _log_det(space: SingularSpace, kept: int, eps: float) -> Estimate:
    """Read 1/2 log det(1 + eps^-2 J' P J) with what the probes and the quadrature leave open."""
    measure = measure_of(space, rank=kept)
    upper = measure.sums(lambda s: _log(s.square(), eps))
    cost = float(sum(space.products))
    if measure.exact:
        return Estimate(value=float(upper.mean()), cost=cost)
    open_ = 0.0
    if not space.closed:
        open_ = max(float((upper - _lower(space, kept, eps)).mean()), 0.0)
        if space.sweeps > 1:
            # The bracket with a node at 0 is rigorous and wide. Where J contracts strongly, Gauss
            # quadrature falls to the truth like one over the sweeps at first, and faster later: a
            # last step then leaves at most (sweeps - 1) of it open, which held the truth on
            # networks whose J was written out (benchmarks/compatibility/dense_check.py).
            step = _gauss(space, kept, eps, space.sweeps - 1) - _gauss(
                space, kept, eps, space.sweeps
            )
            open_ = min(open_, (space.sweeps - 1) * max(float(step.mean()), 0.0))
    n = len(upper)
    spread = float(upper.std()) / math.sqrt(n) if n > 1 else 0.0
    value = float(upper.mean()) - open_ / 2
    half = student(max(n - 1, 1)) * spread + open_ / 2
    wide = open_ / 2 > WIDE * abs(value)
    note = "The quadrature is still falling; more sweeps (capacity_nodes) narrow it."
    return Estimate(
        value=value,
        stderr=math.hypot(spread, open_ / math.sqrt(12)),
        interval=(value - half, value + half),
        n=n,
        cost=cost,
        status=Status.NOT_CONVERGED if wide else Status.OK,
        note=note if wide else "",
    )


def _log(squares: Tensor, eps: float) -> Tensor:
    return 0.5 * torch.log1p(squares.clamp(min=0) / eps**2)


def _gauss(space: SingularSpace, kept: int, eps: float, sweeps: int) -> Tensor:
    """Sum by Gauss quadrature after some of the space's sweeps, per probe."""
    size = sum(space.blocks[:sweeps])
    gram = space.small[:, :size].T @ space.small[:, :size]
    nodes, vectors = torch.linalg.eigh(gram)
    return _weighted(_log(nodes, eps), space.starts[:, :size] @ vectors, kept)


def _lower(space: SingularSpace, kept: int, eps: float) -> Tensor:
    """Sum by Gauss-Radau quadrature, per probe, with a node a hair above 0."""
    nodes, _, overlaps = radau(space, 1e-12 * float(space.values[0]) ** 2, space.sweeps)
    return _weighted(_log(nodes, eps), overlaps, kept)


def _weighted(values: Tensor, overlaps: Tensor, kept: int) -> Tensor:
    weights = overlaps.square()
    return kept * (weights * values).sum(-1) / weights.sum(-1).clamp(min=1e-300)


def at_scale(eps: float, nats: Estimate, kept: int) -> CapacityAtScale:
    """Count directions.

    Args:
        eps: The scale.
        nats: R_A.
        kept: Directions that P_A keeps.

    Returns:
        The record.
    """
    unit = 0.5 * math.log1p(eps**-2)
    stretched = nats.value is not None and nats.value > (kept + 0.5) * unit
    scaled = Estimate(
        value=None if nats.value is None else nats.value / unit,
        stderr=None if nats.stderr is None else nats.stderr / unit,
        status=nats.status,
        interval=None
        if nats.interval is None
        else (nats.interval[0] / unit, nats.interval[1] / unit),
        level=nats.level,
        n=nats.n,
        cost=nats.cost,
        note=_STRETCHED if stretched else nats.note,
    )
    return CapacityAtScale(eps=eps, nats=nats, directions=scaled)
