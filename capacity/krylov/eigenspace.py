"""Top eigenpairs of a symmetric operator, with rigorous error bounds where there are any.

- An eigenvalue lies within the residual |A v - lambda v| of every Ritz value.
- The space of the eigenvectors kept is known to a sine of at most |residuals| / gap (Davis and
  Kahan 1970), the gap being the distance from the last value kept to the first one left. Where the
  cut falls in no gap that is wider than the residuals, the *space* is not defined by the spectrum,
  whatever the effort: its bound is stated as not resolved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.krylov.lanczos import Operator, random_signs
from capacity.krylov.symmetric_space import SymmetricSpace, symmetric_space
from capacity.records.estimate import Estimate, Status


@dataclass(frozen=True, kw_only=True)
class Eigenpairs:
    """Some eigenpairs of a symmetric operator.

    Attributes:
        values: Eigenvalues (k,), float64, in the order asked for.
        vectors: Orthonormal eigenvectors, one per row (k, P).
        residuals: |A v - lambda v| (k,): an eigenvalue lies within it of the value.
        beyond: The Ritz values after these, in order (m,), float64, with
        beyond_residuals: their residuals (m,).
        status: `ok`, or `not_converged` when the products ran out first.
        products: Operator products spent.
        space: The Krylov space, for traces.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    beyond: Tensor
    beyond_residuals: Tensor
    status: Status
    products: int
    space: SymmetricSpace

    def subspace_error(self) -> Estimate:
        """Bound the sine of the largest angle between the space found and the true one.

        Returns:
            The bound of Davis and Kahan, which holds if no eigenvalue above the cut was missed;
            0 where everything or nothing was kept; `not_resolved` where the cut falls in no gap.
        """
        if not len(self.values) or not len(self.beyond):
            return Estimate(value=0.0)
        # The true value after the cut lies within its own residual of the Ritz value.
        gap = float(self.values[-1] - self.residuals[-1])
        gap -= float(self.beyond[0] + self.beyond_residuals[0])
        bound = float(self.residuals.norm()) / gap if gap > 0 else math.inf
        if bound >= 1:
            return Estimate(
                value=1.0,
                status=Status.NOT_RESOLVED,
                note="The cut falls in no spectral gap: which directions lie right at it is open.",
            )
        return Estimate(value=bound, note="A bound (Davis and Kahan).")

    def count_above(self, threshold: float) -> tuple[int, int]:
        """Bracket the number of eigenvalues above a threshold by the residuals.

        Args:
            threshold: The threshold.

        Returns:
            How many are certainly above, and how many may be (if none was missed).
        """
        values = torch.cat([self.values, self.beyond])
        residuals = torch.cat([self.residuals, self.beyond_residuals])
        sure = int((values - residuals > threshold).sum())
        return sure, max(int((values + residuals > threshold).sum()), sure)


def eigenpairs(
    operator: Operator,
    like: Tensor,
    *,
    generator: torch.Generator,
    count: int | None = None,
    above: float | None = None,
    by_magnitude: bool = False,
    block: int = 8,
    tolerance: float = 1e-3,
    max_products: int = 512,
) -> Eigenpairs:
    """Find the top eigenpairs of a symmetric operator by block Krylov with Rayleigh-Ritz.

    Args:
        operator: A, symmetric.
        like: A vector (P,) whose size, dtype and device the vectors take.
        generator: Source of the starting block.
        count: How many to find; or
        above: find all eigenvalues above this number.
        by_magnitude: Order by |lambda| instead of lambda (with `count` only).
        block: Vectors per product.
        tolerance: Residual, relative to the largest |lambda|, at which a pair has converged.
        max_products: Most operator products to spend.

    Returns:
        The pairs found.

    Raises:
        ValueError: If not exactly one of `count` and `above` is given.
    """
    # A product that is not finite ends in a FloatingPointError (`symmetric_space`).
    if (count is None) == (above is None):
        raise ValueError("give exactly one of count and above")
    block = min(block, like.numel())

    def wanted(space: SymmetricSpace) -> int:
        if above is not None:
            return int((space.values > above).sum())
        assert count is not None
        return min(count, space.products)

    def settled(space: SymmetricSpace) -> bool:
        if space.complete:
            return True
        scale = float(space.values.abs().max())
        if above is None:
            looked, bound = wanted(space), tolerance * scale
        else:
            # Ritz values settle from the top down: when a whole block below the threshold has
            # settled, too, nothing above it is missing.
            looked, bound = wanted(space) + block, min(tolerance * scale, 0.1 * abs(above))
        return looked < space.products and bool((space.residuals[:looked] <= bound).all())

    space = symmetric_space(
        operator,
        random_signs(block, like, generator),
        max_products=max_products,
        enough=settled,
        by_magnitude=by_magnitude,
        restart=generator,
    )
    kept = wanted(space)
    return Eigenpairs(
        values=space.values[:kept],
        vectors=space.vectors(kept),
        residuals=space.residuals[:kept],
        beyond=space.values[kept:],
        beyond_residuals=space.residuals[kept:],
        status=Status.OK if settled(space) else Status.NOT_CONVERGED,
        products=space.products,
        space=space,
    )
