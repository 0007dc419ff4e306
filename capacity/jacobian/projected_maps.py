"""J_t seen through projectors: on preserving directions, or on the parameters of one layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from capacity.krylov.lanczos import random_signs

Projector = Callable[[Tensor], Tensor]
"""Rows (K, P) to rows (K, P), symmetric and idempotent. An attribute `rank`, where it has one, says
the dimension of its range."""

DENSE_LIMIT = 2000
"""Largest dimension whose map is written out as a matrix (32 MB in float64)."""


class SquareMap(Protocol):
    """A linear map on R^P that is only multiplied with.

    Attributes:
        size: P.
        products: Vectors pushed `forward`, and pulled back (`adjoint`), so far.
    """

    size: int
    products: dict[str, int]

    @property
    def like(self) -> Tensor:
        """A vector of theta's size, dtype and device."""

    def forward(self, tangents: Tensor) -> Tensor:
        """Map rows (K, P)."""

    def adjoint(self, cotangents: Tensor) -> Tensor:
        """Map rows (K, P) by the transpose."""


@dataclass(frozen=True)
class Coordinates:
    """The projector on some of the parameters.

    Attributes:
        first: First parameter of theta that stays.
        rank: How many stay.
    """

    first: int
    rank: int

    def __call__(self, rows: Tensor) -> Tensor:
        """Set the other parameters to 0.

        Args:
            rows: Vectors (K, P).

        Returns:
            Their projections.
        """
        kept = torch.zeros_like(rows)
        part = slice(self.first, self.first + self.rank)
        kept[:, part] = rows[:, part]
        return kept


class Restricted:
    """E J S for projectors S at the start of training and E at its end, reapplied each time.

    Attributes:
        size: P.
        products: Those of J.
    """

    def __init__(self, inner: SquareMap, start: Projector, end: Projector) -> None:
        self._inner, self._start, self._end = inner, start, end
        self.size, self.products = inner.size, inner.products

    @property
    def like(self) -> Tensor:
        """A vector of theta's size, dtype and device."""
        return self._inner.like

    def forward(self, tangents: Tensor) -> Tensor:
        """Push tangents of theta_0 to theta_t.

        Args:
            tangents: Rows (K, P).

        Returns:
            Their images (K, P).
        """
        return self._end(self._inner.forward(self._start(tangents)))

    def adjoint(self, cotangents: Tensor) -> Tensor:
        """Pull cotangents of theta_t back to theta_0.

        Args:
            cotangents: Rows (K, P).

        Returns:
            Their images (K, P).
        """
        return self._start(self._inner.adjoint(self._end(cotangents)))


class Deviation:
    """J - 1 on the range of a projector: what training did beside leaving differences alone.

    Attributes:
        size: P.
        products: Those of J.
    """

    def __init__(self, inner: SquareMap) -> None:
        self._inner = inner
        self.size, self.products = inner.size, inner.products

    @property
    def like(self) -> Tensor:
        """A vector of theta's size, dtype and device."""
        return self._inner.like

    def forward(self, tangents: Tensor) -> Tensor:
        """Map tangents in the range.

        Args:
            tangents: Rows (K, P).

        Returns:
            J V - V (K, P).
        """
        return self._inner.forward(tangents) - tangents

    def adjoint(self, cotangents: Tensor) -> Tensor:
        """Map cotangents in the range.

        Args:
            cotangents: Rows (K, P).

        Returns:
            J'U - U (K, P).
        """
        return self._inner.adjoint(cotangents) - cotangents


def check_projector(projector: Projector, like: Tensor, generator: torch.Generator) -> None:
    """Refuse what is no orthogonal projector of theta's space; a few random vectors tell.

    Args:
        projector: The candidate.
        like: A vector (P,) of theta's size, dtype and device.
        generator: Source of the random vectors.

    Raises:
        ValueError: If it takes or returns another size, is not idempotent or not symmetric, or maps
            everything to 0.
    """
    size = like.numel()
    x, y = random_signs(2, like, generator), random_signs(2, like, generator)
    try:
        once = projector(x)
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"projector does not take rows of length P = {size}: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(once, Tensor) or once.shape != x.shape:
        came = tuple(once.shape) if isinstance(once, Tensor) else type(once).__name__
        raise ValueError(f"projector maps rows (2, {size}) to {came}; it must keep their shape")
    twice, other = projector(once), projector(y)
    scale = float(once.double().norm()) / 2**0.5
    bound = 1e3 * torch.finfo(like.dtype).eps * size**0.5
    off = float((twice - once).double().norm())
    if not off <= bound:
        raise ValueError(
            f"projector is not idempotent: applied twice it moves random rows by {off:.2g} more; "
            "pass v -> v - (v U') U with orthonormal rows U, or the like"
        )
    if scale <= bound:
        raise ValueError("projector maps random rows to 0; nothing is left to resolve")
    skew = float(((once * y).sum(-1) - (x * other).sum(-1)).abs().max())
    if not skew <= bound * size**0.5:
        raise ValueError(
            f"projector is not symmetric: <Px, y> and <x, Py> differ by {skew:.2g} on random rows; "
            "an oblique projection has no spectrum of its own here"
        )


def rank_of(projector: Projector | None, size: int) -> int | None:
    """Read the dimension of a projector's range.

    Args:
        projector: The projector; None is the identity.
        size: P.

    Returns:
        The dimension, or None where it does not say.
    """
    if projector is None:
        return size
    rank = getattr(projector, "rank", None)
    return rank if isinstance(rank, int) else None


def dense_size(projector: Projector | None, size: int) -> int:
    """Say how large the vectors are that writing a map out takes.

    Args:
        projector: The projector; None is the identity.
        size: P.

    Returns:
        The rank of a projector on coordinates, whose basis is known; else P.
    """
    return projector.rank if isinstance(projector, Coordinates) else size


def range_basis(projector: Projector | None, like: Tensor) -> Tensor:
    """Write out an orthonormal basis of a projector's range (small P only).

    Args:
        projector: The projector; None is the identity.
        like: A vector (P,) of theta's size, dtype and device.

    Returns:
        Rows (rank, P).
    """
    if isinstance(projector, Coordinates):
        rows = like.new_zeros(projector.rank, like.numel())
        rows[:, projector.first : projector.first + projector.rank].fill_diagonal_(1.0)
        return rows
    eye = torch.eye(like.numel(), dtype=like.dtype, device=like.device)
    if projector is None:
        return eye
    matrix = projector(eye).double()
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return vectors[:, values > 0.5].T.to(like.dtype)


def dense_matrix(operator: SquareMap, basis: Tensor) -> Tensor:
    """Write a map out in a basis (small P only): one forward product per row of the basis.

    Args:
        operator: The map.
        basis: Orthonormal rows (r, P).

    Returns:
        The matrix (r, r), float64.
    """
    assert len(basis) <= DENSE_LIMIT
    return (operator.forward(basis).double() @ basis.double().T).T
