"""Langevin dynamics beyond the first-order step: with inertia, and exact in a quadratic potential.

Both are update maps as in `capacity.optimizers.update_map`; their noise is `Langevin`'s, a pure
function of (seed, path, replica, count).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from capacity.base.checks import one_of, positive_float
from capacity.optimizers.dynamics import Dynamics
from capacity.optimizers.optimizer import AddHessian, Optimizer
from capacity.optimizers.sgld import Langevin
from capacity.optimizers.update_map import State, decayed
from capacity.recipe.config import Training

_THERMAL = 0
"""Step number of the noise that draws the first momenta; steps count from 1."""


@dataclass(frozen=True)
class UnderdampedLangevin(Optimizer):
    """Langevin dynamics with inertia, in time steps dt = lr.

    d theta = p dt,  d p = -(grad L + decay theta) dt - friction p dt + sqrt(2 friction tau) dW.

    One gradient per step, in the order kick, half drift, exact Ornstein-Uhlenbeck refreshment of p,
    half drift (the BAOAB splitting of Leimkuhler and Matthews, seen between its two half kicks), so
    that theta settles at exp(-L/tau) up to second order in dt. The momenta start from their own
    equilibrium, N(0, tau), independent of theta: a start at rest has no entropy.

    Attributes:
        temperature: tau.
        friction: gamma, above 0.
        weight_decay: L2 coefficient, added to the gradient.
        seed: Root seed of the noise.
        path: Name of the noise's stream below the seed; every phase needs one of its own.
        first: Replica that row 0 of theta is, where replicas go in chunks.
    """

    temperature: float
    friction: float = 1.0
    weight_decay: float = 0.0
    seed: int = 0
    path: tuple[str | int, ...] = ()
    name: str = "underdamped Langevin"
    first: int = 0
    linear = True

    def __post_init__(self) -> None:
        positive_float("friction", self.friction)

    @classmethod
    def options_of(cls, training: Training) -> dict[str, Any]:
        """Take the recipe's temperature, and the friction of its options."""
        for name in training.options:
            one_of("options", name, ("friction",))
        friction = training.options.get("friction", 1.0)
        return {
            "temperature": training.temperature or 0.0,
            "friction": positive_float("options.friction", friction),
        }

    def init(self, theta: Tensor) -> State:
        """Start with thermal momenta: (theta, p)."""
        return (theta, math.sqrt(self.temperature) * _noise(self, theta, _THERMAL))

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step."""
        theta, p = state
        p = p - lr * decayed(gradient, theta, self.weight_decay)
        theta = theta + 0.5 * lr * p
        kept = math.exp(-self.friction * lr)
        p = kept * p + math.sqrt(self.temperature * (1 - kept**2)) * _noise(self, theta, count)
        return (theta + 0.5 * lr * p, p)

    def push(self, tangents: State, lr: float, add_hessian: AddHessian) -> State:
        """Push tangents of (theta, p) through one step: the noise has none."""
        v, p = tangents
        forced = torch.zeros_like(v)
        add_hessian(v, forced)
        p.sub_(forced.add_(v, alpha=self.weight_decay), alpha=lr)
        v.add_(p, alpha=0.5 * lr)
        p.mul_(math.exp(-self.friction * lr))
        v.add_(p, alpha=0.5 * lr)
        return tangents

    def pull(self, cotangents: State, lr: float, add_hessian: AddHessian) -> State:
        """Pull cotangents back, the same moves in turn."""
        a, b = cotangents
        b.add_(a, alpha=0.5 * lr).mul_(math.exp(-self.friction * lr)).add_(a, alpha=0.5 * lr)
        forced = torch.zeros_like(a)
        add_hessian(b, forced)
        a.sub_(forced.add_(b, alpha=self.weight_decay), alpha=lr)
        return cotangents

    def learning_time(self, rates: float) -> float:
        """The overdamped limit."""
        return rates / self.friction

    def dynamics(self, *, full: bool) -> Dynamics:
        """Langevin dynamics with inertia."""
        del full
        return Dynamics.UNDERDAMPED

    def kinetic_energy(self, state: State, before: State | None, lr: float) -> Tensor:
        """p^2/2."""
        del before, lr
        return 0.5 * state[1].double().square().sum(-1).cpu()


@dataclass(frozen=True, eq=False)
class ExactLangevin(Optimizer):
    """The exact transition of overdamped Langevin dynamics in 1/2 rate (theta - target)^2.

    theta <- target + e^{-rate lr} (theta - target) + sqrt(tau (1 - e^{-2 rate lr})/rate) xi, per
    coordinate: the Ornstein-Uhlenbeck process at the times 0, lr, 2 lr, ... without a step error.
    The gradient that comes with the step is not used.

    Attributes:
        temperature: tau.
        rate: Curvature (P,) or a number; 0 is free diffusion.
        target: Minimum (P,) or a number.
        seed: Root seed of the noise.
        path: Name of the noise's stream below the seed; every phase needs one of its own.
        first: Replica that row 0 of theta is, where replicas go in chunks.
    """

    temperature: float
    rate: Tensor | float
    target: Tensor | float = 0.0
    seed: int = 0
    path: tuple[str | int, ...] = ()
    name: str = "exact Langevin"
    first: int = 0

    def init(self, theta: Tensor) -> State:
        """Start from theta: (theta,)."""
        return (theta,)

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step."""
        del gradient
        theta = state[0]
        rate = torch.as_tensor(self.rate, dtype=torch.float64, device=theta.device)
        target = torch.as_tensor(self.target, dtype=theta.dtype, device=theta.device)
        still = rate == 0
        safe = torch.where(still, torch.ones_like(rate), rate)
        grown = torch.where(still, 2 * lr, -torch.expm1(-2 * rate * lr) / safe)
        kept = torch.exp(-rate * lr).to(theta.dtype)
        spread = (self.temperature * grown).sqrt().to(theta.dtype)
        return (target + kept * (theta - target) + spread * _noise(self, theta, count),)

    def learning_time(self, rates: float) -> float:
        """The rates' sum."""
        return rates

    def dynamics(self, *, full: bool) -> Dynamics:
        """Overdamped Langevin dynamics."""
        del full
        return Dynamics.LANGEVIN


def _noise(update: UnderdampedLangevin | ExactLangevin, theta: Tensor, count: int) -> Tensor:
    source = Langevin(update.temperature, seed=update.seed, path=update.path, first=update.first)
    return source.noise(theta, count)
