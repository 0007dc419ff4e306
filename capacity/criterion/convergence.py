"""Whether the old tasks are learned: the preserving space is a second-order notion.

"A direction of curvature lambda costs lambda d^2 / 2" holds where A's gradient is 0. Where it is
not, a displacement changes A's loss to first order as well. What is left to learn is measured in
the same terms as the tolerance: 1/2 g'(G_A + lambda*)^-1 g with lambda* = 2a/d^2, by how much A's
loss could still fall within the displacement that defines the projector.

Of several old tasks each is measured by itself, and the one that is furthest from learned stands
for all: the gradients of two tasks cancel where each pulls its own way, and a task that is learned
makes up for no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from capacity.criterion.preserving import Preserving, curvature_threshold
from capacity.criterion.soft_projector import SoftPreserving
from capacity.krylov.lanczos import Operator
from capacity.records.estimate import Estimate
from capacity.records.plain import Plain


@dataclass(frozen=True, kw_only=True)
class Convergence(Plain):
    """How far the old tasks are from being learned.

    Attributes:
        gradient: |g|, norm of the gradient of an old task's mean training loss.
        remaining: 1/2 g'(G_A + 2a/d^2)^-1 g, the fall of that loss that is still within reach.
        tolerance: a of that task.
        task: Its name: of several the one that is furthest from learned, in units of its tolerance.
        not_learned: How many are not learned to within their tolerance.
        tasks: How many old tasks there are.
    """

    WRITTEN = ("gradient", "remaining", "task", "converged", "note")

    gradient: Estimate
    remaining: Estimate
    tolerance: float
    task: str = ""
    not_learned: int = 0
    tasks: int = 1

    @property
    def converged(self) -> bool:
        """Whether what is left to learn is within the tolerance, of every old task."""
        return (self.remaining.value or 0.0) <= self.tolerance

    @property
    def note(self) -> str:
        """What the reader must know; empty where the old tasks are learned."""
        if self.converged:
            return ""
        which, whose = "", "their"
        if self.tasks > 1:
            which, whose = f" ({self.not_learned} of {self.tasks}, {self.task!r} the least)", "its"
        return (
            f"The old tasks are not converged{which}: the gradient of {whose} loss has norm "
            f"{self.gradient.value:.3g}, and the loss could still fall by "
            f"{self.remaining.value:.3g}, more than the tolerance of {self.tolerance:.3g}. "
            "Capacity and dimension hold where it is 0."
        )


def convergence(
    curvatures: Sequence[Operator],
    gradients: Sequence[Tensor],
    preserving: Preserving,
    names: Sequence[str],
) -> Convergence:
    """Measure how far the old tasks are from being learned.

    Args:
        curvatures: GGN of every old task on rows, at least one.
        gradients: Gradient of the mean loss of each (P,).
        preserving: For their tolerances and the displacement.
        names: Their names.

    Returns:
        The record of the task that is furthest from learned.
    """
    allowed = preserving.allowances or (preserving.tolerance,) * len(names)
    each = [
        _of_one(name, curvature, gradient, a, preserving.displacement)
        for name, curvature, gradient, a in zip(names, curvatures, gradients, allowed, strict=True)
    ]
    return furthest(each)


def furthest(each: Sequence[Convergence]) -> Convergence:
    """Choose the task that stands for all.

    Args:
        each: The record of every old task, at least one.

    Returns:
        The one with the most left to learn, in units of its tolerance.
    """
    worst = max(each, key=lambda one: (one.remaining.value or 0.0) / one.tolerance)
    left = sum(not one.converged for one in each)
    return replace(worst, not_learned=left, tasks=len(each))


def _of_one(
    name: str, curvature: Operator, gradient: Tensor, tolerance: float, displacement: float
) -> Convergence:
    threshold = curvature_threshold(tolerance, displacement)
    soft = SoftPreserving(curvature=curvature, strength=1 / threshold, tolerance=1e-3)
    solved = soft.apply(gradient[None])
    remaining = 0.5 * float(torch.dot(solved.vectors[0].double(), gradient.double()))
    return Convergence(
        gradient=Estimate(value=float(gradient.double().norm())),
        remaining=Estimate(
            value=remaining / threshold,
            status=solved.error.status,
            cost=solved.error.cost,
            note=solved.error.note,
        ),
        tolerance=tolerance,
        task=name,
    )
