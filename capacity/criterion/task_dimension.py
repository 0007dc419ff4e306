"""m_B, literal form: how many dimensions the new task needs inside the preserving space.

The stable rank |P_A H_B P_A|_F^2 / |P_A H_B P_A|_2^2 of task B's Hessian on the directions that
keep task A, and beside it the intrinsic dimension tr / |.|_2 (theory.md#task-dimension; [II] gives
words only). The intrinsic dimension belongs to positive matrices; at theta_A the Hessian of a task
that was not learned yet is none, so the trace is that of |P_A H_B P_A|, and the share of the
negative curvature in it is reported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from capacity.criterion.preserving import Preserving
from capacity.krylov.lanczos import Operator, random_signs
from capacity.krylov.symmetric_space import SETTLED, SymmetricSpace, symmetric_space
from capacity.records.estimate import Estimate, Status, not_defined
from capacity.records.intervals import Z90
from capacity.records.jackknife import of_means
from capacity.records.notebook import InNotebook
from capacity.records.plain import Plain
from capacity.tasks.scoring import said_scores

_NOTHING = 1e-10
_PRECISE = 0.01
_NOTICEABLE = 0.01


@dataclass(frozen=True, kw_only=True)
class Dimension(Plain, InNotebook):
    """The dimension that a task needs.

    Attributes:
        stable_rank: |P H P|_F^2 / |P H P|_2^2.
        intrinsic: tr |P H P| / |P H P|_2; that of P H P itself where that is positive.
        top_curvature: |P H P|_2.
        negative_share: Share of negative eigenvalues in tr |P H P|, in [0, 1].
        no_demand: Whether P_A H_B P_A = 0, a case of its own: the task asks nothing of the
            preserving space, and neither ratio is defined.
        scored_on: As in `CapacityRecord`.
        scoring: The same in words.
    """

    WRITTEN = ("stable_rank", "intrinsic", "top_curvature", "negative_share", "no_demand")

    stable_rank: Estimate
    intrinsic: Estimate
    top_curvature: Estimate
    negative_share: Estimate
    no_demand: bool
    scored_on: str = ""
    scoring: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types.

        Returns:
            The estimates and the flag.
        """
        return super().to_dict() | said_scores(self)


def literal_dimension(
    hessian: Operator,
    preserving: Preserving,
    *,
    like: Tensor,
    probes: int = 16,
    max_products: int = 256,
    generator: torch.Generator,
) -> Dimension:
    """Estimate the dimension that a new task needs.

    A product that is not finite is a FloatingPointError.

    Args:
        hessian: H_B on rows: (K, P) -> (K, P).
        preserving: The projector P_A.
        like: A tensor (P,) whose size, dtype and device the vectors take.
        probes: Random probes for the norms; their spread gives the standard errors.
        max_products: Most products with H_B to spend; fewer where the stable rank is known to 1 %.
        generator: Source of the probes.

    Returns:
        The dimension.
    """
    rank = like.numel() - preserving.removed
    if not rank:
        reason = "The projector keeps nothing, so that no direction is left to need."
        return _without(reason, 0.0, no_demand=False)

    def restricted(vectors: Tensor) -> Tensor:
        return preserving.project(hessian(preserving.project(vectors)))

    def enough(space: SymmetricSpace) -> bool:
        top = float(space.values[0].abs())
        if top <= _NOTHING:
            return True
        if float(space.residuals[0]) > SETTLED * top:
            return False
        found = _stable_rank(space, rank)
        return (found.stderr or 0.0) <= _PRECISE * (found.value or 0.0)

    start = preserving.project(random_signs(min(probes, rank), like, generator))
    space = symmetric_space(
        restricted, start, max_products=max_products, enough=enough, by_magnitude=True
    )
    norm = float(space.values[0].abs())
    if norm <= _NOTHING:
        reason = "P_A H_B P_A = 0: the task asks nothing of the preserving space."
        return _without(reason, norm, no_demand=True)
    error = float(space.residuals[0])
    status = Status.OK if error <= SETTLED * norm else Status.NOT_CONVERGED
    whole, signed = space.sums(torch.abs, rank=rank), space.sums(lambda x: x, rank=rank)
    negative = of_means(lambda w, s: ((w - s) / (2 * w)).clamp(0, 1), whole, signed)
    intrinsic = of_means(lambda w: w / norm, whole, status=status)
    if (negative.value or 0.0) > _NOTICEABLE:
        own = of_means(lambda s: s / norm, signed)
        note = (
            f"Of |H|: {100 * (negative.value or 0.0):.0f} % of its trace is negative curvature; "
            f"the trace of H itself over its norm is {own.value:.3g} ± {own.stderr or 0.0:.2g}."
        )
        intrinsic = replace(intrinsic, note=note)
    return Dimension(
        stable_rank=replace(_widened(_stable_rank(space, rank), 2 * error / norm), status=status),
        intrinsic=_widened(intrinsic, error / norm),
        top_curvature=Estimate(value=norm, stderr=error, status=status),
        negative_share=negative,
        no_demand=False,
    )


def _stable_rank(space: SymmetricSpace, rank: int) -> Estimate:
    norm = float(space.values[0].abs())
    return of_means(lambda f: f, space.sums(lambda x: (x / norm).square(), rank=rank))


def _widened(found: Estimate, relative: float) -> Estimate:
    """Add a relative error to what the probes leave open; errors add in squares."""
    value, stderr = found.value or 0.0, found.stderr or 0.0
    wider = math.hypot(stderr, abs(value) * relative)
    low, high = found.interval or (value, value)
    more = Z90 * (wider - stderr)
    return replace(found, stderr=wider, interval=(low - more, high + more))


def _without(reason: str, norm: float, *, no_demand: bool) -> Dimension:
    nothing = not_defined(reason)
    return Dimension(
        stable_rank=nothing,
        intrinsic=nothing,
        top_curvature=Estimate(value=norm),
        negative_share=nothing,
        no_demand=no_demand,
    )
