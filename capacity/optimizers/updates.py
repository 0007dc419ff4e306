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

import numpy as np
import torch
from torch import Tensor

from capacity.base.checks import one_of
from capacity.base.random_streams import stream_seed
from capacity.recipe.config import Training

State = tuple[Tensor, ...]
"""theta, then the moments; tensors of one shape."""


class UpdateMap(Protocol):
    """One optimiser: its initial state and its step, given the gradient.

    Attributes:
        name: For people.
        plain: Whether the step is theta - lr * gradient and nothing else.
    """

    @property
    def name(self) -> str:
        """For people."""

    @property
    def plain(self) -> bool:
        """Whether the step is theta - lr * gradient."""

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


@dataclass(frozen=True)
class SGD:
    """Plain (stochastic) gradient descent: theta <- theta - lr (g + weight_decay theta).

    Attributes:
        weight_decay: L2 coefficient, coupled as in `torch.optim.SGD`.
    """

    weight_decay: float = 0.0
    name: str = "sgd"

    @property
    def plain(self) -> bool:
        """True without weight decay."""
        return self.weight_decay == 0

    def init(self, theta: Tensor) -> State:
        """Start from theta: (theta,)."""
        return (theta,)

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step."""
        del count
        return (state[0] - lr * _decayed(gradient, state[0], self.weight_decay),)


@dataclass(frozen=True)
class Momentum:
    """Heavy ball as `torch.optim.SGD` has it: m <- mu m + g; theta <- theta - lr m.

    Attributes:
        mu: Momentum coefficient.
        nesterov: Step along g + mu m instead of m.
        weight_decay: L2 coefficient, added to the gradient.
    """

    mu: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    name: str = "momentum"
    plain: bool = False

    def init(self, theta: Tensor) -> State:
        """Start at rest: (theta, 0)."""
        return (theta, torch.zeros_like(theta))

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step."""
        del count
        theta, m = state
        gradient = _decayed(gradient, theta, self.weight_decay)
        m = self.mu * m + gradient
        direction = gradient + self.mu * m if self.nesterov else m
        return (theta - lr * direction, m)


@dataclass(frozen=True)
class Adam:
    """Adam and AdamW as `torch.optim` has them, with bias correction.

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
    plain: bool = False

    def init(self, theta: Tensor) -> State:
        """Start with empty moments: (theta, 0, 0)."""
        return (theta, torch.zeros_like(theta), torch.zeros_like(theta))

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step."""
        theta, m, v = state
        if self.decoupled:
            theta = theta * (1 - lr * self.weight_decay)
        else:
            gradient = _decayed(gradient, theta, self.weight_decay)
        m = self.beta1 * m + (1 - self.beta1) * gradient
        v = self.beta2 * v + (1 - self.beta2) * gradient * gradient
        m_hat = m / (1 - self.beta1**count)
        denominator = _root(v) / (1 - self.beta2**count) ** 0.5 + self.eps
        return (theta - lr * m_hat / denominator, m, v)


@dataclass(frozen=True)
class RMSprop:
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
    plain: bool = False

    def init(self, theta: Tensor) -> State:
        """Start with an empty moment: (theta, 0)."""
        return (theta, torch.zeros_like(theta))

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step."""
        del count
        theta, v = state
        gradient = _decayed(gradient, theta, self.weight_decay)
        v = self.alpha * v + (1 - self.alpha) * gradient * gradient
        return (theta - lr * gradient / (_root(v) + self.eps), v)


@dataclass(frozen=True)
class Langevin:
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
    plain: bool = False
    first: int = 0

    def init(self, theta: Tensor) -> State:
        """Start from theta: (theta,)."""
        return (theta,)

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step."""
        theta = state[0]
        moved = theta - lr * _decayed(gradient, theta, self.weight_decay)
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


@dataclass(frozen=True)
class Clipped:
    """Another update map, fed with the gradient clipped to a norm, as `clip_grad_norm_` does.

    Attributes:
        inner: The update map.
        max_norm: Largest norm of the gradient of one replica.
    """

    inner: UpdateMap
    max_norm: float
    plain: bool = False

    @property
    def name(self) -> str:
        """The inner map's name, with what was added."""
        return f"{self.inner.name}, gradient clipped to {self.max_norm:g}"

    def init(self, theta: Tensor) -> State:
        """Start as the inner map does."""
        return self.inner.init(theta)

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step."""
        norm = gradient.norm(dim=-1, keepdim=True)
        # torch adds 1e-6 to the norm before it divides; parity includes that.
        scale = (self.max_norm / (norm + 1e-6)).clamp(max=1.0)
        return self.inner.step(state, gradient * scale, lr, count)


def from_training(
    training: Training, *, seed: int = 0, path: tuple[str | int, ...] = ()
) -> UpdateMap:
    """Choose the update map that a recipe asks for.

    Args:
        training: The recipe's training section.
        seed: Root seed of the noise, where the optimiser has any.
        path: Name of the noise's stream below the seed.

    Returns:
        The update map.
    """
    decay = training.weight_decay
    beta1, beta2 = training.betas
    maps: dict[str, UpdateMap] = {
        "sgd": SGD(weight_decay=decay),
        "momentum": Momentum(training.momentum, training.nesterov, decay),
        "adam": Adam(beta1, beta2, training.eps, decay),
        "adamw": Adam(beta1, beta2, training.eps, decay, decoupled=True, name="adamw"),
        "rmsprop": RMSprop(training.alpha, training.eps, decay),
        "sgld": Langevin(training.temperature or 0.0, decay, seed, path),
    }
    chosen = maps[one_of("training.optimizer", training.optimizer, maps)]
    return chosen if training.clip_norm is None else Clipped(chosen, training.clip_norm)


def symmetric_decay(update: object) -> float | None:
    """Tell the steps whose Jacobian is the symmetric 1 - lr (H + decay) from the others.

    Args:
        update: An update map.

    Returns:
        The decay, 0 for plain SGD; None for a step whose Jacobian is another.
    """
    return update.weight_decay if isinstance(update, SGD | Langevin) else None


def unclipped(update: object) -> object:
    """Take clipping off an update map.

    Args:
        update: Any kind of step.

    Returns:
        The map that the clipped gradient is fed to, or the map itself.
    """
    return update.inner if isinstance(update, Clipped) else update


def _decayed(gradient: Tensor, theta: Tensor, weight_decay: float) -> Tensor:
    # The branch keeps a step without decay bit for bit what it is without the option.
    return gradient + weight_decay * theta if weight_decay else gradient


def _root(v: Tensor) -> Tensor:
    """Take a square root whose derivative is finite at 0, where a gradient has never been."""
    # The step is 0 there whatever v is, so the root of a positive number stands in.
    idle = v == 0
    return torch.where(idle, torch.zeros_like(v), torch.where(idle, torch.ones_like(v), v).sqrt())
