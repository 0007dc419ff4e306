"""Update maps: how a gradient moves the optimiser state.

A training step is psi(state, batch, lr) = step(state, gradient(state.theta, batch), lr, count).
The *algebra* (`step`) is elementwise in theta and knows no loss; only the gradient does. So the
Jacobian of a step needs one Hessian product whatever the optimiser, and the rest is the cheap JVP
of the algebra: d psi . v = d step . (v, H v_theta). Its adjoint is the VJP of the algebra followed
by the same, symmetric, Hessian product.

A state is a tuple of tensors, theta first, then the optimiser's moments, all of one shape: (P,), or
(R, P) for R replicas.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

State = tuple[Tensor, ...]
"""theta, then the moments; tensors of one shape."""

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(theta (P,), x, y) -> mean loss, a scalar."""

Reading = tuple[Tensor, Tensor]
"""A gradient (P,), and how much of each component rounding of the state may be (P,)."""


class UpdateMap(Protocol):
    """One optimiser: its initial state and its step, given the gradient. `Optimizer` is one.

    Attributes:
        name: For people.
    """

    @property
    def name(self) -> str:
        """For people."""

    def init(self, theta: Tensor) -> State:
        """Start a phase.

        Args:
            theta: Parameters (..., P).

        Returns:
            The state: theta, then the moments, which do not depend on theta.
        """

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step; a pure function.

        Args:
            state: theta and moments (..., P).
            gradient: g of the batch loss at theta (..., P).
            lr: Learning rate.
            count: Steps taken in this phase, this one included.

        Returns:
            The next state.
        """


def decayed(gradient: Tensor, theta: Tensor, weight_decay: float) -> Tensor:
    """Add coupled weight decay to a gradient.

    Args:
        gradient: g (..., P).
        theta: Parameters (..., P).
        weight_decay: L2 coefficient.

    Returns:
        g + weight_decay theta.
    """
    # The branch keeps a step without decay bit for bit what it is without the option.
    return gradient + weight_decay * theta if weight_decay else gradient


def undecayed(gradient: Tensor, size: Tensor, theta: Tensor, weight_decay: float) -> Reading:
    """Take coupled weight decay off a gradient that was read back from a state.

    Args:
        gradient: g + weight_decay theta (P,).
        size: Magnitude of the numbers that it is a difference of (P,).
        theta: Parameters (P,).
        weight_decay: L2 coefficient.

    Returns:
        g and its rounding.
    """
    decay = weight_decay * theta
    return gradient - decay, torch.finfo(theta.dtype).eps * (size + decay.abs())


def root(v: Tensor) -> Tensor:
    """Take a square root whose derivative is finite at 0, where a gradient has never been.

    Args:
        v: A second moment (..., P).

    Returns:
        Its root.
    """
    # The step is 0 there whatever v is, so the root of a positive number stands in.
    idle = v == 0
    return torch.where(idle, torch.zeros_like(v), torch.where(idle, torch.ones_like(v), v).sqrt())
