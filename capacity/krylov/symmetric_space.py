"""One block Krylov space of a symmetric operator: its eigenpairs, and traces of functions of it.

Rayleigh-Ritz in the block Krylov space of a few random probes, fully reorthogonalised. Ritz values
settle from both ends of the spectrum; the probes' overlaps with the Ritz vectors are the weights of
a Gauss quadrature, so that the same products also give tr f(A) (stochastic Lanczos quadrature,
deflated: an eigenvalue that has settled is counted as it is, and adds no noise).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.base.interruption import check
from capacity.krylov.lanczos import Operator, orthonormal, random_signs

SETTLED = 1e-3
"""Residual, relative to the value, at which a Ritz value counts as an eigenvalue."""

_CLUSTER = 0.01
"""Relative width of a cluster. A block of b probes shows at most b copies of an eigenvalue, so b
values this close may stand for more."""


@dataclass(frozen=True, kw_only=True)
class SymmetricSpace:
    """A block Krylov space, and the Ritz pairs in it.

    Attributes:
        values: Ritz values (d,), float64, in the order asked for.
        residuals: An eigenvalue lies within residuals[j] of values[j] (d,).
        overlaps: z_i . v_j of the probes with the Ritz vectors (b, d).
        lengths: |z_i|^2 (b,).
        products: Operator products spent, d.
        complete: Whether the Ritz values are all eigenvalues: the space is the whole one.
    """

    values: Tensor
    residuals: Tensor
    overlaps: Tensor
    lengths: Tensor
    products: int
    complete: bool
    _basis: Tensor
    _rotation: Tensor

    def vectors(self, count: int) -> Tensor:
        """Give Ritz vectors.

        Args:
            count: How many, from the first on.

        Returns:
            Orthonormal rows (count, P).
        """
        return self._rotation[:, :count].T.to(self._basis.dtype) @ self._basis

    def sums(self, function: Callable[[Tensor], Tensor], *, rank: int) -> Tensor:
        """Sum a function of the eigenvalues.

        Args:
            function: Elementwise, on eigenvalues.
            rank: Dimension of the space that the operator acts on, and the probes lie in.

        Returns:
            One sample of the sum per probe (b,), float64; equal ones where all values are known.
        """
        settled = self.settled
        known = function(self.values[:settled]).sum()
        rest = self.overlaps[:, settled:].square()
        if self.complete or settled >= rank or not rest.numel():
            whole = function(self.values[:rank]).sum() if self.complete else known
            return whole.expand(len(self.lengths)).clone()
        # What is left is of known dimension: weights that add up to it take out most of the noise.
        weights = rest * ((rank - settled) / rest.sum(-1).clamp(min=1e-300))[:, None]
        return known + (weights * function(self.values[settled:])).sum(-1)

    @property
    def settled(self) -> int:
        """How many Ritz values, from the first on, are eigenvalues, each one a single one."""
        block, values = len(self.lengths), self.values.abs()
        good = (self.residuals <= SETTLED * values).tolist()
        for j in range(len(values)):
            ahead = j + block - 1
            crowded = ahead < len(values) and values[ahead] >= (1 - _CLUSTER) * values[j]
            if not good[j] or crowded:
                return j
        return len(values)


def symmetric_space(
    operator: Operator,
    probes: Tensor,
    *,
    max_products: int,
    enough: Callable[[SymmetricSpace], bool],
    by_magnitude: bool = False,
    restart: torch.Generator | None = None,
) -> SymmetricSpace:
    """Build the block Krylov space of a symmetric operator from probes.

    Args:
        operator: A on rows.
        probes: Z, rows (b, P).
        max_products: Most operator products to spend.
        enough: Asked now and then whether to stop.
        by_magnitude: Order by |lambda|, largest first, instead of lambda.
        restart: Source of fresh random rows when the space is invariant before it is enough; None
            stops there.

    Returns:
        The space; its basis and image take 2 x d x P numbers.

    Raises:
        FloatingPointError: If a product is not finite.
    """
    block, size = probes.shape
    limit = min(size, max_products)
    # Filled as it grows: one allocation, and products with a slice instead of a concatenation.
    basis = probes.new_empty(limit, size)
    small = probes.new_zeros(limit, limit, dtype=torch.float64)
    rows = orthonormal(probes, basis[:0])
    known, looked, scale = 0, 0, 0.0
    while True:
        check()
        rows = rows[: limit - known]
        new = slice(known, known + len(rows))
        basis[new] = rows
        image = operator(rows)
        if not bool(torch.isfinite(image).all()):
            raise FloatingPointError(
                "a product with the operator is not finite; its spectrum is lost"
            )
        known += len(rows)
        q = basis[:known]
        column = q.double() @ image.double().T
        small[:known, new], small[new, :known] = column, column.T
        if len(rows):
            scale = max(scale, float(image.norm(dim=-1).max()))
        outside = image
        for _ in range(2):
            outside = outside - (outside @ q.T) @ q
        noise = 1e2 * torch.finfo(probes.dtype).eps * scale
        fresh = orthonormal(outside[outside.norm(dim=-1) > noise], q)
        stop = known >= limit or (not len(fresh) and restart is None)
        # Diagonalising at every sweep would cost more than the products once the space is large.
        if stop or known >= looked:
            looked = known + max(block, known // 8)
            made = _ritz(probes, q, small[:known, :known], outside, len(rows), by_magnitude)
            if stop or enough(made):
                return made
        if not len(fresh):
            assert restart is not None
            fresh = orthonormal(random_signs(block, probes[0], restart), q)
        rows = fresh


def _ritz(
    probes: Tensor, q: Tensor, small: Tensor, outside: Tensor, last: int, by_magnitude: bool
) -> SymmetricSpace:
    values, rotation = torch.linalg.eigh((small + small.T) / 2)
    order = (values.abs() if by_magnitude else values).argsort(descending=True)
    values, rotation = values[order], rotation[:, order]
    known = len(values)
    # A q lies in the space for every q but the last ones: what these have outside is the residual.
    leaving = rotation[known - last :].T @ outside.double()
    rounding = 10 * torch.finfo(probes.dtype).eps * (float(values.abs().max()) if known else 0.0)
    return SymmetricSpace(
        values=values,
        residuals=leaving.norm(dim=-1) + rounding,
        overlaps=(probes.double() @ q.double().T) @ rotation,
        lengths=probes.double().square().sum(-1),
        products=known,
        complete=known == q.shape[1],
        _basis=q,
        _rotation=rotation,
    )
