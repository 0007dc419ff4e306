"""How a Gaussian belief learns: two geometries of the free energy E_q[L] - tau H[q].

Both step theta = (widths, means), 2P numbers, along the gradient of E_q[L] in them, which a belief
(`capacity.networks.belief`) estimates by common random numbers; the entropy's part is exact
(theory.md#belief).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from capacity.base.checks import positive_float
from capacity.optimizers.dynamics import Dynamics
from capacity.optimizers.optimizer import FollowsGradient, Optimizer
from capacity.optimizers.update_map import State, decayed
from capacity.recipe.config import Training


@dataclass(frozen=True)
class Transport(Optimizer):
    """Gradient flow of F in the Wasserstein metric of Gaussians: d mean = -grad, d width likewise.

    In (widths, means) that metric is Euclid's. The entropy's force tau/width is taken implicitly,
    width+ = (w + sqrt(w^2 + 4 tau lr))/2 with w the plain step, so that no width reaches 0, and a
    quadratic of curvature a settles at exactly tau/a for every stable step.

    Attributes:
        temperature: tau, above 0.
        momentum: Of a heavy ball on the gradient, at least 0 and below 1.
        nesterov: Step along g + momentum m instead of m.
        weight_decay: Of the quadratic prior decay/2 E|theta|^2, added to the loss.
        width_rate: Learning rate of the widths over that of the means, above 0: their part of the
            metric is divided by it.
    """

    temperature: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    width_rate: float = 1.0
    name: str = "belief by transport"
    anchored = True

    def __post_init__(self) -> None:
        positive_float("temperature", self.temperature)
        positive_float("width_rate", self.width_rate)

    @classmethod
    def from_plan(cls, training: Training) -> Self:
        """Build what a plan with a belief asks for.

        Args:
            training: The plan.

        Returns:
            The update map.
        """
        assert training.temperature is not None, "a plan with a belief has a temperature"
        assert training.belief is not None, "only beliefs are moved so"
        return cls(
            training.temperature,
            weight_decay=training.weight_decay,
            width_rate=training.belief.width_rate,
        )

    def init(self, theta: Tensor) -> State:
        """Start from theta, at rest: (theta,), with momentum (theta, 0)."""
        return (theta, torch.zeros_like(theta)) if self.momentum else (theta,)

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step."""
        del count
        theta, *moments = state
        aim = gradient = decayed(gradient, theta, self.weight_decay)
        if moments:
            moments = [self.momentum * moments[0] + gradient]
            aim = gradient + self.momentum * moments[0] if self.nesterov else moments[0]
        return (self._moved(theta, aim, lr, lr / (1 - self.momentum)), *moments)

    def _moved(self, theta: Tensor, aim: Tensor, lr: float, time: float) -> Tensor:
        """Move along `aim`, while the entropy's force acts for `time`."""
        moved = torch.add(theta, aim, alpha=-lr)
        half = theta.shape[-1] // 2
        width, time = moved[..., :half], self.width_rate * time
        if self.width_rate != 1:
            width = width + lr * (1 - self.width_rate) * aim[..., :half]
        # In place only what derivatives do not come back to.
        root = width.square().add_(4 * time * self.temperature).sqrt()
        # (w + root)/2 cancels where w < 0; this is the same, and a sum of what is not below 0.
        opened = 2 * time * self.temperature / (root + width.abs())
        return torch.cat([width.relu().add(opened), moved[..., half:]], dim=-1)

    def learning_time(self, rates: float) -> float | None:
        """The rates' sum, that of the heavy ball's limit with momentum."""
        return rates / (1 - self.momentum)

    def dynamics(self, *, full: bool) -> Dynamics:
        """No ensemble of points."""
        del full
        return Dynamics.OTHER

    def compression(self) -> FollowsGradient:
        """It follows the gradient."""

        def heavy(mu: float, nesterov: bool) -> Transport:
            return replace(self, momentum=mu, nesterov=nesterov)

        return FollowsGradient(
            heavy, self.momentum, self.nesterov, self.weight_decay, euclidean=False
        )


@dataclass(frozen=True)
class Information(Transport):
    """Gradient flow of F in the Fisher-Rao metric: variational inference by natural gradients.

    d mean = -width^2 g_mean and d log width = -(width g_width - tau)/2. Stepped in the logarithm,
    so that no width reaches 0. With E[d2 L] = g_width/width this is the variational online Newton
    method (Khan et al. 2018, arXiv 1806.04854) that IVON improves, with its learning rate; a
    `width_rate` below 1 averages the curvature over as many more steps, as IVON's running mean.
    """

    name: str = "belief by information"

    def _moved(self, theta: Tensor, aim: Tensor, lr: float, time: float) -> Tensor:
        width, mean = theta.chunk(2, dim=-1)
        along_width, along_mean = aim.chunk(2, dim=-1)
        pace = 0.5 * self.width_rate
        grown = (width * along_width).mul_(-pace * lr).add_(pace * time * self.temperature).exp_()
        moved = torch.addcmul(mean, width.square(), along_mean, value=-lr)
        return torch.cat([grown * width, moved], dim=-1)

    def learning_time(self, rates: float) -> None:
        """Steps in another metric are no gradient flow of theta."""
        del rates


GEOMETRIES: dict[str, type[Transport]] = {"transport": Transport, "information": Information}
"""Update maps of beliefs by the name of their geometry in a recipe."""
