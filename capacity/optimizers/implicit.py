"""Implicit steps of a belief: the gradient at the step's end in place of that at its start.

One step of length lr ends where F(q) + d(q, q_0)/lr is least over Gaussians q, with d half the
squared W2 distance (Jordan, Kinderlehrer, Otto) or the divergence KL(q | q_0). Such an end is the
explicit step along its own gradient, so what is looked for is a gradient G with
grad E(q(G)) = G (theory.md#variational-step). It is mixed of the gradients that were seen so
that they miss the least together (Anderson's mixing: on a quadratic, what a Krylov method does), in
a fixed number of gradients. So a step is a pure function, and J_t is that of the step as taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.func import grad

from capacity.optimizers.beliefs import Information, Transport
from capacity.optimizers.optimizer import FollowsGradient
from capacity.optimizers.update_map import Loss, State
from capacity.recipe.config import Training

UNSOLVED = 0.5
"""Residual above which a step is none: its end asks for another step half as long or longer."""
_RIDGE = 1e-12
_NOTHING = 1e-30
"""Stands in for the norm of what misses nothing."""

Slope = Callable[[Tensor], Tensor]
"""theta (..., P) to the gradients of the same batch and draws there (..., P)."""


@dataclass(frozen=True)
class ImplicitTransport(Transport):
    """Steps of JKO: F(q) + W2^2(q, q_0)/(2 lr) is least where one ends.

    Attributes:
        gradients: Gradients per step beside the one at its start, at least 3; the last of them
            tells the residual.
    """

    gradients: int = 8
    name: str = "belief by implicit transport"
    from_gradient = False
    explicit: ClassVar[type[Transport]] = Transport

    @classmethod
    def from_plan(cls, training: Training) -> Self:
        """Build what a plan with an implicit belief asks for."""
        assert training.temperature is not None, "a plan with a belief has a temperature"
        assert training.belief is not None, "only beliefs are moved so"
        assert training.belief.implicit is not None, "the plan's steps are implicit"
        return cls(
            training.temperature,
            weight_decay=training.weight_decay,
            width_rate=training.belief.width_rate,
            gradients=training.belief.implicit,
        )

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take the step along the gradient at its end; the decay's is solved for here."""
        del count
        return (self._ended(state[0], gradient, lr),)

    def _ended(self, theta: Tensor, fed: Tensor, lr: float) -> Tensor:
        half = theta.shape[-1] // 2
        rate = self.width_rate * lr
        moved = (theta - lr * fed)[..., half:] / (1 + lr * self.weight_decay)
        kept = 1 + rate * self.weight_decay
        pull = rate * fed[..., :half] - theta[..., :half]
        return torch.cat([_root(kept, pull, rate * self.temperature), moved], dim=-1)

    def advance(
        self, loss: Loss, state: State, x: Tensor, y: Tensor, lr: float, count: int
    ) -> State:
        """Take one step on a batch."""

        def slope(theta: Tensor) -> Tensor:
            return grad(loss)(theta, x, y)

        fed, _ = self.solved(slope, state[0], slope(state[0]), lr)
        return self.step(state, fed, lr, count)

    def solved(
        self, slope: Slope, theta: Tensor, gradient: Tensor, lr: float
    ) -> tuple[Tensor, Tensor]:
        """Look for the gradient at the end of a step.

        Args:
            slope: Gives gradients.
            theta: Where the step starts (..., 2P).
            gradient: The gradient there (..., 2P).
            lr: Length of the step.

        Returns:
            The gradient (..., 2P), and the residual (...): by how much the gradient at the end
            differs from it, over its own length, in the metric of the steps.
        """
        unit = self._unit(theta)

        def gap(fed: Tensor) -> Tensor:
            return slope(self._ended(theta, fed, lr)) - fed

        fed = gradient
        tried, missed = [fed], [gap(fed)]
        # How stiff the step is along the gradient: what is mixed in of a gap, and no more.
        stiff = _length(missed[0] * unit) / _length(fed * unit).clamp_min(_NOTHING)
        share = (1 / (1 + stiff)).unsqueeze(-1).to(theta.dtype)
        for _ in range(self.gradients - 2):
            best, rest = _mixed(tried, missed, unit)
            tried.append(best + share * rest)
            missed.append(gap(tried[-1]))
        fed, _ = _mixed(tried, missed, unit)
        left = _length(gap(fed) * unit)
        return fed, left / _length(fed * unit).clamp_min(_NOTHING)

    def solution(
        self, slope: Slope, theta: Tensor, gradient: Tensor, lr: float
    ) -> tuple[Tensor, Tensor]:
        """Look for the gradient at the end of a step, and refuse one that is none.

        Args:
            slope: Gives gradients.
            theta: Where the step starts (..., 2P).
            gradient: The gradient there (..., 2P).
            lr: Length of the step.

        Returns:
            What `solved` gives.

        Raises:
            ValueError: If the step has no solution that these gradients come near.
        """
        fed, residual = self.solved(slope, theta, gradient, lr)
        # A gradient that is not finite to begin with is the training's affair, which ends there.
        lost = ~(residual <= UNSOLVED) & torch.isfinite(gradient).all(-1)
        if bool(lost.any()):
            worst = float(residual[lost].max())
            said = (
                f"misses by {worst:.2g} of its own length; give it more gradients, lower"
                if math.isfinite(worst)
                else "is not finite; lower"
            )
            raise ValueError(
                f"training.belief.implicit = {self.gradients} leaves a step of length {lr:g} "
                f"without a solution: the gradient at its end {said} training.lr, or leave "
                "implicit out"
            )
        return fed, residual

    def _unit(self, theta: Tensor) -> Tensor:
        """Length in the metric of what one unit of the gradient moves."""
        half = theta.shape[-1] // 2
        return torch.cat(
            [
                torch.full_like(theta[..., :half], self.width_rate**0.5),
                torch.ones_like(theta[..., half:]),
            ],
            dim=-1,
        )

    def compression(self) -> FollowsGradient:
        """It follows the gradient; steps with momentum, which stand for many, are explicit."""

        def heavy(mu: float, nesterov: bool) -> Transport:
            if not mu:
                return self
            return self.explicit(self.temperature, mu, nesterov, self.weight_decay, self.width_rate)

        return FollowsGradient(heavy, decay=self.weight_decay, euclidean=False)


