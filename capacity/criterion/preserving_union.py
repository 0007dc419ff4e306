"""What several old tasks remove together: the span of what each of them removes.

Each task keeps its own allowance (theory.md#several-old-tasks), so a direction is preserving only
where it is for every task. Averaging the tasks' curvatures instead would let each of them vanish
among many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from capacity.criterion.preserving import (
    Preserving,
    curvature_threshold,
    preserving_projectors,
)
from capacity.krylov.lanczos import Operator, random_signs
from capacity.krylov.symmetric_space import symmetric_space
from capacity.records.estimate import Estimate, Status
from capacity.records.jackknife import of_means

SAME = 1e-3
"""Sine below which a direction counts as one that other tasks removed already: eigenvectors are
known no better, and what is left of such a direction costs its task a millionth of its curvature.
"""


_COLUMNS = 1 << 14
"""Columns that are converted to double precision at once."""
_TOGETHER = 8
"""Vectors per product."""
_PROBES, _SOFT_PRODUCTS = 16, 160
"""Probes of the soft projector's trace for several tasks, and most products with their sum."""


def shared_projectors(
    curvatures: Sequence[Operator],
    theta: Tensor,
    *,
    tolerances: Sequence[float],
    allowances: Sequence[float] = (),
    displacement: float,
    generator: torch.Generator,
    max_products: int = 512,
) -> tuple[Preserving, ...]:
    """Find the directions that preserve every one of several old tasks, at several tolerances.

    What is removed is the span of all tasks' eigenvectors above their own thresholds: with more
    tasks, or a smaller tolerance, it never shrinks. Every task's eigenvectors are looked for from
    the same starting block, so that they hang neither on the other tasks nor on their order. A
    tolerance or displacement that is not a finite number above 0 is a ValueError.

    Args:
        curvatures: GGN of every old task on rows, at least one.
        theta: Where (P,); size, dtype and device of the vectors.
        tolerances: a on average over the tasks; each above 0.
        allowances: a of every task at the first tolerance; at the others they are in proportion.
            None stands for equal ones.
        displacement: d, how far a direction is moved; above 0.
        generator: Source of the starting blocks.
        max_products: Most products with the curvature of each task to spend.

    Returns:
        One projector per tolerance.
    """
    own = list(allowances) or [tolerances[0]] * len(curvatures)
    start = generator.get_state()
    found = []
    for curvature, allowance in zip(curvatures, own, strict=True):
        generator.set_state(start)
        asked = [allowance * a / tolerances[0] for a in tolerances]
        found.append(
            preserving_projectors(
                curvature, theta, tolerances=asked, displacement=displacement,
                generator=generator, max_products=max_products,
            )
        )  # fmt: skip
    if len(found) == 1:
        return found[0]
    generator.set_state(start)
    soft = _soft_removed(curvatures, own, theta, tolerances, displacement, generator)
    return tuple(_joined([each[k] for each in found], a, soft[k]) for k, a in enumerate(tolerances))


def _soft_removed(
    curvatures: Sequence[Operator],
    allowances: Sequence[float],
    theta: Tensor,
    tolerances: Sequence[float],
    displacement: float,
    generator: torch.Generator,
) -> list[Estimate]:
    """Count what the soft projector of all tasks removes, at every tolerance."""
    strengths = [1 / curvature_threshold(a, displacement) for a in allowances]

    def stiffness(rows: Tensor) -> Tensor:
        # In eights, as the tasks' own spaces grow: no other graph of the products is traced for it.
        parts = (
            s * torch.cat([curvature(some) for some in rows.split(_TOGETHER)])
            for s, curvature in zip(strengths, curvatures, strict=True)
        )
        total = next(parts)
        for part in parts:
            total = total + part
        return total

    size = theta.numel()
    space = symmetric_space(
        stiffness,
        random_signs(min(_PROBES, size), theta, generator),
        max_products=min(size, _SOFT_PRODUCTS),
        enough=lambda _: False,
        restart=generator,
    )
    made = []
    for a in tolerances:
        less = a / tolerances[0]
        samples = space.sums(lambda x, r=less: x.clamp(min=0) / (x.clamp(min=0) + r), rank=size)  # type: ignore[misc]
        made.append(of_means(lambda f: f, samples))
    return made


