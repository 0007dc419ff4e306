"""Which directions preserve the old tasks: the tolerance, the scale and the projector P_A."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from capacity.base.checks import positive_float
from capacity.krylov.eigenspace import Eigenpairs, eigenpairs
from capacity.krylov.lanczos import Operator
from capacity.networks.evaluate import outputs
from capacity.networks.flat_model import FlatModel
from capacity.records.estimate import Estimate, Status
from capacity.records.jackknife import of_means
from capacity.tasks.losses import sample_losses
from capacity.tasks.task import Task

_EXACT = Estimate(value=0.0)


@dataclass(frozen=True, kw_only=True)
class Preserving:
    """The projector on directions that keep the old tasks (theory.md#preserving-directions; ours).

    A direction of curvature lambda is preserving for a task if lambda d^2 / 2 <= a, with a the
    task's own allowance. P_A = I - U' U with the rows of U an orthonormal basis of the span of all
    old tasks' GGN eigenvectors above their 2 a / d^2.

    Attributes:
        removed_basis: U (k, P).
        curvatures: Curvature of the eigenvector that each direction came in with (k,), over what
            its task allows and times `threshold`; largest first.
        tolerance: a, the allowed rise of an old task's mean loss; on average over the tasks where
            each has its own.
        displacement: d, how far a direction is moved.
        converged: Whether every eigenvector above the threshold was found.
        removed_range: How many eigenvalues are certainly above the threshold, and how many may be,
            by their residuals; None where they were not found by iteration.
        subspace_error: Bound of the sine between the space removed and the true one.
        soft_removed: tr(S (1 + S)^-1) with S the sum of s G over the old tasks, s = d^2 / 2a: how
            many directions the soft projector (1 + S)^-1 removes.
        allowances: a of every old task, where there are several.
    """

    removed_basis: Tensor
    curvatures: Tensor
    tolerance: float
    displacement: float
    converged: bool = True
    removed_range: tuple[int, int] | None = None
    subspace_error: Estimate = _EXACT
    soft_removed: Estimate | None = None
    allowances: tuple[float, ...] = ()

    @property
    def threshold(self) -> float:
        """Curvature 2 a / d^2 above which a direction is not preserving."""
        return curvature_threshold(self.tolerance, self.displacement)

    @property
    def removed(self) -> int:
        """k, the number of directions that are not preserving."""
        return len(self.removed_basis)

    @property
    def rank(self) -> int:
        """P - k, the number of directions that P_A keeps."""
        return self.removed_basis.shape[1] - self.removed

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

    def __call__(self, vectors: Tensor) -> Tensor:
        """Apply P_A, as `project`; with `rank`, what the transport engine takes as a projector.

        Args:
            vectors: Rows (K, P).

        Returns:
            Their projections (K, P).
        """
        return self.project(vectors)

    def at(self, tolerance: float) -> Preserving:
        """Give the projector for a larger tolerance, from the eigenvectors that are known.

        Args:
            tolerance: a, at least that of this projector.

        Returns:
            The projector; what belongs to this one's cut alone is left out.
        """
        assert tolerance >= self.tolerance * (1 - 1e-12)
        kept = self.curvatures > curvature_threshold(tolerance, self.displacement)
        return replace(
            self,
            removed_basis=self.removed_basis[kept.to(self.removed_basis.device)],
            curvatures=self.curvatures[kept],
            tolerance=tolerance,
            converged=self.converged or bool((~kept).any()),
            removed_range=None,
            soft_removed=None,
            allowances=tuple(a * tolerance / self.tolerance for a in self.allowances),
        )


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


def preserving_projectors(
    curvature: Operator,
    theta: Tensor,
    *,
    tolerances: Sequence[float],
    displacement: float,
    generator: torch.Generator,
    max_products: int = 512,
) -> tuple[Preserving, ...]:
    """Find the directions that do not preserve the old tasks, at several tolerances at once.

    All come from one Krylov space, which goes as deep as the smallest tolerance asks for. A
    tolerance or displacement that is not a finite number above 0 is a ValueError.

    Args:
        curvature: The old tasks' GGN on rows.
        theta: Where (P,); size, dtype and device of the vectors.
        tolerances: a, the allowed rises of the loss; each above 0.
        displacement: d, how far a direction is moved; above 0.
        generator: Source of the starting block.
        max_products: Most products with the curvature to spend.

    Returns:
        One projector per tolerance; `converged` is False where the products ran out first.
    """
    thresholds = [curvature_threshold(a, displacement) for a in tolerances]
    found = eigenpairs(
        curvature, theta, above=min(thresholds), generator=generator, max_products=max_products
    )
    whole = found.status is Status.OK
    return tuple(
        _cut(found, a, displacement, threshold, whole or _settled(found, threshold))
        for a, threshold in zip(tolerances, thresholds, strict=True)
    )


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
    return preserving_projectors(
        curvature,
        theta,
        tolerances=[tolerance],
        displacement=displacement,
        generator=generator,
        max_products=max_products,
    )[0]


def _cut(
    found: Eigenpairs, tolerance: float, displacement: float, threshold: float, converged: bool
) -> Preserving:
    kept = int((found.values > threshold).sum())
    part = replace(
        found,
        values=found.values[:kept],
        vectors=found.vectors[:kept],
        residuals=found.residuals[:kept],
        beyond=torch.cat([found.values[kept:], found.beyond]),
        beyond_residuals=torch.cat([found.residuals[kept:], found.beyond_residuals]),
    )
    size = found.vectors.shape[1]
    samples = found.space.sums(lambda x: x.clamp(min=0) / (x.clamp(min=0) + threshold), rank=size)
    return Preserving(
        removed_basis=part.vectors,
        curvatures=part.values,
        tolerance=tolerance,
        displacement=displacement,
        converged=converged,
        removed_range=part.count_above(threshold),
        subspace_error=part.subspace_error(),
        soft_removed=of_means(lambda f: f, samples),
    )


def _settled(found: Eigenpairs, threshold: float) -> bool:
    """Whether a larger cut is settled, though the products ran out before the smallest one was."""
    above = int((found.values > threshold).sum()) + 1
    residuals = torch.cat([found.residuals, found.beyond_residuals])[:above]
    return above <= len(found.values) and bool((residuals <= 0.1 * threshold).all())


def default_tolerance(model: FlatModel, theta: Tensor, old: Sequence[Task]) -> float:
    """Derive the tolerance from the noise of the old tasks' own loss, on average over them.

    Args:
        model: The network.
        theta: Parameters (P,).
        old: The old tasks.

    Returns:
        a > 0, in the loss's unit.
    """
    each = default_allowances(model, theta, old)
    return math.fsum(each) / len(each)


def default_allowances(model: FlatModel, theta: Tensor, old: Sequence[Task]) -> list[float]:
    """Derive what each old task allows from the noise of its own loss.

    A rise that the test split could not tell from its own sampling noise counts as no forgetting:
    the standard error of the mean test loss.

    Args:
        model: The network.
        theta: Parameters (P,).
        old: The old tasks.

    Returns:
        a > 0 of every task, in the loss's unit.
    """
    errors = []
    for task in old:
        values = outputs(model, theta[None], task.test.x)[0].double()
        targets = task.test.y
        targets = targets.double() if targets.is_floating_point() else targets
        losses = sample_losses(task, task.select(values), targets)
        spread = float(losses.std()) if len(losses) > 1 else 0.0
        # A task that is learned to rounding has no noise; the floor keeps the threshold above 0.
        errors.append(max(spread / math.sqrt(len(losses)), 1e-6))
    return errors
