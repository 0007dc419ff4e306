"""log|det J_t|, accumulated step by step (theory, section 2).

Never from a composed J, whose smallest singular values are lost to rounding: for plain SGD
log|det J_t| = sum_k log|det(1 - lr H_k)|, each term by stochastic Lanczos quadrature with fresh
probes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from capacity.curvature.lanczos import quadrature, random_signs
from capacity.dynamics.updates import UpdateMap
from capacity.estimate import Estimate, from_error, not_defined
from capacity.transport.hessian_products import HessianProducts

_TINY = 1e-12


class LogVolume:
    """Accumulates log|det J_t| while training runs, or over a stored trajectory."""

    def __init__(
        self,
        products: HessianProducts,
        update: UpdateMap,
        *,
        probes: int,
        nodes: int,
        generator: torch.Generator,
    ) -> None:
        self._products, self._update = products, update
        self._probes, self._nodes, self._generator = probes, nodes, generator
        self._values: list[Tensor] = []
        self._variances: list[Tensor] = []
        self._folds = 0

    @torch.no_grad()
    def observe(self, theta: Tensor, x: Tensor, y: Tensor, lr: float) -> None:
        """Add one step. Steps of an optimiser with moments are passed over.

        Args:
            theta: Parameters before the step (P,).
            x: Inputs of the batch.
            y: Targets of the batch.
            lr: Learning rate.
        """
        if not self._update.plain:
            return
        size = theta.numel()
        z = random_signs(self._probes, theta, self._generator)
        nodes, weights = quadrature(lambda v: self._products(theta, x, y, v), z, self._nodes)
        shrink = (1 - lr * nodes).abs().clamp(min=_TINY)
        samples = size * (weights * shrink.log()).sum(-1)
        self._values.append(samples.mean())
        self._variances.append(samples.var() / self._probes)
        self._folds += int((lr * nodes > 1).any())

    @property
    def steps(self) -> Tensor:
        """log|det| of every step so far, float64."""
        return torch.stack(self._values) if self._values else torch.zeros(0, dtype=torch.float64)

    def estimate(self) -> Estimate:
        """Sum up.

        Returns:
            log|det J_t| in nats with its standard error over probes; `not_defined` for an
            optimiser with moments.
        """
        if not self._update.plain:
            return not_defined(
                f"The determinant of a {self._update.name} step on (theta, moments) is a constant "
                "of the optimiser, whatever the loss; it says nothing about theta."
            )
        if not self._values:
            return not_defined("No step was taken.")
        count = len(self._values)
        value = float(self.steps.sum())
        stderr = math.sqrt(float(torch.stack(self._variances).sum()))
        note = ""
        if self._folds:
            note = (
                f"lr times curvature exceeds 1 in {self._folds} of {count} steps: the map folds "
                "there, and the value is only an upper bound of the entropy change."
            )
        return from_error(
            value,
            stderr,
            n=self._probes,
            cost=float(count * self._probes * self._nodes),
            note=note,
        )
