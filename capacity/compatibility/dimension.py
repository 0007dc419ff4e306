"""m_B, literal form: how many dimensions the new task needs inside the preserving space.

The stable rank |P_A H_B P_A|_F^2 / |P_A H_B P_A|_2^2 of task B's Hessian on the directions that
keep task A, and beside it the intrinsic dimension tr / |.|_2 (theory, section 3; [II] gives words
only).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.compatibility.preserving import Preserving
from capacity.curvature.lanczos import Operator, eigenpairs, random_signs
from capacity.estimate import Estimate, Status, from_error, not_defined

_NOTHING = 1e-10


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """The dimension that a task needs.

    Attributes:
        stable_rank: |P H P|_F^2 / |P H P|_2^2.
        intrinsic: tr(P H P) / |P H P|_2.
        top_curvature: |P H P|_2.
        no_demand: Whether P_A H_B P_A = 0, a case of its own: the task asks nothing of the
            preserving space, and neither ratio is defined.
    """

    stable_rank: Estimate
    intrinsic: Estimate
    top_curvature: Estimate
    no_demand: bool

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON types.

        Returns:
            The estimates and the flag.
        """
        return {
            "stable_rank": self.stable_rank.to_dict(),
            "intrinsic": self.intrinsic.to_dict(),
            "top_curvature": self.top_curvature.to_dict(),
            "no_demand": self.no_demand,
        }


def task_dimension(
    hessian: Operator,
    preserving: Preserving,
    *,
    like: Tensor,
    probes: int,
    generator: torch.Generator,
) -> Dimension:
    """Estimate the dimension that a new task needs.

    Args:
        hessian: H_B on rows: (K, P) -> (K, P).
        preserving: The projector P_A.
        like: A tensor (P,) whose size, dtype and device the vectors take.
        probes: Random probes for the norms; their spread gives the standard errors.
        generator: Source of the probes.

    Returns:
        The dimension.
    """

    def restricted(vectors: Tensor) -> Tensor:
        return preserving.project(hessian(preserving.project(vectors)))

    z = random_signs(probes, like, generator)
    image = restricted(z).double()
    squares = image.square().sum(-1)
    traces = (image * z.double()).sum(-1)
    top = eigenpairs(restricted, like, count=1, by_magnitude=True, generator=generator)
    norm = float(top.values[0].abs())
    if norm <= _NOTHING:
        reason = "P_A H_B P_A = 0: the task asks nothing of the preserving space."
        return Dimension(
            stable_rank=not_defined(reason),
            intrinsic=not_defined(reason),
            top_curvature=Estimate(value=norm),
            no_demand=True,
        )
    error = float(top.residuals[0])
    return Dimension(
        stable_rank=_ratio(squares, norm**2, 2 * error / norm, top.status),
        intrinsic=_ratio(traces, norm, error / norm, top.status),
        top_curvature=Estimate(value=norm, stderr=error, status=top.status),
        no_demand=False,
    )


def _ratio(samples: Tensor, scale: float, relative: float, status: Status) -> Estimate:
    """Divide a mean over probes by a number with a relative error; the errors add in squares."""
    n = len(samples)
    value = float(samples.mean()) / scale
    probe_error = float(samples.std()) / math.sqrt(n) / scale
    stderr = math.hypot(probe_error, abs(value) * relative)
    return from_error(value, stderr, n=n, status=status)
