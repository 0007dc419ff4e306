"""Whether the old tasks are learned: the preserving space is a second-order notion.

"A direction of curvature lambda costs lambda d^2 / 2" holds where A's gradient is 0. Where it is
not, a displacement changes A's loss to first order as well. What is left to learn is measured in
the same terms as the tolerance: 1/2 g'(G_A + lambda*)^-1 g with lambda* = 2a/d^2, by how much A's
loss could still fall within the displacement that defines the projector.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.compatibility.preserving import Preserving
from capacity.compatibility.soft import SoftPreserving
from capacity.curvature.lanczos import Operator
from capacity.estimate import Estimate


@dataclass(frozen=True, kw_only=True)
class Convergence:
    """How far the old tasks are from being learned.

    Attributes:
        gradient: |g|, norm of the gradient of their mean training loss.
        remaining: 1/2 g'(G_A + 2a/d^2)^-1 g, the fall of that loss that is still within reach.
        tolerance: a.
    """

    gradient: Estimate
    remaining: Estimate
    tolerance: float

    @property
    def converged(self) -> bool:
        """Whether what is left to learn is within the tolerance."""
        return (self.remaining.value or 0.0) <= self.tolerance

    @property
    def note(self) -> str:
        """What the reader must know; empty where the old tasks are learned."""
        if self.converged:
            return ""
        return (
            f"The old tasks are not converged: the gradient of their loss has norm "
            f"{self.gradient.value:.3g}, and the loss could still fall by "
            f"{self.remaining.value:.3g}, more than the tolerance of {self.tolerance:.3g}. "
            "Capacity and dimension hold where it is 0."
        )

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON types.

        Returns:
            The estimates, the verdict and the note.
        """
        return {
            "gradient": self.gradient.to_dict(),
            "remaining": self.remaining.to_dict(),
            "converged": self.converged,
            "note": self.note,
        }


def convergence(curvature: Operator, gradient: Tensor, preserving: Preserving) -> Convergence:
    """Measure how far the old tasks are from being learned.

    Args:
        curvature: Their GGN on rows.
        gradient: Gradient of their mean loss (P,).
        preserving: For the tolerance and the displacement.

    Returns:
        The record.
    """
    soft = SoftPreserving(curvature=curvature, strength=1 / preserving.threshold, tolerance=1e-3)
    solved = soft.apply(gradient[None])
    remaining = 0.5 * float(torch.dot(solved.vectors[0].double(), gradient.double()))
    return Convergence(
        gradient=Estimate(value=float(gradient.double().norm())),
        remaining=Estimate(
            value=remaining / preserving.threshold,
            status=solved.error.status,
            cost=solved.error.cost,
            note=solved.error.note,
        ),
        tolerance=preserving.tolerance,
    )
