"""Which directions preserve the old tasks: the tolerance, the scale and the projector P_A."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.checks import positive_float
from capacity.curvature.lanczos import Operator, eigenpairs
from capacity.dynamics.evaluate import outputs
from capacity.dynamics.flat import FlatModel
from capacity.estimate import Status
from capacity.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Preserving:
    """The projector on directions that keep the old tasks (theory, section 3; ours).

    A direction of curvature lambda is preserving if lambda d^2 / 2 <= a. P_A = I - U' U with the
    rows of U the orthonormal eigenvectors of the old tasks' GGN above 2 a / d^2.

    Attributes:
        removed_basis: U (k, P).
        curvatures: Their eigenvalues (k,), largest first.
        tolerance: a, the allowed rise of the old tasks' mean loss.
        displacement: d, how far a direction is moved.
        converged: Whether every eigenvector above the threshold was found.
    """

    removed_basis: Tensor
    curvatures: Tensor
    tolerance: float
    displacement: float
    converged: bool = True

    @property
    def threshold(self) -> float:
        """Curvature 2 a / d^2 above which a direction is not preserving."""
        return curvature_threshold(self.tolerance, self.displacement)

    @property
    def removed(self) -> int:
        """k, the number of directions that are not preserving."""
        return len(self.removed_basis)

    def project(self, vectors: Tensor) -> Tensor:
        """Apply P_A.

        Args:
            vectors: Rows (K, P).

        Returns:
            Their projections (K, P).
        """
        basis = self.removed_basis
        if not len(basis):
            return vectors
        return vectors - (vectors @ basis.T) @ basis


def curvature_threshold(tolerance: float, displacement: float) -> float:
    """Curvature above which a direction does not preserve the old tasks.

    A tolerance or displacement that is not a finite number above 0 is a ValueError.

    Args:
        tolerance: a, the allowed rise of the loss; above 0.
        displacement: d, how far a direction is moved; above 0.

    Returns:
        2 a / d^2.
    """
    a = positive_float("tolerance", tolerance)
    d = positive_float("displacement", displacement)
    return 2 * a / d**2


def preserving_projector(
    curvature: Operator,
    theta: Tensor,
    *,
    tolerance: float,
    displacement: float,
    generator: torch.Generator,
    max_products: int = 512,
) -> Preserving:
    """Find the directions that do not preserve the old tasks.

    A tolerance or displacement that is not a finite number above 0 is a ValueError.

    Args:
        curvature: The old tasks' GGN on rows.
        theta: Where (P,); size, dtype and device of the vectors.
        tolerance: a, the allowed rise of the loss; above 0.
        displacement: d, how far a direction is moved; above 0.
        generator: Source of the starting block.
        max_products: Most products with the curvature to spend.

    Returns:
        The projector; `converged` is False where the products ran out first.
    """
    threshold = curvature_threshold(tolerance, displacement)
    found = eigenpairs(
        curvature, theta, above=threshold, generator=generator, max_products=max_products
    )
    return Preserving(
        removed_basis=found.vectors,
        curvatures=found.values,
        tolerance=tolerance,
        displacement=displacement,
        converged=found.status is Status.OK,
    )


def default_tolerance(model: FlatModel, theta: Tensor, old: Sequence[Task]) -> float:
    """Derive the tolerance from the noise of the old tasks' own loss.

    A rise that the test split could not tell from its own sampling noise counts as no forgetting:
    the standard error of the mean test loss, averaged over the old tasks.

    Args:
        model: The network.
        theta: Parameters (P,).
        old: The old tasks.

    Returns:
        a > 0, in the loss's unit.
    """
    errors = []
    for task in old:
        values = outputs(model, theta[None], task.test.x)[0].double()
        targets = task.test.y
        targets = targets.double() if targets.is_floating_point() else targets
        rows = zip(values.split(1), targets.split(1), strict=True)
        losses = torch.stack([task.loss_of(f, y) for f, y in rows])
        spread = float(losses.std()) if len(losses) > 1 else 0.0
        errors.append(spread / math.sqrt(len(losses)))
    # A task that is learned to rounding has no noise; the floor keeps the threshold above 0.
    return max(math.fsum(errors) / len(errors), 1e-6)
