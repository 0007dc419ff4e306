"""The record of what is known of J_t's spectrum: values, counts and ranks, each with its error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from capacity.jacobian.singular_value_counts import SpectralCounts, Thresholds, lost_counts
from capacity.records.estimate import Estimate, Status
from capacity.records.notebook import InNotebook
from capacity.records.plain import Plain, plain

METHODS = {
    "krylov": "block Krylov on J'J with full reorthogonalisation, exact forward and adjoint "
    "products; counts by block quadrature of its probes, deflated by the converged values",
    "dense": "J written out by one exact forward product per dimension",
}


@dataclass(frozen=True)
class SingularValue(Plain):
    """One singular value of J_t.

    Attributes:
        value: The estimate; among the largest never above the true value of its rank, among the
            smallest never below it, rounding aside.
        residual: A singular value of J_t lies within this distance.
        resolved: Whether it is the one of its rank to a thousandth.
    """

    value: float
    residual: float
    resolved: bool


@dataclass(frozen=True)
class SingularVectors:
    """Singular vectors of the largest values; J v = s u.

    Attributes:
        left: Rows u (k, P), directions of theta_t.
        right: Rows v (k, P), directions of theta_0.
    """

    left: Tensor
    right: Tensor


@dataclass(frozen=True, kw_only=True)
class Spectrum(Plain, InNotebook):
    """What is known of the spectrum of J_t.

    Attributes:
        singular_values: The largest, largest first.
        smallest: The smallest, smallest first; upper bounds unless everything is exact.
        counts: How many lie where.
        moved: How many of J - 1 lie above `moved_above`: the rank of what training changed.
        alignment: Mean <u_j, v_j> over the bulk (`bulk_alignment` has the definition).
        effective_rank: exp of the entropy of the normalised squared singular values.
        stable_rank: |J|_F^2 / sigma_1^2.
        frobenius_sq: |J|_F^2, the sum of the squared singular values.
        deviation_sq: |J - 1|_F^2: how far the map is from leaving theta_0's differences alone.
        dimension: P, or the dimension of the projector's range; None where nothing is known.
        sweeps: Forward-and-adjoint passes spent on J.
        sweeps_missing: How many more would resolve the values and counts that are not resolved.
        products_forward: Vectors pushed forward.
        products_adjoint: Vectors pulled back.
        method: `krylov` or `dense`.
        vectors: Those of `singular_values`, if they were asked for.
    """

    singular_values: tuple[SingularValue, ...]
    smallest: tuple[SingularValue, ...]
    counts: SpectralCounts
    moved: Estimate
    alignment: Estimate
    effective_rank: Estimate
    stable_rank: Estimate
    frobenius_sq: Estimate
    deviation_sq: Estimate
    dimension: float | None
    sweeps: int
    sweeps_missing: Estimate
    products_forward: int
    products_adjoint: int
    method: str
    vectors: SingularVectors | None = None

    @property
    def top_resolved(self) -> int:
        """How many of the largest singular values are resolved, from the first on."""
        flags = [s.resolved for s in self.singular_values]
        return flags.index(False) if False in flags else len(flags)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types.

        Returns:
            One entry per attribute but the vectors.
        """
        return plain({
            "frobenius_sq": self.frobenius_sq,
            "deviation_sq": self.deviation_sq,
            "singular_values": self.singular_values,
            "top_resolved": self.top_resolved,
            "smallest": self.smallest,
            **self.counts.to_dict(),
            "moved": self.moved,
            "moved_above": self.counts.thresholds.moved_above,
            "alignment": self.alignment,
            "effective_rank": self.effective_rank,
            "stable_rank": self.stable_rank,
            "dimension": self.dimension,
            "sweeps": self.sweeps,
            "sweeps_missing": self.sweeps_missing,
            "products_forward": self.products_forward,
            "products_adjoint": self.products_adjoint,
            "exact": self.method == "dense",
            "method": METHODS.get(self.method, self.method),
        })


def lost_spectrum(reason: str) -> Spectrum:
    """Say that a spectrum could not be had.

    Args:
        reason: What was not finite.

    Returns:
        A spectrum without values, whose estimates carry the reason.
    """
    lost = Estimate(value=None, status=Status.DIVERGED, note=reason)
    return Spectrum(
        singular_values=(),
        smallest=(),
        counts=lost_counts(lost, Thresholds()),
        moved=lost,
        alignment=lost,
        effective_rank=lost,
        stable_rank=lost,
        frobenius_sq=lost,
        deviation_sq=lost,
        dimension=None,
        sweeps=0,
        sweeps_missing=lost,
        products_forward=0,
        products_adjoint=0,
        method="krylov",
    )
