"""Plain (stochastic) gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from capacity.optimizers.dynamics import Dynamics
from capacity.optimizers.momentum import Momentum
from capacity.optimizers.optimizer import FollowsGradient, Optimizer
from capacity.optimizers.update_map import Reading, State, decayed, undecayed


@dataclass(frozen=True)
class SGD(Optimizer):
    """Plain (stochastic) gradient descent: theta <- theta - lr (g + weight_decay theta).

    Attributes:
        weight_decay: L2 coefficient, coupled as in `torch.optim.SGD`.
    """

    weight_decay: float = 0.0
    name: str = "sgd"
    elementwise = True
    torch_twins: ClassVar = {torch.optim.SGD: ("dampening", "maximize")}

    @classmethod
    def from_torch(
        cls, kind: type[torch.optim.Optimizer], group: dict[str, Any], *, heavy: bool
    ) -> Optimizer:
        """Read a group; with momentum it is heavy ball."""
        return (
            Momentum.from_torch(kind, group, heavy=True)
            if heavy
            else cls(float(group["weight_decay"]))
        )

    def as_training(self) -> dict[str, Any]:
        """Say that there is no option."""
        return {}

    def init(self, theta: Tensor) -> State:
        """Start from theta: (theta,)."""
        return (theta,)

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step."""
        del count
        return (state[0] - lr * decayed(gradient, state[0], self.weight_decay),)

    @property
    def plain(self) -> bool:
        """True without weight decay."""
        return self.weight_decay == 0

    @property
    def symmetric_decay(self) -> float:
        """The weight decay."""
        return self.weight_decay

    def implied_gradient(self, before: State, after: State, lr: float) -> Reading | None:
        """Read the gradient off the move."""
        if not lr > 0:
            return None
        theta, now, over = before[0], after[0], 1 / lr
        size = (theta.abs() + now.abs()) * over
        return undecayed((theta - now) * over, size, theta, self.weight_decay)

    def learning_time(self, rates: float) -> float:
        """The rates' sum."""
        return rates

    def dynamics(self, *, full: bool) -> Dynamics:
        """Gradient descent, with the noise of batches where it sees those."""
        return Dynamics.GRADIENT if full else Dynamics.MINIBATCH

    def compression(self) -> FollowsGradient:
        """It follows the gradient."""
        heavy = partial(Momentum, weight_decay=self.weight_decay)
        return FollowsGradient(heavy, decay=self.weight_decay)
