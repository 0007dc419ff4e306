"""One block Krylov space of a map and its adjoint, and everything that it knows of the spectrum.

Block Golub-Kahan bidiagonalisation with full reorthogonalisation: from b random probes Z, sweep
after sweep of forward and adjoint products builds orthonormal bases Q (of the block Krylov space of
J'J) and W (of its image), in which J is the small matrix H = W J Q'. The singular triplets of H
approximate those of J, from the top down; their overlaps with the probes are the quadrature of the
probes' spectral measures (`spectral_measure`). A space shared by all probes resolves far more
than one Lanczos recurrence per probe at the same number of products.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.base.interruption import check
from capacity.krylov.lanczos import Operator, orthonormal


@dataclass(frozen=True, kw_only=True)
class SingularSpace:
    """A block Krylov space, and the Ritz triplets in it, largest value first.

    Attributes:
        values: Ritz values s_j (d,), float64; each is at most the singular value of its rank, and
            counted from the smallest at least that one.
        residuals: Some singular value of J lies within residuals[j] of values[j] (d,).
        right_overlaps: z_i . v_j (b, d).
        left_overlaps: z_i . u_j (b, d); 0 where s_j is 0 and has no u_j.
        lengths: |z_i|^2 (b,).
        small: H (w, d), float64.
        starts: Probes in the basis of the space (b, d).
        blocks: Vectors that each sweep added; they add up to d.
        history: residuals / values after every sweep; one tensor per sweep.
        closed: Whether the space is invariant: more sweeps would bring nothing.
        products: Vectors pushed forward, and pulled back.
    """

    values: Tensor
    residuals: Tensor
    right_overlaps: Tensor
    left_overlaps: Tensor
    lengths: Tensor
    small: Tensor
    starts: Tensor
    blocks: tuple[int, ...]
    history: tuple[Tensor, ...]
    closed: bool
    products: tuple[int, int]
    _bases: tuple[Tensor, Tensor]
    _rotations: tuple[Tensor, Tensor]

    @property
    def sweeps(self) -> int:
        """Forward-and-adjoint passes spent."""
        return len(self.blocks)

    @property
    def complete(self) -> bool:
        """Whether the space is the whole one, so that its values are the singular values."""
        return len(self.values) == self._bases[0].shape[1]

    def right(self, count: int) -> Tensor:
        """Give right vectors.

        Args:
            count: How many, from the largest value on.

        Returns:
            Orthonormal rows v_j (count, P).
        """
        return self._rotations[1][:count].to(self._bases[0].dtype) @ self._bases[0]

    def left(self, count: int) -> Tensor:
        """Give left vectors; J v_j = s_j u_j.

        Args:
            count: How many, from the largest value on; at most the rank of H.

        Returns:
            Orthonormal rows u_j (count, P).
        """
        return self._rotations[0][:, :count].T.to(self._bases[1].dtype) @ self._bases[1]

    @property
    def meeting(self) -> Tensor:
        """Inner products of the two bases, W Q' (w, d), float64."""
        return (self._bases[1] @ self._bases[0].T).double()

    def cosines(self, count: int) -> Tensor:
        """Give u_j . v_j.

        Args:
            count: For how many, from the largest value on; at most the rank of H.

        Returns:
            The inner products (count,), float64.
        """
        left, right = self._rotations[0][:, :count], self._rotations[1][:count]
        return ((self.meeting @ right.T) * left).sum(0)

    def deviation_values(self) -> Tensor:
        """Give the singular values of (J - 1) Q'.

        Returns:
            Lower bounds of those of J - 1, rank by rank, smallest first (d,), float64.
        """
        mixed = self.meeting.T @ self.small
        eye = torch.eye(len(mixed), dtype=mixed.dtype, device=mixed.device)
        squares = torch.linalg.eigvalsh(self.small.T @ self.small - mixed - mixed.T + eye)
        return squares.clamp(min=0).sqrt()

    def images(self) -> tuple[Tensor, Tensor]:
        """Give the probes as the space has them, and their images.

        Returns:
            Z and J Z, rows (b, P).
        """
        q, w = self._bases
        return self.starts.to(q.dtype) @ q, (self.starts @ self.small.T).to(w.dtype) @ w


