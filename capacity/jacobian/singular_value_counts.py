"""How many directions training stretched, left alone and shrank: the three parts of J_t's spectrum.

Belrose & Scherlis (arXiv 2412.07003) find a chaotic part (singular values above 1), a bulk at 1
whose left and right singular vectors nearly coincide, and a stable part (below 1), and J_t close to
the identity plus a map of low rank.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from capacity.base.checks import positive_float
from capacity.krylov.block_krylov import SingularSpace
from capacity.krylov.spectral_measure import SpectralMeasure
from capacity.records.estimate import Estimate, Status, not_defined
from capacity.records.jackknife import of_means
from capacity.records.plain import Plain, plain


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Where singular values are counted.

    Attributes:
        below: Values up to each of these are counted.
        above: Values above each of these are counted.
        chaotic_above: Values above this are chaotic.
        stable_below: Values up to this are stable; between the two is the bulk.
        moved_above: Values of J - 1 above this are counted: the rank of what training changed.
        edges: Ends of the classes of the density.
    """

    below: tuple[float, ...] = (0.1, 0.5, 0.9)
    above: tuple[float, ...] = (1.1,)
    chaotic_above: float = 1.1
    stable_below: float = 0.9
    moved_above: float = 0.1
    edges: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 0.9, 1.1, 1.5, 3.0, 10.0, 30.0)

    def __post_init__(self) -> None:
        for name in ("below", "above", "edges"):
            for value in getattr(self, name):
                positive_float(name, value)
        positive_float("moved_above", self.moved_above)
        if positive_float("stable_below", self.stable_below) >= positive_float(
            "chaotic_above", self.chaotic_above
        ):
            raise ValueError(
                f"stable_below = {self.stable_below} must be below "
                f"chaotic_above = {self.chaotic_above}"
            )
        if any(a >= b for a, b in itertools.pairwise(self.edges)):
            raise ValueError(f"edges = {list(self.edges)} must rise")

    @property
    def counted(self) -> tuple[float, ...]:
        """Every threshold on the values of J that a result stands on."""
        return tuple(sorted({*self.below, *self.above, self.stable_below, self.chaotic_above}))


