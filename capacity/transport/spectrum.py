"""The singular spectrum of the composed map J_t, with what was and was not resolved.

Forward tangents alone cannot see it: K random tangents give |J|_F^2 and |J - 1|_F^2 without bias,
but their largest image falls far short of sigma_1. The top of the spectrum comes from
forward-and-adjoint sweeps over the stored trajectory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from capacity.checks import positive_int
from capacity.curvature.lanczos import singular_triplets
from capacity.estimate import Estimate, Status, from_samples
from capacity.transport.jacobian import TrainingJacobian

TOLERANCE = 1e-3
METHOD = "block Krylov on J'J with full reorthogonalisation, exact forward and adjoint products"


@dataclass(frozen=True)
class SingularValue:
    """One singular value of J_t.

    Attributes:
        value: The estimate; never above the true value of its rank, rounding aside.
        residual: A singular value of J_t lies within this distance.
        resolved: Whether the residual is at most a thousandth of the value.
    """

    value: float
    residual: float
    resolved: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types.

        Returns:
            One entry per attribute.
        """
        return {"value": self.value, "residual": self.residual, "resolved": self.resolved}


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """What is known of the spectrum of J_t.

    Attributes:
        singular_values: The largest, largest first.
        frobenius_sq: |J|_F^2, the sum of the squared singular values.
        deviation_sq: |J - 1|_F^2: how far the map is from leaving theta_0's differences alone.
        sweeps: Forward-and-adjoint passes spent on the singular values.
        products_forward: Vectors pushed forward, the random tangents included.
        products_adjoint: Vectors pulled back.
    """

    singular_values: tuple[SingularValue, ...]
    frobenius_sq: Estimate
    deviation_sq: Estimate
    sweeps: int
    products_forward: int
    products_adjoint: int

    @property
    def top_resolved(self) -> int:
        """How many of the largest singular values are resolved, from the first on."""
        flags = [s.resolved for s in self.singular_values]
        return flags.index(False) if False in flags else len(flags)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types.

        Returns:
            One entry per attribute, and the method's name.
        """
        return {
            "frobenius_sq": self.frobenius_sq.to_dict(),
            "deviation_sq": self.deviation_sq.to_dict(),
            "singular_values": [s.to_dict() for s in self.singular_values],
            "top_resolved": self.top_resolved,
            "sweeps": self.sweeps,
            "products_forward": self.products_forward,
            "products_adjoint": self.products_adjoint,
            "method": METHOD,
        }


def spectrum(
    jacobian: TrainingJacobian,
    probes: Tensor,
    images: Tensor,
    *,
    top: int,
    sweeps: int,
    generator: torch.Generator,
) -> Spectrum:
    """Resolve the top of the spectrum, and estimate the norms from forward tangents.

    Args:
        jacobian: J_t.
        probes: Rademacher tangents V that were pushed forward (K, P).
        images: J V (K, P).
        top: Singular values wanted.
        sweeps: Most forward-and-adjoint passes to spend on them.
        generator: Source of the starting block.

    Returns:
        The spectrum.

    Raises:
        ValueError: If `top` or `sweeps` is not a whole number above 0, or `top` exceeds P.
    """
    positive_int("top", top)
    positive_int("sweeps", sweeps)
    if top > jacobian.size:
        raise ValueError(f"top = {top} exceeds the {jacobian.size} parameters; ask for fewer")
    found = singular_triplets(
        jacobian.forward,
        jacobian.adjoint,
        jacobian.like,
        count=top,
        generator=generator,
        sweeps=sweeps,
        # A few more than wanted converge sooner; past 16 a sweep costs more than it brings.
        block=min(top + 6, 16),
        tolerance=TOLERANCE,
    )
    pairs = zip(found.values.tolist(), found.residuals.tolist(), strict=True)
    return Spectrum(
        singular_values=tuple(SingularValue(v, r, r <= TOLERANCE * v) for v, r in pairs),
        frobenius_sq=_mean_square(images, len(probes)),
        deviation_sq=_mean_square(images - probes, len(probes)),
        sweeps=found.sweeps,
        products_forward=len(probes) + found.products,
        products_adjoint=found.products,
    )


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
        frobenius_sq=lost,
        deviation_sq=lost,
        sweeps=0,
        products_forward=0,
        products_adjoint=0,
    )


def _mean_square(rows: Tensor, count: int) -> Estimate:
    """Hutchinson's estimate of |A|_F^2 from images of unit-variance probes."""
    samples = rows.double().square().sum(-1).tolist()
    assert len(samples) == count
    return from_samples(samples, note="" if count > 1 else "One probe has no standard error.")
