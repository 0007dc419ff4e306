"""What stands between a gradient and an update map that needs more of the batch than its gradient.

A conditioner maps a gradient g to u = A(theta, x)^{-1} g, with A a metric read off the network at
the batch; the update map is then fed with u. The Jacobian of a step needs the derivative of u,
du[v] = A^{-1}(H v - (dA[v]) u), and its adjoint (theory.md#natural-gradient).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Outputs = Callable[[Tensor, Tensor], Tensor]
"""(theta (P,), x (n, ...)) to a network's outputs (n, n_outputs)."""


@dataclass(frozen=True, eq=False)
class Curvature:
    """A symmetric matrix, at least 0, that does not depend on theta: a penalty's second derivative.

    Attributes:
        diagonal: Its diagonal (P,).
        product: U (P,) to the matrix times u.
    """

    diagonal: Tensor
    product: Callable[[Tensor], Tensor]


class Conditioner(Protocol):
    """A metric that gradients are divided by."""

    def held(self, curvatures: Sequence[Curvature]) -> Conditioner:
        """Add the curvature of a penalty to the metric.

        Args:
            curvatures: Of each replica.

        Returns:
            The metric of the loss with the penalty.
        """

    def of_replica(self, replica: int) -> Conditioner:
        """Give the metric of one replica.

        Args:
            replica: Its number.

        Returns:
            What its gradients are divided by.
        """

    def apply(self, theta: Tensor, x: Tensor, gradient: Tensor) -> Tensor:
        """Condition a gradient.

        Args:
            theta: Parameters (P,).
            x: Inputs of the batch.
            gradient: g (P,).

        Returns:
            u (P,).
        """

    def push(
        self, theta: Tensor, x: Tensor, gradient: Tensor, tangents: Tensor, moved: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Differentiate u along tangents of theta.

        Args:
            theta: Parameters (P,).
            x: Inputs of the batch.
            gradient: g (P,).
            tangents: V (K, P).
            moved: How the gradient moves along them, H V (K, P).

        Returns:
            u (P,), and how it moves (K, P).
        """

    def pull(
        self, theta: Tensor, x: Tensor, fed: Tensor, cotangents: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Pull cotangents of u back: the adjoint of `push`.

        Args:
            theta: Parameters (P,).
            x: Inputs of the batch.
            fed: u (P,).
            cotangents: Of u (K, P).

        Returns:
            What reaches the gradient, and what reaches theta through the metric (K, P each).
        """


@torch.no_grad()
def conditioned(
    conditioner: Conditioner | None, theta: Tensor, x: Tensor, gradient: Tensor
) -> Tensor:
    """Condition gradients where the update map asks for it.

    Args:
        conditioner: The update map's; None leaves gradients as they are.
        theta: Parameters of one network or more (..., P).
        x: The batch of each.
        gradient: Gradients (..., P).

    Returns:
        What the update map is fed with (..., P).
    """
    if conditioner is None:
        return gradient
    if theta.dim() == 1:
        return conditioner.apply(theta, x, gradient)
    # One by one: how long each is solved for depends on its numbers.
    rows = enumerate(zip(theta, x, gradient, strict=True))
    return torch.stack([conditioner.of_replica(r).apply(*row) for r, row in rows])