def _joined(parts: Sequence[Preserving], tolerance: float, soft: Estimate) -> Preserving:
    """Join the projectors of several tasks at one tolerance."""
    threshold = curvature_threshold(tolerance, parts[0].displacement)
    scaled = torch.cat([part.curvatures * (threshold / part.threshold) for part in parts])
    # By how much each overdraws its allowance: at a larger tolerance the first of them are left.
    order = scaled.argsort(descending=True, stable=True).to(parts[0].removed_basis.device)
    basis, places, least = orthonormal_union([part.removed_basis for part in parts], order)
    size, count = basis.shape[1], len(basis)
    ranges = [part.removed_range or (part.removed, part.removed) for part in parts]
    counts = [part.removed for part in parts]
    fewer = sum(k - low for k, (low, _) in zip(counts, ranges, strict=True))
    more = sum(high - k for k, (_, high) in zip(counts, ranges, strict=True))
    low = max([count - fewer, *(low for low, _ in ranges)])
    return Preserving(
        removed_basis=basis,
        curvatures=scaled[places.to(scaled.device)],
        tolerance=tolerance,
        displacement=parts[0].displacement,
        converged=all(part.converged for part in parts),
        removed_range=(min(low, count), min(size, count + more)),
        subspace_error=_angle([part.subspace_error for part in parts], least),
        soft_removed=soft,
        allowances=tuple(part.tolerance for part in parts),
    )


def _angle(errors: Sequence[Estimate], least: float) -> Estimate:
    """Bound the sine between the span and the true one by the errors of its parts."""
    lost = next((e for e in errors if e.value is None or e.status is not Status.OK), None)
    if lost is not None:
        return lost
    bound = math.sqrt(math.fsum((e.value or 0.0) ** 2 for e in errors)) / max(least, 1e-300)
    if bound >= 1:
        return Estimate(
            value=1.0,
            status=Status.NOT_RESOLVED,
            note="Two tasks remove directions that are closer than they are known.",
        )
    notes = [e.note for e in errors if e.note]
    return Estimate(value=bound, note=notes[0] if notes else "")


def independent(gram: Tensor) -> tuple[list[int], Tensor]:
    """Choose rows, in order, that are not in the span of those before them.

    A Cholesky factorisation of the Gram matrix that leaves out rows whose distance from the span of
    the rows chosen is at most `SAME` of their length. Rows added at the end change no choice before
    them.

    Args:
        gram: Gram matrix of the rows (m, m), float64.

    Returns:
        Their places (k,), ascending, and the lower triangle L (k, k) of their Gram matrix L L':
        L^-1 times the rows are orthonormal.
    """
    m = len(gram)
    left = gram.diagonal().clone()
    least = SAME**2 * left
    factor = gram.new_zeros(m, m)
    chosen: list[int] = []
    for i in range(m):
        if not float(left[i]) > float(least[i]):
            continue
        k = len(chosen)
        row = (gram[i] - factor[:k, i] @ factor[:k]) / math.sqrt(float(left[i]))
        factor[k] = row
        left -= row.square()
        chosen.append(i)
    return chosen, factor[: len(chosen), chosen].T.contiguous()


def orthonormal_union(bases: Sequence[Tensor], order: Tensor) -> tuple[Tensor, Tensor, float]:
    """Orthonormalise the rows of several bases, those that come first in an order kept first.

    Args:
        bases: Orthonormal rows of each (k_t, P).
        order: Places of the rows in the order in which they are taken (m,).

    Returns:
        Orthonormal rows (k, P); the places of the rows, among all, that each of them came in with
        (k,); and the least singular value of the rows chosen, 1 where there are none.
    """
    rows = torch.cat(list(bases))[order]
    gram = rows.new_zeros(len(rows), len(rows), dtype=torch.float64)
    # Converted in pieces: float64 copies of all rows would be three times the memory.
    for part in rows.split(_COLUMNS, dim=1):
        wide = part.double()
        gram += wide @ wide.T
    chosen, lower = independent(gram)
    if not chosen:
        return rows[:0], order[:0], 1.0
    parts = [
        torch.linalg.solve_triangular(lower, part.double(), upper=False).to(rows)
        for part in rows[chosen].split(_COLUMNS, dim=1)
    ]
    least = float(torch.linalg.eigvalsh(lower @ lower.T)[0])
    return torch.cat(parts, dim=1), order[chosen], math.sqrt(max(least, 0.0))
