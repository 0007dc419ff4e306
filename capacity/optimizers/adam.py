"""Adam and AdamW."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from capacity.optimizers.dynamics import Dynamics
from capacity.optimizers.optimizer import NormalisedSteps, Optimizer
from capacity.optimizers.update_map import Reading, State, decayed, root, undecayed
from capacity.recipe.config import Training

_REFUSED = ("amsgrad", "maximize")


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam as `torch.optim` has it, with bias correction.

    Attributes:
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        eps: Added to the denominator.
        weight_decay: L2 coefficient.
        decoupled: Shrink theta by lr * weight_decay (AdamW) instead of adding to the gradient.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False
    name: str = "adam"
    elementwise = True
    torch_twins: ClassVar = {torch.optim.Adam: _REFUSED, torch.optim.AdamW: _REFUSED}
    torch_moments = ("exp_avg", "exp_avg_sq")

    @classmethod
    def options_of(cls, training: Training) -> dict[str, Any]:
        """Take the recipe's betas and eps."""
        beta1, beta2 = training.betas
        return {"beta1": beta1, "beta2": beta2, "eps": training.eps}

    @classmethod
    def from_torch(
        cls, kind: type[torch.optim.Optimizer], group: dict[str, Any], *, heavy: bool
    ) -> Adam:
        """Read a group; torch's own AdamW is an Adam with an option, and Adam takes it, too."""
        del heavy
        decoupled = kind is torch.optim.AdamW or bool(group.get("decoupled_weight_decay"))
        chosen = AdamW if decoupled else Adam
        beta1, beta2 = group["betas"]
        return chosen(beta1, beta2, group["eps"], float(group["weight_decay"]))

    def as_training(self) -> dict[str, Any]:
        """Say betas and eps."""
        return {"betas": (self.beta1, self.beta2), "eps": self.eps}

    def init(self, theta: Tensor) -> State:
        """Start with empty moments: (theta, 0, 0)."""
        return (theta, torch.zeros_like(theta), torch.zeros_like(theta))

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step."""
        theta, m, v = state
        if self.decoupled:
            theta = theta * (1 - lr * self.weight_decay)
        else:
            gradient = decayed(gradient, theta, self.weight_decay)
        m = self.beta1 * m + (1 - self.beta1) * gradient
        v = self.beta2 * v + (1 - self.beta2) * gradient * gradient
        m_hat = m / (1 - self.beta1**count)
        denominator = root(v) / (1 - self.beta2**count) ** 0.5 + self.eps
        return (theta - lr * m_hat / denominator, m, v)

    def implied_gradient(self, before: State, after: State, lr: float) -> Reading:
        """Read the gradient off the first moment."""
        del lr
        gain, old = 1 - self.beta1, self.beta1 * before[1]
        gradient, size = (after[1] - old) / gain, (after[1].abs() + old.abs()) / gain
        coupled = 0.0 if self.decoupled else self.weight_decay
        return undecayed(gradient, size, before[0], coupled)

    def learning_time(self, rates: float) -> None:
        """Steps that are scaled by the gradients' history are no gradient flow."""
        del rates

    def dynamics(self, *, full: bool) -> Dynamics:
        """No free energy is dissipated at a rate E|v|^2."""
        del full
        return Dynamics.OTHER

    def compression(self) -> NormalisedSteps:
        """Its steps have the size of the rate."""

        def stretched(stretch: float) -> Adam:
            beta1 = self.beta1 ** math.sqrt(stretch)
            return replace(self, beta1=beta1, beta2=self.beta2**stretch)

        return NormalisedSteps(
            stretched, self.beta2, True, self.eps, self.weight_decay, self.decoupled
        )


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay."""

    decoupled: bool = True
    name: str = "adamw"
    torch_twins: ClassVar = {}
