"""The path of natural gradient in its own metric, which is curved: what bounds its distance.

A step -lr u with (G + damping) u = g costs |d theta|^2/lr = -d theta . g in the metric of its
batch, so the action takes no product. The metric is that of the outputs' laws and of theta side by
side, in which |.|^2 = mean over samples of the squared distance of their laws (Euclid's under
squared error, twice the angle of sqrt p under cross-entropy) + damping |d theta|^2 is shortest
between two ends: a lower bound of d^2. The path's own squared length is an upper one
(theory.md#natural-gradient).
"""

from __future__ import annotations

import torch
from torch import Tensor

from capacity.optimizers.natural import Natural
from capacity.optimizers.optimizer import Optimizer
from capacity.training.steps import Step


class CurvedMeter:
    """Action and length in the metric of natural gradient, in float64.

    Args:
        update: The update map, on a network and a task.
    """

    def __init__(self, update: Natural) -> None:
        self.update = update
        self.action = self.length = torch.zeros((), dtype=torch.float64)

    def add(self, step: Step) -> None:
        """Add one step.

        Args:
            step: The step, with the gradient before it was conditioned.
        """
        moved = step.after[0].double() - step.before[0].double()
        # At least 0 but for rounding: the metric is positive.
        spent = -(moved * step.gradient.double()).sum(-1).clamp(max=0.0)
        self.action = self.action.to(spent.device) + spent
        self.length = self.length.to(spent.device) + (step.lr * spent).sqrt()

    @torch.no_grad()
    def least_sq(self, before: Tensor, after: Tensor) -> Tensor | None:
        """Bound the squared distance of two points from below.

        Args:
            before: Parameters (R, P).
            after: Others (R, P).

        Returns:
            Bounds (R,), float64; None where the metric is an estimate of its diagonal.
        """
        metric = self.update.conditioner
        if not metric.whole(before):
            return None
        pairs = zip(before, after, strict=True)
        return torch.stack([metric.least_sq(one, other) for one, other in pairs])


def curved_meter(update: Optimizer | None) -> CurvedMeter | None:
    """Give a meter for what steps in a curved metric.

    Args:
        update: The update map.

    Returns:
        The meter; None for others, and for steps that are no steepest descent in it: with momentum,
        or clipped.
    """
    if not isinstance(update, Natural) or update.momentum or update.metric is None:
        return None
    return CurvedMeter(update)
