"""Stochastic gradient Langevin dynamics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from capacity.base.random_streams import stream_seed
from capacity.optimizers.dynamics import Dynamics
from capacity.optimizers.optimizer import Optimizer
from capacity.optimizers.update_map import State, decayed
from capacity.recipe.config import Training


@dataclass(frozen=True)
class Langevin(Optimizer):
    """Langevin dynamics (SGLD): theta <- theta - lr (g + decay theta) + sqrt(2 lr temperature) xi.

    The noise xi of a step is a pure function of (seed, path, replica, count): a step that is taken
    again, beside others or after a restart gets the same numbers. It is drawn in float64 on the CPU
    whatever theta's precision and device. Given the noise, the Jacobian is that of SGD.

    Attributes:
        temperature: tau; the stationary law is exp(-L/tau) as lr goes to 0.
        weight_decay: L2 coefficient, added to the gradient.
        seed: Root seed of the noise.
        path: Name of the noise's stream below the seed; every phase needs one of its own.
        first: Replica that row 0 of theta is, where replicas go in chunks.
    """

    temperature: float
    weight_decay: float = 0.0
    seed: int = 0
    path: tuple[str | int, ...] = ()
    name: str = "sgld"
    first: int = 0

    @classmethod
    def options_of(cls, training: Training) -> dict[str, Any]:
        """Take the recipe's temperature."""
        return {"temperature": training.temperature or 0.0}

    def init(self, theta: Tensor) -> State:
        """Start from theta: (theta,)."""
        return (theta,)

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step."""
        theta = state[0]
        moved = theta - lr * decayed(gradient, theta, self.weight_decay)
        return (moved + (2 * lr * self.temperature) ** 0.5 * self.noise(theta, count),)

    def noise(self, theta: Tensor, count: int) -> Tensor:
        """Draw the noise of one step.

        Args:
            theta: Parameters whose shape, dtype and device it takes: (R, P), whose rows are the
                replicas from `first` on, or (P,), which is replica `first`.
            count: Steps taken in this phase, this one included.

        Returns:
            Independent standard normal numbers of theta's shape.
        """
        # numpy's, not torch's: torch draws nothing inside the function transforms.
        rows = [
            np.random.Generator(
                np.random.Philox(stream_seed(self.seed, "noise", *self.path, replica, count))
            ).standard_normal(theta.shape[-1])
            for replica in range(self.first, self.first + (len(theta) if theta.dim() > 1 else 1))
        ]
        return torch.from_numpy(np.stack(rows)).reshape(theta.shape).to(theta.device, theta.dtype)

    @property
    def symmetric_decay(self) -> float:
        """The weight decay."""
        return self.weight_decay

    def learning_time(self, rates: float) -> float:
        """The rates' sum."""
        return rates

    def dynamics(self, *, full: bool) -> Dynamics:
        """Overdamped Langevin dynamics."""
        del full
        return Dynamics.LANGEVIN