def singular_space(
    forward: Operator,
    adjoint: Operator,
    probes: Tensor,
    *,
    sweeps: int,
    enough: Callable[[SingularSpace], bool] | None = None,
) -> SingularSpace:
    """Build the block Krylov space of J'J from probes.

    Args:
        forward: J on rows.
        adjoint: J' on rows.
        probes: Z, at most P independent rows (b, P).
        sweeps: Most forward-and-adjoint passes.
        enough: Asked after each sweep whether to stop.

    Returns:
        The space; its bases take 2 x d x P numbers, d at most sweeps x b.
    """
    # A product that is not finite ends in a FloatingPointError (`_finite`).
    q, w = probes[:0], probes[:0]
    small = probes.new_zeros(0, 0, dtype=torch.float64)
    rows = orthonormal(probes, q)
    blocks: list[int] = []
    history: list[Tensor] = []
    pulled_count, scale = 0, 0.0
    while True:
        check()
        q = torch.cat([q, rows])
        blocks.append(len(rows))
        pushed = _finite(forward(rows))
        scale = max(scale, float(pushed.norm(dim=-1).max()))
        images = _fresh(pushed, w, scale)[1]
        w = torch.cat([w, images])
        # Explicitly, not by the recurrence: what rounding left outside the bidiagonal is kept.
        column = w.double() @ pushed.double().T
        # Not by `pad`, which refuses an empty dimension in older versions of torch.
        small = torch.cat([small, small.new_zeros(len(images), small.shape[1])])
        small = torch.cat([small, column], dim=1)
        pulled = _finite(adjoint(images)) if len(images) else images
        pulled_count += len(images)
        outside, rows = _fresh(pulled, q, scale)
        space = _ritz(probes, q, w, small, outside, blocks, history, not len(rows), pulled_count)
        stop = not len(rows) or len(blocks) == sweeps
        if stop or (enough is not None and enough(space)):
            return space


def _fresh(rows: Tensor, basis: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Give what rows have outside a basis, and new basis vectors from what is not rounding."""
    outside = rows
    for _ in range(2):
        outside = outside - (outside @ basis.T) @ basis
    noise = 1e2 * torch.finfo(rows.dtype).eps * scale
    return outside, orthonormal(outside[outside.norm(dim=-1) > noise], basis)


def _finite(products: Tensor) -> Tensor:
    if not bool(torch.isfinite(products).all()):
        raise FloatingPointError("a product with the operator is not finite; its spectrum is lost")
    return products


def _ritz(
    probes: Tensor,
    q: Tensor,
    w: Tensor,
    small: Tensor,
    outside: Tensor,
    blocks: list[int],
    history: list[Tensor],
    closed: bool,
    pulled: int,
) -> SingularSpace:
    left, values, right = torch.linalg.svd(small)
    known = len(values)
    values = torch.nn.functional.pad(values, (0, small.shape[1] - known))
    starts = probes.double() @ q.double().T
    left_overlaps = (probes.double() @ w.double().T) @ left[:, :known]
    # J v = s u holds by construction, so the residual is |J'u - s v|: what the last block's image
    # under J' has outside Q. The augmented matrix [0 J; J' 0] is symmetric: hence the sqrt 2.
    leaving = left[len(w) - len(outside) :, :known].T @ outside.double()
    residuals = torch.nn.functional.pad(leaving.norm(dim=-1), (0, small.shape[1] - known))
    residuals = residuals / math.sqrt(2) + 10 * torch.finfo(probes.dtype).eps * values.max()
    history.append(residuals / values.clamp(min=1e-300))
    return SingularSpace(
        values=values,
        residuals=residuals,
        right_overlaps=starts @ right.T,
        left_overlaps=torch.nn.functional.pad(left_overlaps, (0, small.shape[1] - known)),
        lengths=probes.double().square().sum(-1),
        small=small,
        starts=starts,
        blocks=tuple(blocks),
        history=tuple(history),
        closed=closed,
        products=(len(q), pulled),
        _bases=(q, w),
        _rotations=(left, right),
    )


def converged(space: SingularSpace, count: int, tolerance: float) -> bool:
    """Say whether the largest singular values are found.

    Args:
        space: The space.
        count: How many are wanted.
        tolerance: Residual, relative to the value, that is small enough.

    Returns:
        Whether there are so many, all with a small residual.
    """
    values, residuals = space.values[:count], space.residuals[:count]
    return len(values) == count and bool((residuals <= tolerance * values).all())