@dataclass(frozen=True)
class ImplicitInformation(ImplicitTransport):
    """Proximal steps in the divergence: F(q) + KL(q | q_0)/lr is least where one ends."""

    name: str = "belief by implicit information"
    explicit: ClassVar[type[Transport]] = Information

    def _ended(self, theta: Tensor, fed: Tensor, lr: float) -> Tensor:
        width, mean = theta.chunk(2, dim=-1)
        along_width, along_mean = fed.chunk(2, dim=-1)
        variance = width.square()
        prior = 1 + lr * self.weight_decay * variance
        grown = _root(prior, lr * width * along_width, 1 + lr * self.temperature)
        return torch.cat([grown * width, (mean - lr * variance * along_mean) / prior], dim=-1)

    def _unit(self, theta: Tensor) -> Tensor:
        width = theta.chunk(2, dim=-1)[0]
        return torch.cat([0.5**0.5 * width, width], dim=-1)

    def learning_time(self, rates: float) -> None:
        """Steps in another metric are no gradient flow of theta."""
        del rates


IMPLICIT: dict[str, type[ImplicitTransport]] = {
    "transport": ImplicitTransport,
    "information": ImplicitInformation,
}
"""Update maps of beliefs with implicit steps by the name of their geometry in a recipe."""


def _root(kept: Tensor | float, pull: Tensor, pushed: float) -> Tensor:
    """The positive x with kept x^2 + pull x = pushed, without a difference that cancels."""
    root = (pull.square() + 4 * kept * pushed).sqrt()
    falling, rising = 2 * pushed / (root + pull.abs()), (root + pull.abs()) / (2 * kept)
    return torch.where(pull > 0, falling, rising)


def _length(rows: Tensor) -> Tensor:
    """Norms (...) in float64."""
    return torch.linalg.vector_norm(rows.double(), dim=-1)


def _mixed(tried: list[Tensor], missed: list[Tensor], unit: Tensor) -> tuple[Tensor, Tensor]:
    """Mix gradients, with weights of sum 1, so that what they miss together is least.

    Args:
        tried: Gradients (..., P).
        missed: What the gradient at the end of each step was beside it (..., P).
        unit: Weight of the components (..., P).

    Returns:
        The mixture, and what it misses if gradients are linear (..., P).
    """
    rows = torch.stack([(miss * unit).double() for miss in missed], dim=-2)
    # In units of their own: they differ by powers of ten. No derivative goes through the units.
    each = 1 / torch.linalg.vector_norm(rows, dim=-1).clamp_min(_NOTHING).detach()
    rows = rows * each.unsqueeze(-1)
    eye = torch.eye(len(missed), dtype=torch.float64, device=unit.device)
    weights = torch.linalg.solve(rows @ rows.mT + _RIDGE * eye, each.unsqueeze(-1)).squeeze(-1)
    weights = weights * each
    weights = (weights / weights.sum(-1, keepdim=True)).to(unit.dtype)
    parts = weights.unsqueeze(-1)
    return (
        (parts * torch.stack(tried, dim=-2)).sum(-2),
        (parts * torch.stack(missed, dim=-2)).sum(-2),
    )
