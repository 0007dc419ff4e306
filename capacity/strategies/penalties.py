"""Penalties on leaving the old weights: quadratics in delta theta (theory.md#strategies)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import grad

from capacity.base.differential import pullback
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.conditioner import Curvature
from capacity.strategies.importance import true_fisher
from capacity.strategies.terms import Private
from capacity.tasks.task import Split, Task


@dataclass(frozen=True, kw_only=True)
class Quadratic:
    """offset + slope'd + 1/2 sum_i curvature_i d_i^2 with d = theta - anchor, per replica.

    Diagonal penalties of many old tasks, each with its own minimum, add up to one of these:
    3 R P + R numbers, however many tasks there were.

    Attributes:
        anchor: Where it is written out (R, P), the weights after the last old task.
        curvature: Second derivatives (R, P), at least 0.
        slope: First derivatives at the anchor (R, P).
        offset: Values at the anchor (R,).
    """

    anchor: Tensor
    curvature: Tensor
    slope: Tensor
    offset: Tensor

    @classmethod
    def around(cls, anchor: Tensor, curvature: Tensor) -> Quadratic:
        """Make a penalty that is 0, and least, at the anchor.

        Args:
            anchor: Weights (R, P).
            curvature: Second derivatives (R, P).

        Returns:
            The penalty.
        """
        return cls(
            anchor=anchor,
            curvature=curvature,
            slope=torch.zeros_like(anchor),
            offset=anchor.new_zeros(len(anchor)),
        )

    def plus(self, other: Quadratic) -> Quadratic:
        """Add another penalty; the sum is written out at the other's anchor.

        Args:
            other: The penalty of a later task.

        Returns:
            The sum.
        """
        # Deltas, not expanded squares of theta: in float32 those cancel.
        moved = other.anchor - self.anchor
        change = (self.slope + 0.5 * self.curvature * moved) * moved
        return replace(
            other,
            curvature=other.curvature + self.curvature,
            slope=other.slope + self.slope + self.curvature * moved,
            offset=other.offset + self.offset + change.sum(-1),
        )

    def gradient(self, theta: Tensor) -> Tensor:
        """Differentiate it.

        Args:
            theta: Parameters (R, P).

        Returns:
            The gradients (R, P).
        """
        return self.slope + self.curvature * (theta - self.anchor)

    @property
    def private(self) -> Private:
        """Its four tensors."""
        return {
            "anchor": self.anchor,
            "curvature": self.curvature,
            "slope": self.slope,
            "offset": self.offset,
        }

    def value(self, theta: Tensor, private: Private) -> Tensor:
        """Evaluate it for one replica.

        Args:
            theta: Parameters (P,).
            private: The replica's own tensors.

        Returns:
            A scalar.
        """
        moved = theta - private["anchor"]
        bent = private["slope"] + 0.5 * private["curvature"] * moved
        return private["offset"] + (bent * moved).sum()

    def second_derivative(self, private: Private) -> Curvature:
        """Give its second derivative for one replica.

        Args:
            private: The replica's own tensors.

        Returns:
            A diagonal matrix.
        """
        diagonal = private["curvature"]
        return Curvature(diagonal, lambda u: diagonal * u)


@dataclass(frozen=True, kw_only=True)
class GaussNewton:
    """strength/2 sum_k d_k' G_k d_k, d_k = theta - theta_k, G_k the whole Gauss-Newton matrix.

    Never formed: d'Gd is (Phi d)' H_out (Phi d) over task k's samples, one JVP at theta_k. A
    step costs that JVP and its reverse, a few gradients, over all kept samples of all old tasks;
    kept are R P weights and the samples per task.

    Attributes:
        model: The network.
        tasks: The old tasks.
        samples: The samples of each behind its matrix.
        anchors: Weights after each old task (R, K, P).
        strength: Weight in the loss.
    """

    model: FlatModel
    tasks: tuple[Task, ...]
    samples: tuple[Split, ...]
    anchors: Tensor
    strength: float

    @property
    def private(self) -> Private:
        """The anchors."""
        return {"anchors": self.anchors}

    def value(self, theta: Tensor, private: Private) -> Tensor:
        """Evaluate it for one replica.

        Args:
            theta: Parameters (P,).
            private: The replica's anchors (K, P).

        Returns:
            A scalar.
        """
        total = theta.new_zeros(())
        for task, split, anchor in self._parts(private):
            change, bent, _ = self._bent(task, split, anchor, theta - anchor)
            total = total + (change * bent).sum()
        return 0.5 * self.strength * total

    def second_derivative(self, private: Private) -> Curvature:
        """Give its second derivative for one replica.

        Args:
            private: The replica's anchors (K, P).

        Returns:
            The matrix, never formed; its diagonal is that of the true Fisher information.
        """
        parts = list(self._parts(private))
        fishers = [true_fisher(self.model, a[None], task, s)[0] for task, s, a in parts]

        def product(u: Tensor) -> Tensor:
            total = torch.zeros_like(u)
            for task, split, anchor in parts:
                _, bent, pull = self._bent(task, split, anchor, u)
                total = total + pull(bent)[0]
            return self.strength * total

        return Curvature(self.strength * torch.stack(fishers).sum(0), product)

    def _parts(self, private: Private) -> Iterator[tuple[Task, Split, Tensor]]:
        return zip(self.tasks, self.samples, private["anchors"], strict=True)

    def _bent(
        self, task: Task, split: Split, anchor: Tensor, moved: Tensor
    ) -> tuple[Tensor, Tensor, Callable[..., Any]]:
        """Phi d, H_out Phi d, and the transpose of Phi."""
        # Reverse mode only, so that the traced Hessian products of J_t can go through: the VJP is
        # linear in its cotangent, and the transpose of that is the JVP.
        outputs, pull = pullback(lambda t: self.model.outputs(t, split.x), anchor)
        _, push = pullback(lambda u: pull(u)[0], torch.zeros_like(outputs))
        (change,) = push(moved)
        _, bend = pullback(lambda f: grad(task.loss_of)(f, split.y), outputs)
        return change, bend(change)[0], pull
