"""The soft projector M = (1 + s G_A)^-1: every direction is kept as far as it can afford.

With s = d^2 / 2a a direction of curvature lambda is kept by the share 1 / (1 + lambda / lambda*),
lambda* = 2 a / d^2 being where the hard projector cuts: one half there, and no cut to choose where
the spectrum has no gap.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.base.checks import positive_float
from capacity.base.interruption import check
from capacity.krylov.lanczos import Operator
from capacity.records.estimate import Estimate, Status

_MOST_STEPS = 200


@dataclass(frozen=True)
class Shrunk:
    """What the soft projector gives.

    Attributes:
        vectors: M V (K, P).
        error: Largest relative residual |V - (1 + s G) M V| / |V|; `not_converged` where the steps
            ran out. As 1 + s G is at least 1, it bounds the error relative to |V|.
    """

    vectors: Tensor
    error: Estimate


@dataclass(frozen=True, kw_only=True)
class SoftPreserving:
    """M = (1 + s G)^-1 as an operator.

    Attributes:
        curvature: The old tasks' GGN G on rows.
        strength: s = d^2 / 2a > 0.
        tolerance: Relative residual at which conjugate gradients stop.
    """

    curvature: Operator
    strength: float
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        positive_float("strength", self.strength)
        positive_float("tolerance", self.tolerance)

    @torch.no_grad()
    def apply(self, vectors: Tensor) -> Shrunk:
        """Multiply with M, by conjugate gradients.

        Args:
            vectors: V (K, P).

        Returns:
            M V with its error.
        """
        b = vectors
        x, r = torch.zeros_like(b), b.clone()
        p, squared = r.clone(), r.double().square().sum(-1)
        start = squared.clamp(min=1e-300)
        steps = 0
        while steps < _MOST_STEPS and bool((squared > self.tolerance**2 * start).any()):
            check()
            image = p + self.strength * self.curvature(p)
            slope = (p.double() * image.double()).sum(-1)
            # A row that has converged has p = 0: it stays where it is.
            step = torch.where(slope > 0, squared / slope.clamp(min=1e-300), 0.0).to(b.dtype)
            x = x + step[:, None] * p
            r = r - step[:, None] * image
            now = r.double().square().sum(-1)
            p = r + (now / squared.clamp(min=1e-300)).to(b.dtype)[:, None] * p
            squared, steps = now, steps + 1
        # Measured, not recurred: rounding lets the two drift apart.
        residual = b - x - self.strength * self.curvature(x)
        error = float((residual.double().norm(dim=-1) / start.sqrt()).max()) if len(b) else 0.0
        done = error <= 10 * max(self.tolerance, torch.finfo(b.dtype).eps * steps)
        return Shrunk(
            x,
            Estimate(
                value=error,
                status=Status.OK if done else Status.NOT_CONVERGED,
                cost=float(len(b) * (steps + 1)),
                note="" if done else f"Conjugate gradients stopped after {steps} steps.",
            ),
        )
