"""Projections of the gradient: off stored gradients (OGD), and off a conflict (A-GEM)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import jacrev

from capacity.base.differential import vmap
from capacity.base.interruption import check
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from capacity.strategies.contribution import Contribution
from capacity.strategies.terms import Private, Source
from capacity.tasks.task import Task
from capacity.training.steps import Observer, Watcher

_RANK = 1e-4
"""Directions fainter than this part of the strongest are rounding, not span."""


def without_conflict(gradient: Tensor, reference: Tensor) -> Tensor:
    """Take off a gradient what opposes another (A-GEM).

    Args:
        gradient: g (P,).
        reference: The memory's gradient (P,).

    Returns:
        g where g . reference >= 0; else the nearest vector with g . reference = 0.
    """
    overlap = gradient @ reference
    scale = (reference @ reference).clamp(min=torch.finfo(gradient.dtype).tiny)
    return gradient - (overlap.clamp(max=0) / scale) * reference


@dataclass(frozen=True, kw_only=True)
class OffRows:
    """g -> g - B'B g for orthonormal rows B (k, P); rows of zeros stand for nothing.

    Attributes:
        rows: Bases (R, k, P).
    """

    rows: Tensor

    @property
    def private(self) -> Private:
        """The bases."""
        return {"rows": self.rows}

    def apply(self, gradient: Tensor, private: Private) -> Tensor:
        """Project the gradient of one replica.

        Args:
            gradient: The gradient (P,).
            private: The replica's basis.

        Returns:
            The part orthogonal to it (P,).
        """
        rows = private["rows"]
        return gradient - (rows @ gradient) @ rows


def extended(rows: Tensor | None, more: Tensor) -> Tensor:
    """Extend orthonormal bases by the span of further vectors.

    Args:
        rows: Bases (R, k, P), or None.
        more: Vectors (R, j, P).

    Returns:
        Bases (R, k + j', P), j' <= j; zeros where a replica has fewer directions.
    """
    if rows is not None:
        for _ in range(2):  # twice: once leaves the rounding of nearly dependent vectors
            more = more - (more @ rows.mT) @ rows
    _, values, directions = torch.linalg.svd(more, full_matrices=False)
    strong = values > _RANK * values[:, :1].clamp(min=torch.finfo(more.dtype).tiny)
    directions = directions * strong[..., None]
    directions = directions[:, : int(strong.sum(1).max())]
    return directions if rows is None else torch.cat([rows, directions], dim=1)


@dataclass(frozen=True, kw_only=True)
class OGD:
    """Orthogonal gradient descent (Farajtabar et al. 2020), with all outputs of each sample.

    Every step is orthogonal to the gradients of the old outputs on stored samples, which therefore
    stay as they are to first order - for SGD and momentum; adaptive optimisers rescale the
    projected gradient and leave the space. Kept are R k P numbers, k = samples x outputs per task.

    Attributes:
        samples: Most samples per old task whose gradients are kept.
    """

    samples: int = 20
    name: str = "ogd"

    def watch(self, state: Any) -> Watcher | None:
        """Nothing needs to see the steps."""
        del state
        return None

    @torch.no_grad()
    def prepare(
        self,
        model: FlatModel,
        theta: Tensor,
        old: tuple[Task, ...],
        state: Tensor | None,
        source: Source,
        watched: Observer | None = None,
    ) -> Tensor:
        """Add the gradients of the task just learned to the basis."""
        del source, watched
        task = old[-1]
        x = task.train.first(self.samples).x
        check()

        def gradients(t: Tensor) -> Tensor:
            return jacrev(lambda p: task.select(model.outputs(p, x)).flatten())(t)

        return extended(state, vmap(gradients)(theta))

    def contribution(
        self,
        model: FlatModel,
        old: tuple[Task, ...],
        new: Task,
        training: Training,
        state: Tensor,
        source: Source,
    ) -> Contribution:
        """Project on what is orthogonal to the basis."""
        del model, old, new, source
        return Contribution(training=training, projector=OffRows(rows=state))
