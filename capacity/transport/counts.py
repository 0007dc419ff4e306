"""How many directions training stretched, left alone and shrank: the three parts of J_t's spectrum.

Belrose & Scherlis (arXiv 2412.07003) find a chaotic part (singular values above 1), a bulk at 1 and
a stable part (below 1), and J_t close to the identity plus a map of low rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from capacity.checks import positive_float
from capacity.curvature.counts import eigenvalue_counts
from capacity.estimate import Estimate
from capacity.transport.jacobian import TrainingJacobian


@dataclass(frozen=True, kw_only=True)
class SpectralParts:
    """Counts of singular values.

    Attributes:
        chaotic: Of J, above `chaotic_above`.
        bulk: Of J, between the two thresholds.
        stable: Of J, at most `stable_below`.
        moved: Of J - 1, above `moved_above`: the rank of what training changed.
        chaotic_above: Threshold.
        stable_below: Threshold.
        moved_above: Threshold.
        products_forward: Vectors pushed forward.
        products_adjoint: Vectors pulled back.
    """

    chaotic: Estimate
    bulk: Estimate
    stable: Estimate
    moved: Estimate
    chaotic_above: float
    stable_below: float
    moved_above: float
    products_forward: int
    products_adjoint: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types.

        Returns:
            One entry per attribute.
        """
        return {
            name: value.to_dict() if isinstance(value, Estimate) else value
            for name, value in vars(self).items()
        }


def spectral_parts(
    jacobian: TrainingJacobian,
    *,
    chaotic_above: float = 1.1,
    stable_below: float = 0.9,
    moved_above: float = 0.1,
    probes: int = 8,
    steps: int = 60,
    generator: torch.Generator,
) -> SpectralParts:
    """Count the singular values of J_t in its three parts, and those of J_t - 1 that matter.

    Spends 2 x probes x steps products each way; counts that this does not resolve say so.

    Args:
        jacobian: J_t.
        chaotic_above: Singular values above this are chaotic.
        stable_below: Singular values up to this are stable.
        moved_above: Singular values of J_t - 1 above this count as moved.
        probes: Random probes, at least 2; their Lanczos bases take probes x steps x P numbers.
        steps: Lanczos steps per probe.
        generator: Source of the probes.

    Returns:
        The counts.

    Raises:
        ValueError: If a threshold is not a positive number, or `stable_below` is not below
            `chaotic_above`.
    """
    positive_float("moved_above", moved_above)
    if positive_float("stable_below", stable_below) >= positive_float(
        "chaotic_above", chaotic_above
    ):
        raise ValueError(
            f"stable_below = {stable_below} must be below chaotic_above = {chaotic_above}"
        )
    spent = dict(jacobian.products)

    def squared(rows: Tensor) -> Tensor:
        return jacobian.adjoint(jacobian.forward(rows))

    def squared_deviation(rows: Tensor) -> Tensor:
        moved = jacobian.forward(rows) - rows
        return jacobian.adjoint(moved) - moved

    def count(operator: Any, edges: list[float]) -> list[Estimate]:
        squares = [edge**2 for edge in edges]
        return eigenvalue_counts(
            operator, jacobian.like, squares, probes=probes, steps=steps, generator=generator
        )

    stable, bulk, chaotic = count(squared, [stable_below, chaotic_above])
    _, moved = count(squared_deviation, [moved_above])
    return SpectralParts(
        chaotic=chaotic,
        bulk=bulk,
        stable=stable,
        moved=moved,
        chaotic_above=chaotic_above,
        stable_below=stable_below,
        moved_above=moved_above,
        products_forward=jacobian.products["forward"] - spent["forward"],
        products_adjoint=jacobian.products["adjoint"] - spent["adjoint"],
    )
