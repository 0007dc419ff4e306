"""RMSprop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from capacity.optimizers.dynamics import Dynamics
from capacity.optimizers.optimizer import NormalisedSteps, Optimizer
from capacity.optimizers.update_map import Reading, State, decayed, root, undecayed
from capacity.recipe.config import Training


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """RMSprop as `torch.optim.RMSprop` has it (not centred, without momentum).

    Attributes:
        alpha: Decay of the second moment.
        eps: Added to the denominator.
        weight_decay: L2 coefficient, added to the gradient.
    """

    alpha: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    name: str = "rmsprop"
    elementwise = True
    torch_twins: ClassVar = {torch.optim.RMSprop: ("momentum", "centered", "maximize")}
    torch_moments = ("square_avg",)

    @classmethod
    def options_of(cls, training: Training) -> dict[str, Any]:
        """Take the recipe's alpha and eps."""
        return {"alpha": training.alpha, "eps": training.eps}

    @classmethod
    def from_torch(
        cls, kind: type[torch.optim.Optimizer], group: dict[str, Any], *, heavy: bool
    ) -> RMSprop:
        """Read a group."""
        del kind, heavy
        return cls(group["alpha"], group["eps"], float(group["weight_decay"]))

    def as_training(self) -> dict[str, Any]:
        """Say alpha and eps."""
        return {"alpha": self.alpha, "eps": self.eps}

    def init(self, theta: Tensor) -> State:
        """Start with an empty moment: (theta, 0)."""
        return (theta, torch.zeros_like(theta))

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step."""
        del count
        theta, v = state
        gradient = decayed(gradient, theta, self.weight_decay)
        v = self.alpha * v + (1 - self.alpha) * gradient * gradient
        return (theta - lr * gradient / (root(v) + self.eps), v)

    def implied_gradient(self, before: State, after: State, lr: float) -> Reading | None:
        """Read the gradient off the move and the moment."""
        if not lr > 0:
            return None
        theta, now, over = before[0], after[0], (after[1].sqrt() + self.eps) / lr
        size = (theta.abs() + now.abs()) * over
        return undecayed((theta - now) * over, size, theta, self.weight_decay)

    def learning_time(self, rates: float) -> None:
        """Steps that are scaled by the gradients' history are no gradient flow."""
        del rates

    def dynamics(self, *, full: bool) -> Dynamics:
        """No free energy is dissipated at a rate E|v|^2."""
        del full
        return Dynamics.OTHER

    def compression(self) -> NormalisedSteps:
        """Its steps have the size of the rate."""
        return NormalisedSteps(
            lambda stretch: replace(self, alpha=self.alpha**stretch),
            self.alpha, eps=self.eps, decay=self.weight_decay,
        )  # fmt: skip
