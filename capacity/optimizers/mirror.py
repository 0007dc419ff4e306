"""Mirror descent in a separable potential: steps of equal length where the potential is flat."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from capacity.base.checks import one_of, positive_float
from capacity.optimizers.dynamics import Dynamics
from capacity.optimizers.optimizer import FollowsGradient, Optimizer
from capacity.optimizers.update_map import State, decayed

POTENTIALS = ("hypentropy", "p-norm")
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
_LONGEST = 0.5
"""Longest piece, in asinh(theta/width), that the nodes integrate to the last digits."""


@dataclass(frozen=True)
class Mirror(Optimizer):
    """psi'(theta) <- psi'(theta) - lr m, with m the gradient, or its heavy ball.

    Two potentials psi, each a sum over parameters. `hypentropy` (Ghai et al. 2020,
    arXiv 1902.01903), psi'' = (theta^2 + width^2)^{-1/2}, takes steps in proportion to a parameter
    that is larger than the width, and plain ones at the rate lr * width below it. `p-norm`,
    psi = |theta|^p / p, is plain descent at p = 2; sparse below it, where a parameter that is
    exactly 0 has no finite metric, and its Jacobian none either.

    Attributes:
        potential: `hypentropy` or `p-norm`.
        width: Of hypentropy, above 0, in the unit of theta.
        p: Of the p-norm, above 1.
        momentum: Of a heavy ball on psi'(theta), at least 0 and below 1.
        nesterov: Step along g + momentum m instead of m.
        weight_decay: L2 coefficient, added to the gradient.
    """

    potential: str = "hypentropy"
    width: float = 1.0
    p: float = 2.0
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    name: str = "mirror"
    elementwise = anchored = True

    def __post_init__(self) -> None:
        one_of("options.potential", self.potential, POTENTIALS)
        positive_float("options.width", self.width)
        if not 1 < self.p < float("inf"):
            raise ValueError(
                f"options.p = {self.p:g} gives no strictly convex potential |theta|^p; give a "
                "number above 1, as 3, or 2 for plain descent"
            )
        if not 0 <= self.momentum < 1:
            raise ValueError(
                f"options.momentum = {self.momentum:g}; give a number from 0 to below 1, as 0.9"
            )

    def init(self, theta: Tensor) -> State:
        """Start from theta, at rest: (theta,), with momentum (theta, 0)."""
        return (theta, torch.zeros_like(theta)) if self.momentum else (theta,)

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step."""
        del count
        theta, *moments = state
        gradient = decayed(gradient, theta, self.weight_decay)
        aim = gradient
        if moments:
            moments = [self.momentum * moments[0] + gradient]
            aim = gradient + self.momentum * moments[0] if self.nesterov else moments[0]
        # What nothing moves stays to the last bit, and where the p-norm has no slope, too.
        idle = aim == 0
        safe = torch.where(idle, torch.ones_like(theta), theta)
        moved = self._back(self._dual(safe) - lr * aim)
        return (torch.where(idle, theta, moved), *moments)

    def _dual(self, theta: Tensor) -> Tensor:
        """psi'(theta)."""
        if self.potential == "hypentropy":
            return torch.asinh(theta / self.width)
        return theta.sign() * theta.abs() ** (self.p - 1)

    def _back(self, dual: Tensor) -> Tensor:
        """Theta of psi'(theta)."""
        if self.potential == "hypentropy":
            return self.width * torch.sinh(dual)
        return dual.sign() * dual.abs() ** (1 / (self.p - 1))

    @property
    def geometry(self) -> str:
        """The potential, with its parameter."""
        if self.potential == "hypentropy":
            return f"hypentropy, width {self.width:g}"
        return f"{self.p:g}-norm"

    def flat_move(self, before: Tensor, after: Tensor) -> Tensor:
        """Integrate sqrt(psi'') between two points, in closed form or by Gauss-Legendre."""
        before, after = before.double(), after.double()
        if self.potential == "p-norm":
            ends = [x.sign() * x.abs() ** (self.p / 2) for x in (before, after)]
            return 2 * (self.p - 1) ** 0.5 / self.p * (ends[1] - ends[0])
        # In u = asinh(theta/width) the integrand is sqrt(width cosh u).
        first, last = (torch.asinh(x / self.width) for x in (before, after))
        pieces = max(1, int(((last - first).abs().amax() / _LONGEST).nan_to_num(1.0).ceil()))
        half, total = (last - first) / (2 * pieces), torch.zeros_like(before)
        for piece in range(pieces):
            middle = first + (2 * piece + 1) * half
            for node, weight in zip(_NODES.tolist(), _WEIGHTS.tolist(), strict=True):
                total += weight * torch.cosh(middle + node * half).sqrt()
        return total * half * self.width**0.5

    def learning_time(self, rates: float) -> None:
        """Steps in another metric are no gradient flow of theta."""
        del rates

    def dynamics(self, *, full: bool) -> Dynamics:
        """No free energy is dissipated at a rate E|v|^2 of theta."""
        del full
        return Dynamics.OTHER

    def compression(self) -> FollowsGradient:
        """It follows the gradient, as heavy ball does, in psi'(theta)."""

        def heavy(mu: float, nesterov: bool) -> Mirror:
            return replace(self, momentum=mu, nesterov=nesterov)

        return FollowsGradient(
            heavy, self.momentum, self.nesterov, self.weight_decay, euclidean=False
        )