@dataclass(frozen=True, kw_only=True)
class SpectralCounts(Plain):
    """Counts of singular values.

    Attributes:
        below: Of J, up to each threshold.
        above: Of J, above each threshold.
        chaotic: Of J, above `chaotic_above`.
        bulk: Of J, between the two thresholds.
        stable: Of J, up to `stable_below`.
        density: Of J, in the classes that the edges make; the first starts at 0, the last is open.
        thresholds: Where was counted.
    """

    below: tuple[Estimate, ...]
    above: tuple[Estimate, ...]
    chaotic: Estimate
    bulk: Estimate
    stable: Estimate
    density: tuple[Estimate, ...]
    thresholds: Thresholds

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types.

        Returns:
            `parts`, `counts` and `density`, as the result schema has them.
        """
        at, classes = self.thresholds, self.density
        sides = (("below", at.below, self.below), ("above", at.above, self.above))
        return plain({
            "parts": {
                "chaotic": self.chaotic,
                "bulk": self.bulk,
                "stable": self.stable,
                "chaotic_above": at.chaotic_above,
                "stable_below": at.stable_below,
            },
            "counts": [
                {"side": side, "threshold": threshold, "count": found}
                for side, edges, estimates in sides
                for threshold, found in zip(edges, estimates, strict=True)
            ],
            "density": {
                "edges": at.edges,
                "counts": [found.value for found in classes],
                "stderr": [found.stderr for found in classes],
                "resolved": [found.resolved for found in classes],
            },
        })


def spectral_counts(measure: SpectralMeasure, thresholds: Thresholds) -> SpectralCounts:
    """Count the singular values of J at the thresholds.

    Args:
        measure: What is known of them.
        thresholds: Where to count.

    Returns:
        The counts.
    """
    ends = (0.0, *thresholds.edges, math.inf)
    return SpectralCounts(
        below=tuple(measure.count(high=edge) for edge in thresholds.below),
        above=tuple(measure.count(edge) for edge in thresholds.above),
        chaotic=measure.count(thresholds.chaotic_above),
        bulk=measure.count(thresholds.stable_below, thresholds.chaotic_above),
        stable=measure.count(high=thresholds.stable_below),
        density=tuple(measure.count(a, b) for a, b in itertools.pairwise(ends)),
        thresholds=thresholds,
    )


def lost_counts(lost: Estimate, thresholds: Thresholds) -> SpectralCounts:
    """Say that nothing could be counted.

    Args:
        lost: The estimate that takes every place.
        thresholds: Where should have been counted.

    Returns:
        Counts without values.
    """
    return SpectralCounts(
        below=(lost,) * len(thresholds.below),
        above=(lost,) * len(thresholds.above),
        chaotic=lost,
        bulk=lost,
        stable=lost,
        density=(lost,) * (len(thresholds.edges) + 1),
        thresholds=thresholds,
    )


def effective_rank(measure: SpectralMeasure) -> Estimate:
    """Estimate exp of the entropy of the normalised squared singular values.

    With F = sum s^2 it is exp(log F - sum s^2 log s^2 / F): two traces, whose quadrature converges
    fast; the error is that of the probes.

    Args:
        measure: What is known of the singular values.

    Returns:
        The effective rank; not defined for a map that is 0.
    """
    powers = measure.sums(torch.square)
    if float(powers.mean()) <= 0:
        return not_defined("The map is 0.")
    logs = measure.sums(lambda s: torch.special.xlogy(s.square(), s.square()))
    return of_means(lambda f, g: torch.exp(torch.log(f) - g / f), powers, logs)


def stable_rank(measure: SpectralMeasure, largest: float, *, resolved: bool) -> Estimate:
    """Estimate |J|_F^2 / sigma_1^2.

    Args:
        measure: What is known of the singular values.
        largest: sigma_1.
        resolved: Whether sigma_1 is resolved; a value below it makes the rank an upper bound.

    Returns:
        The stable rank; not defined for a map that is 0.
    """
    if largest <= 0:
        return not_defined("The map is 0.")
    return of_means(
        lambda f: f / largest**2,
        measure.sums(torch.square),
        status=Status.OK if resolved else Status.NOT_RESOLVED,
        note="" if resolved else "An upper bound: the largest singular value is not resolved.",
    )


def bulk_alignment(
    measure: SpectralMeasure, space: SingularSpace, bulk: Estimate, thresholds: Thresholds
) -> Estimate:
    """Estimate how far left and right singular vectors of the bulk coincide.

    The mean of <u_j, v_j> over the singular values between the thresholds: 1 for a map that leaves
    the bulk alone, 0 for one that turns it somewhere else. Belrose & Scherlis plot the cosines one
    by one; their signed mean is the trace of the partial isometry that takes the right vectors to
    the left ones, and so it does not depend on the choice of vectors where values coincide. The
    same probes give sum <z, v_j><u_j, z> and the count.

    Args:
        measure: What is known of the singular values.
        space: Where it comes from.
        bulk: Their count.
        thresholds: Where the bulk begins and ends.

    Returns:
        The mean; `not_resolved` where the bulk is not.
    """

    def inside(values: Tensor) -> Tensor:
        return (values > thresholds.stable_below) & (values <= thresholds.chaotic_above)

    certain = len(measure.known)
    cosines = space.cosines(certain)[inside(measure.known)].sum()
    right, left = space.right_overlaps[:, certain:], space.left_overlaps[:, certain:]
    among = inside(measure.nodes).to(right)
    scale = measure.weights.sum(-1) / right.square().sum(-1).clamp(min=1e-300)
    aligned = cosines + scale * (right * left * among).sum(-1)
    counted = inside(measure.known).sum() + (measure.weights * among).sum(-1)
    if float(counted.mean()) < 0.5:
        return not_defined("No singular value lies in the bulk.")
    note = "" if bulk.resolved else "The bulk is not resolved from its neighbours."
    status = Status.OK if bulk.resolved else Status.NOT_RESOLVED
    return of_means(lambda a, n: a / n, aligned, counted, status=status, note=note)
