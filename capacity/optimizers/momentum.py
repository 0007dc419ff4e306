"""Heavy-ball and Nesterov momentum, whose algebra is linear."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from capacity.optimizers.dynamics import Dynamics
from capacity.optimizers.optimizer import AddHessian, FollowsGradient, Optimizer
from capacity.optimizers.update_map import Reading, State, decayed, undecayed
from capacity.recipe.config import Training


@dataclass(frozen=True)
class Momentum(Optimizer):
    """Heavy ball as `torch.optim.SGD` has it: m <- mu m + g; theta <- theta - lr m.

    Tangents follow the same lines with H v for g, in place: heavy ball allocates nothing of the
    tangents' size, and neither the gradient nor a derivative of the algebra is needed.

    Attributes:
        mu: Momentum coefficient.
        nesterov: Step along g + mu m instead of m.
        weight_decay: L2 coefficient, added to the gradient.
    """

    mu: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    name: str = "momentum"
    elementwise = linear = True
    torch_moments = ("momentum_buffer",)

    @classmethod
    def options_of(cls, training: Training) -> dict[str, Any]:
        """Take the recipe's momentum."""
        return {"mu": training.momentum, "nesterov": training.nesterov}

    @classmethod
    def from_torch(
        cls, kind: type[torch.optim.Optimizer], group: dict[str, Any], *, heavy: bool
    ) -> Momentum:
        """Read a group of `torch.optim.SGD`."""
        del kind, heavy
        return cls(group["momentum"], bool(group["nesterov"]), float(group["weight_decay"]))

    def as_training(self) -> dict[str, Any]:
        """Say the momentum."""
        return {"momentum": self.mu, "nesterov": self.nesterov}

    def init(self, theta: Tensor) -> State:
        """Start at rest: (theta, 0)."""
        return (theta, torch.zeros_like(theta))

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step."""
        del count
        theta, m = state
        gradient = decayed(gradient, theta, self.weight_decay)
        m = self.mu * m + gradient
        direction = gradient + self.mu * m if self.nesterov else m
        return (theta - lr * direction, m)

    def push(self, tangents: State, lr: float, add_hessian: AddHessian) -> State:
        """Push tangents of (theta, m) through one step."""
        v, m = tangents
        m.mul_(self.mu)
        kept = m.clone() if self.nesterov else None
        if self.weight_decay:
            m.add_(v, alpha=self.weight_decay)
        add_hessian(v, m)
        if kept is None:
            v.add_(m, alpha=-lr)
        else:
            # With g' = m - mu m_old the step g' + mu m is (1 + mu) m - mu m_old.
            v.add_(m, alpha=-lr * (1 + self.mu)).add_(kept, alpha=lr)
        return tangents

    def pull(self, cotangents: State, lr: float, add_hessian: AddHessian) -> State:
        """Pull cotangents (a, b) back: with c what reaches the gradient, a <- a + (H + decay) c."""
        a, b = cotangents
        mu = self.mu
        if self.nesterov:
            c = b.add(a, alpha=-lr * (1 + mu))
            b.mul_(mu).add_(a, alpha=-lr * mu * mu)
        else:
            c = b.add_(a, alpha=-lr)
        add_hessian(c, a)
        if self.weight_decay:
            a.add_(c, alpha=self.weight_decay)
        if not self.nesterov:
            b.mul_(mu)
        return cotangents

    def implied_gradient(self, before: State, after: State, lr: float) -> Reading:
        """Read the gradient off the moment."""
        del lr
        old = self.mu * before[1]
        return undecayed(after[1] - old, after[1].abs() + old.abs(), before[0], self.weight_decay)

    def learning_time(self, rates: float) -> float:
        """The continuous limit of heavy ball."""
        return rates / (1 - self.mu)

    def dynamics(self, *, full: bool) -> Dynamics:
        """Heavy ball; Nesterov's variant dissipates otherwise."""
        del full
        return Dynamics.OTHER if self.nesterov else Dynamics.HEAVY_BALL

    def kinetic_energy(self, state: State, before: State | None, lr: float) -> Tensor | None:
        """|last step|^2/(2 lr)."""
        if before is None:
            return None
        return (state[0] - before[0]).double().square().sum(-1).cpu() / (2 * lr)

    def compression(self) -> FollowsGradient:
        """It follows the gradient."""

        def heavy(mu: float, nesterov: bool) -> Momentum:
            return replace(self, mu=mu, nesterov=nesterov)

        return FollowsGradient(heavy, self.mu, self.nesterov, self.weight_decay)
