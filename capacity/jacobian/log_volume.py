"""log|det J_t|, accumulated step by step (theory.md#log-volume).

Never from a composed J, whose smallest singular values are lost to rounding: for SGD and Langevin
dynamics, whose steps are symmetric, log|det J_t| = sum_k log|det(1 - lr (H_k + decay))|, each term
by stochastic Lanczos quadrature with fresh probes. Other steps: `framed_log_volume`.
"""

from __future__ import annotations

import math
from array import array

import torch
from torch import Tensor

from capacity.base.on_host import read
from capacity.jacobian.precision import Products
from capacity.jacobian.trajectory import TrainingStep
from capacity.krylov.lanczos import Quadrature, random_signs
from capacity.optimizers.optimizer import stated
from capacity.optimizers.update_map import UpdateMap
from capacity.records.estimate import Estimate, from_error, not_defined

_TINY = 1e-12

_NEAR = 0.7
"""lr times curvature from which the default's few nodes are not enough."""

_MANY = 24
"""Nodes there; the quadrature's error is judged by half of them."""


class LogVolume:
    """Accumulates log|det J_t| while training runs, or over a stored trajectory."""

    def __init__(
        self,
        products: Products,
        update: UpdateMap,
        *,
        probes: int,
        nodes: int,
        generator: torch.Generator,
    ) -> None:
        self._products, self._update = products, update
        self._probes, self._nodes, self._generator = probes, nodes, generator
        # Numbers, not tensors: a tensor takes half a kilobyte, and a training many steps.
        self._values, self._variances = array("d"), array("d")
        self._folds, self._bias, self._cost = 0, 0.0, 0

    @torch.no_grad()
    def observe(self, step: TrainingStep) -> None:
        """Add one step. Steps that are not symmetric are passed over.

        Args:
            step: The step.
        """
        decay = stated(step.update).symmetric_decay
        if decay is None:
            return
        theta, lr = step.state[0], step.lr
        size = theta.numel()
        z = random_signs(self._probes, theta, self._generator)

        def product(v: Tensor) -> Tensor:
            self._cost += self._probes
            return self._products(theta, step.x, step.y, v)

        found = Quadrature(product, z)

        def sampled(count: int) -> tuple[Tensor, Tensor]:
            nodes, weights = found.nodes(count)
            nodes = nodes + decay
            shrink = (1 - lr * nodes).abs().clamp(min=_TINY)
            return size * (weights * shrink.log()).sum(-1), nodes

        samples, nodes = sampled(self._nodes)
        near, folds, mean, variance = read(
            (lr * nodes > _NEAR).any(), (lr * nodes > 1).any(), samples.mean(), samples.var()
        )
        if near:
            # The logarithm's pole lies at the spectrum's edge or inside it: a few nodes are far
            # off, and all probes in the same way.
            coarse = sampled(_MANY // 2)[0]
            samples, nodes = sampled(_MANY)
            bias, folds, mean, variance = read(
                (samples - coarse).mean(), (lr * nodes > 1).any(), samples.mean(), samples.var()
            )
            self._bias += bias
        self._values.append(mean)
        self._variances.append(variance / self._probes)
        self._folds += int(folds)

    def state(self) -> dict[str, Tensor]:
        """Give what `restore` needs to go on from here; the generator is its owner's.

        Returns:
            Values and variances per step, and the count of folds.
        """
        made = {
            "folds": torch.tensor(self._folds),
            "cost": torch.tensor(self._cost),
            "bias": torch.tensor(self._bias, dtype=torch.float64),
        }
        if self._values:
            made["values"] = _tensor(self._values)
            made["variances"] = _tensor(self._variances)
        return made

    def restore(self, kept: dict[str, Tensor]) -> None:
        """Go on where `state` was taken.

        Args:
            kept: What `state` gave.
        """
        self._folds, self._bias = int(kept["folds"]), float(kept["bias"])
        self._cost = int(kept["cost"])
        if "values" in kept:
            self._values = array("d", kept["values"].tolist())
            self._variances = array("d", kept["variances"].tolist())

    @property
    def steps(self) -> Tensor:
        """log|det| of every step so far, float64."""
        return _tensor(self._values)

    def estimate(self) -> Estimate:
        """Sum up.

        Returns:
            log|det J_t| in nats with its standard error over probes; `not_defined` for steps that
            are not symmetric.
        """
        if stated(self._update).symmetric_decay is None:
            return not_defined(f"A {self._update.name} step is not symmetric.")
        if not self._values:
            return not_defined("No step was taken.")
        count = len(self._values)
        value = math.fsum(self._values)
        stderr = math.sqrt(math.fsum(self._variances))
        note = ""
        if self._folds:
            note = (
                f"lr times curvature exceeds 1 in {self._folds} of {count} steps: the map folds "
                "there, and the value is only an upper bound of the entropy change."
            )
        return from_error(
            value,
            # What half the nodes would have said is no worse than the truth: its distance bounds
            # the quadrature's own error, which the probes share.
            math.hypot(stderr, self._bias),
            n=self._probes,
            cost=float(self._cost),
            note=note,
        )


def _tensor(numbers: array[float]) -> Tensor:
    return torch.tensor(numbers.tolist(), dtype=torch.float64)
