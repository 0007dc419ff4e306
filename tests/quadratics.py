"""Quadratic tasks L_X = 1/2 (theta - x)' H_X (theta - x), whose every quantity is known.

Linear regression with the half-MSE loss and full batches is such a task: H = X'X/n, and the
targets put the minimum where we like. (Closed forms: theory.md#quadratic-tasks.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from capacity.tasks.task import Split, Task


@dataclass(frozen=True)
class Quadratic:
    """A task with Hessian H and minimum x."""

    hessian: Tensor
    minimum: Tensor
    task: Task

    def loss(self, theta: Tensor) -> Tensor:
        moved = theta - self.minimum
        return 0.5 * moved @ self.hessian @ moved


def quadratic(name: str, curvatures: Tensor, *, seed: int, samples: int = 24) -> Quadratic:
    """Make a task with the given Hessian eigenvalues, in a random basis, at a random minimum."""
    generator = torch.Generator().manual_seed(seed)
    size = len(curvatures)
    like = {"generator": generator, "dtype": torch.float64}
    left = torch.linalg.qr(torch.randn(samples, size, **like))[0]
    right = torch.linalg.qr(torch.randn(size, size, **like))[0]
    x = left * (samples * curvatures.double()).sqrt() @ right.T
    minimum = torch.randn(size, **like)
    split = Split(x, (x @ minimum)[:, None])
    return Quadratic(
        right * curvatures.double() @ right.T,
        minimum,
        Task(name=name, train=split, test=split, loss="mse"),
    )


def linear(size: int) -> nn.Module:
    """The model of these tasks: theta is the weight row."""
    return nn.Linear(size, 1, bias=False).double()
