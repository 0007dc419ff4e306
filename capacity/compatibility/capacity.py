"""R_A(t), literal form: the log-volume of task-preserving directions that are still accessible.

R_A(t) = 1/2 log det(1 + eps^-2 J_t' P_A J_t) in nats; divided by 1/2 log(1 + eps^-2) it counts
directions: an isometry onto k preserving directions gives exactly k (theory, section 3; ours, [II]
gives words only).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.checks import positive_float
from capacity.compatibility.preserving import Preserving
from capacity.curvature.lanczos import spectral_sums
from capacity.estimate import Estimate
from capacity.transport.maps import SquareMap

_STRETCHED = (
    "More than the preserving directions there are: J_t stretches some, and a direction "
    "stretched by s counts log(1 + s^2/eps^2) / log(1 + 1/eps^2) times."
)


@dataclass(frozen=True, kw_only=True)
class CapacityAtScale:
    """R_A(t) at one scale eps.

    Attributes:
        eps: Displacement of theta_t below which a direction of theta_0 does not count.
        nats: 1/2 log det(1 + eps^-2 J' P_A J).
        directions: The same in units of one direction, 1/2 log(1 + eps^-2).
    """

    eps: float
    nats: Estimate
    directions: Estimate

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON types.

        Returns:
            eps and both estimates.
        """
        return {
            "eps": self.eps,
            "nats": self.nats.to_dict(),
            "directions": self.directions.to_dict(),
        }


def compatible_capacity(
    jacobian: SquareMap | None,
    preserving: Preserving,
    *,
    like: Tensor,
    eps: tuple[float, ...],
    probes: int,
    nodes: int,
    generator: torch.Generator,
) -> tuple[CapacityAtScale, ...]:
    """Estimate R_A(t) at several scales from one set of Lanczos runs.

    A scale that is not a finite number above 0 is a ValueError.

    Args:
        jacobian: J_t; None takes the identity, for which the result is exact.
        preserving: The projector P_A.
        like: A vector (P,) whose size, dtype and device the probes take.
        eps: Scales, each above 0.
        probes: Random probes; their spread gives the standard error.
        nodes: Lanczos nodes per probe.
        generator: Source of the probes.

    Returns:
        One record per scale, in the order given.
    """
    scales = [positive_float("eps", e) for e in eps]
    kept = like.numel() - preserving.removed
    if jacobian is None:
        exact = [Estimate(value=0.5 * kept * math.log1p(e**-2)) for e in scales]
        return tuple(_at_scale(e, made, kept) for e, made in zip(scales, exact, strict=True))

    def normal(vectors: Tensor) -> Tensor:
        return jacobian.adjoint(preserving.project(jacobian.forward(vectors)))

    functions = [lambda x, e=e: 0.5 * torch.log1p(x.clamp(min=0) / e**2) for e in scales]
    sums = spectral_sums(normal, like, functions, probes=probes, steps=nodes, generator=generator)
    return tuple(_at_scale(e, made, kept) for e, made in zip(scales, sums, strict=True))


def _at_scale(eps: float, nats: Estimate, kept: int) -> CapacityAtScale:
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
