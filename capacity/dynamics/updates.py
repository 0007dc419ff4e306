"""Update maps: how a gradient moves the optimiser state.

A training step is psi(state, batch, lr) = step(state, gradient(state.theta, batch), lr, count).
The *algebra* (`step`, this file) is elementwise in theta and knows no loss; only the gradient does.
So the Jacobian of a step needs one Hessian product whatever the optimiser, and the rest is the
cheap JVP of the algebra: d psi . v = d step . (v, H v_theta). Its adjoint is the VJP of the algebra
followed by the same, symmetric, Hessian product.

A state is a tuple of tensors, theta first, then the optimiser's moments, all of one shape: (P,), or
(R, P) for R replicas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from capacity.config import Training

State = tuple[Tensor, ...]
"""theta, then the moments; tensors of one shape."""


class UpdateMap(Protocol):
    """One optimiser: its initial state and its step, given the gradient.

    Attributes:
        name: For people.
        plain: Whether the step is theta - lr * gradient, its Jacobian the symmetric 1 - lr H.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def plain(self) -> bool: ...  # noqa: D102

    def init(self, theta: Tensor) -> State: ...  # noqa: D102
    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State: ...  # noqa: D102


@dataclass(frozen=True)
class SGD:
    """Plain (stochastic) gradient descent: theta <- theta - lr g."""

    name: str = "sgd"
    plain: bool = True

    def init(self, theta: Tensor) -> State:
        """Start from theta.

        Args:
            theta: Parameters (..., P).

        Returns:
            (theta,)
        """
        return (theta,)

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step.

        Args:
            state: (theta,)
            gradient: g (..., P).
            lr: Learning rate.
            count: Steps taken in this phase, this one included (unused).

        Returns:
            The next state.
        """
        del count
        return (state[0] - lr * gradient,)


@dataclass(frozen=True)
class Momentum:
    """Heavy ball as `torch.optim.SGD` has it: m <- mu m + g; theta <- theta - lr m.

    Attributes:
        mu: Momentum coefficient.
    """

    mu: float = 0.9
    name: str = "momentum"
    plain: bool = False

    def init(self, theta: Tensor) -> State:
        """Start at rest.

        Args:
            theta: Parameters (..., P).

        Returns:
            (theta, 0)
        """
        return (theta, torch.zeros_like(theta))

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step.

        Args:
            state: (theta, m).
            gradient: g (..., P).
            lr: Learning rate.
            count: Steps taken in this phase, this one included (unused).

        Returns:
            The next state.
        """
        del count
        theta, m = state
        m = self.mu * m + gradient
        return (theta - lr * m, m)


@dataclass(frozen=True)
class Adam:
    """Adam as `torch.optim.Adam` has it, with bias correction.

    Attributes:
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        eps: Added to the denominator.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    name: str = "adam"
    plain: bool = False

    def init(self, theta: Tensor) -> State:
        """Start with empty moments.

        Args:
            theta: Parameters (..., P).

        Returns:
            (theta, 0, 0)
        """
        return (theta, torch.zeros_like(theta), torch.zeros_like(theta))

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step.

        Args:
            state: (theta, first moment, second moment).
            gradient: g (..., P).
            lr: Learning rate.
            count: Steps taken in this phase, this one included; sets the bias correction.

        Returns:
            The next state.
        """
        theta, m, v = state
        m = self.beta1 * m + (1 - self.beta1) * gradient
        v = self.beta2 * v + (1 - self.beta2) * gradient * gradient
        m_hat = m / (1 - self.beta1**count)
        # sqrt has no derivative at 0, where a parameter has never had a gradient; there the step is
        # 0 whatever v is, so the root of a positive number stands in.
        idle = v == 0
        root = torch.where(idle, torch.ones_like(v), v).sqrt() / (1 - self.beta2**count) ** 0.5
        denominator = torch.where(idle, torch.zeros_like(v), root) + self.eps
        return (theta - lr * m_hat / denominator, m, v)


def from_training(training: Training) -> UpdateMap:
    """Choose the update map that a recipe asks for.

    Args:
        training: The recipe's training section.

    Returns:
        The update map.
    """
    if training.optimizer == "sgd":
        return SGD()
    if training.optimizer == "momentum":
        return Momentum(mu=training.momentum)
    return Adam(beta1=training.betas[0], beta2=training.betas[1], eps=training.eps)
