"""Projections of the gradient: off stored gradients (OGD), and off a conflict (A-GEM)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.strategies.terms import Private

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
