"""How many eigenvalues of a symmetric operator lie between given numbers.

Stochastic Lanczos quadrature gives, per probe, nodes x and weights w of the spectral measure. The
weights below a threshold count its eigenvalues. By the separation theorem of Chebyshev, Markov and
Stieltjes the measure up to a threshold between two nodes lies between the weights strictly below
the lower and those up to the upper one: how far the two are apart says what was resolved.
Interpolating between nodes looks smoother and is wrong beside a cluster of equal eigenvalues.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from capacity.checks import positive_int
from capacity.curvature.lanczos import Operator, quadrature, random_signs
from capacity.estimate import Z90, Estimate, Status

_RESOLVED = 0.25
"""Half-width of the bracket, relative to the count, up to which a count is resolved."""


def eigenvalue_counts(
    operator: Operator,
    like: Tensor,
    edges: Sequence[float],
    *,
    probes: int,
    steps: int,
    generator: torch.Generator,
) -> list[Estimate]:
    """Count eigenvalues up to the first edge, between each two, and above the last.

    Args:
        operator: A, symmetric.
        like: A vector (P,) whose size, dtype and device the probes take.
        edges: Thresholds, rising.
        probes: Number of Rademacher probes, at least 2. Their Lanczos bases take
            probes x steps x P numbers.
        steps: Lanczos steps per probe: what a threshold among dense eigenvalues needs.
        generator: Source of the probes.

    Returns:
        One count more than edges. The interval adds the error over probes to the bracket; a count
        whose bracket is wide is `not_resolved`. `cost` counts operator products.

    Raises:
        ValueError: If the edges are none or do not rise, or `probes` or `steps` is too small.
        FloatingPointError: If a product is not finite.
    """
    rising = len(edges) > 0 and all(a < b for a, b in itertools.pairwise(edges))
    if not rising:
        raise ValueError(f"edges = {list(edges)} must be one or more numbers in rising order")
    positive_int("probes", probes, minimum=2)
    positive_int("steps", steps)
    size = like.numel()
    z = random_signs(probes, like, generator)
    nodes, weights = quadrature(operator, z, steps)
    if not bool(torch.isfinite(nodes).all()):
        raise FloatingPointError("a product with the operator is not finite; its spectrum is lost")
    zero, one = nodes.new_zeros(probes), nodes.new_ones(probes)
    # Rows: share of the measure up to each edge, per probe; below it and above it, the bracket.
    marks = [(zero, zero, zero), *(_up_to(nodes, weights, edge) for edge in edges), (one, one, one)]
    cost = float(probes * nodes.shape[1])
    return [
        _count(size, lower, upper, exact=nodes.shape[1] == size, cost=cost)
        for lower, upper in itertools.pairwise(marks)
    ]


def _up_to(nodes: Tensor, weights: Tensor, edge: float) -> tuple[Tensor, Tensor, Tensor]:
    """Share of each probe's measure up to a number: the count, and its bracket."""
    below = (nodes <= edge).sum(-1, keepdim=True)
    totals = torch.cat([torch.zeros_like(weights[:, :1]), weights.cumsum(-1)], dim=-1)

    def at(index: Tensor) -> Tensor:
        return totals.gather(1, index.clamp(0, weights.shape[1])).squeeze(1)

    return at(below), at(below - 1), at(below + 1)


def _count(
    size: int, lower: tuple[Tensor, ...], upper: tuple[Tensor, ...], *, exact: bool, cost: float
) -> Estimate:
    found = size * (upper[0] - lower[0])
    least = found if exact else size * (upper[1] - lower[2]).clamp(min=0)
    most = found if exact else size * (upper[2] - lower[1])
    value, low, high = (float(part.mean()) for part in (found, least, most))
    errors = [float(part.std()) / math.sqrt(len(part)) for part in (least, found, most)]
    resolved = high - low <= 2 * _RESOLVED * value
    note = "" if resolved else f"Between {low:.0f} and {high:.0f}; more Lanczos steps narrow it."
    return Estimate(
        value=value,
        stderr=errors[1],
        status=Status.OK if resolved else Status.NOT_RESOLVED,
        interval=(max(low - Z90 * errors[0], 0.0), min(high + Z90 * errors[2], float(size))),
        n=len(found),
        cost=cost,
        note=note,
    )
