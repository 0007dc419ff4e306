"""The singular spectrum of the composed map J_t, with what was and was not resolved.

Forward tangents alone cannot see it: K random tangents give |J|_F^2 and |J - 1|_F^2 without bias,
but their largest image falls far short of sigma_1. Forward-and-adjoint sweeps over the stored
trajectory build one block Krylov space, and everything is read from it: the top of the spectrum,
counts and density, effective ranks, the alignment of the bulk, upper bounds of the smallest values.
A small network's J_t is cheaper written out, and then everything is exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from capacity.base.checks import one_of, positive_int
from capacity.jacobian.effort import missing_sweeps
from capacity.jacobian.projected_maps import (
    DENSE_LIMIT,
    Deviation,
    Projector,
    Restricted,
    SquareMap,
    check_projector,
    dense_matrix,
    dense_size,
    range_basis,
    rank_of,
)
from capacity.jacobian.singular_value_counts import (
    Thresholds,
    bulk_alignment,
    effective_rank,
    spectral_counts,
    stable_rank,
)
from capacity.jacobian.spectrum_record import METHODS, SingularValue, SingularVectors, Spectrum
from capacity.krylov.block_krylov import SingularSpace, converged, singular_space
from capacity.krylov.lanczos import random_signs
from capacity.krylov.spectral_measure import known_measure, measure_of
from capacity.records.estimate import Estimate, Status, from_samples, not_defined
from capacity.records.jackknife import of_means

TOLERANCE = 1e-3
BLOCK = 16


def spectrum(
    jacobian: SquareMap,
    probes: Tensor | None = None,
    images: Tensor | None = None,
    *,
    top: int,
    sweeps: int,
    generator: torch.Generator,
    bottom: int = 3,
    thresholds: Thresholds | None = None,
    moved_sweeps: int = 0,
    projector: Projector | None = None,
    method: str = "auto",
    vectors: bool = False,
) -> Spectrum:
    """Resolve the spectrum of J_t, or of Pi J_t Pi on the range of a projector Pi.

    Args:
        jacobian: J_t.
        probes: Rademacher tangents V that were pushed forward already (K, P); they add to what is
            known of |J - 1|_F^2.
        images: J V (K, P).
        top: Largest singular values wanted.
        sweeps: Most forward-and-adjoint passes, of 16 vectors each; they end early when values and
            counts are resolved.
        generator: Source of the starting block.
        bottom: Smallest singular values wanted.
        thresholds: Where to count.
        moved_sweeps: Most passes for the counts of J - 1; with 0 they are lower bounds, for free.
        projector: Pi; None for all of theta's space.
        method: `krylov`; `dense`, which writes J out, for P up to 2,000; or `auto`, the cheaper.
        vectors: Keep the singular vectors of the largest values.

    Returns:
        The spectrum.

    Raises:
        ValueError: If a number is not a whole number above 0, `top` exceeds P, `method` is not
            known or P too large for it, or `projector` is none of this space.
    """
    # A product that is not finite is a FloatingPointError of the map or of the Krylov space.
    positive_int("top", top)
    positive_int("sweeps", sweeps)
    positive_int("bottom", bottom, minimum=0)
    positive_int("moved_sweeps", moved_sweeps, minimum=0)
    one_of("method", method, ["auto", *METHODS])
    rank = rank_of(projector, jacobian.size)
    limit = jacobian.size if rank is None else rank
    if max(top, bottom) > limit:
        name, count = ("top", top) if top > limit else ("bottom", bottom)
        raise ValueError(f"{name} = {count} exceeds the {limit} parameters; ask for fewer")
    written = dense_size(projector, jacobian.size)
    if method == "dense" and written > DENSE_LIMIT:
        raise ValueError(
            f"method = 'dense' writes out a matrix of {written} x {written}; it is accepted up to "
            f"{DENSE_LIMIT} parameters: use method = 'krylov'"
        )
    thresholds = thresholds or Thresholds()
    operator: SquareMap = jacobian
    if projector is not None:
        check_projector(projector, jacobian.like, generator)
        operator = Restricted(jacobian, projector, projector)
        probes = images = None
    if method == "auto":
        # A dense J takes one product per parameter, in large chunks, which cost half as much.
        cheap = written <= min(4 * (sweeps + moved_sweeps) * BLOCK, DENSE_LIMIT)
        method = "dense" if cheap else "krylov"
    before = dict(jacobian.products)
    if method == "dense":
        return _dense(operator, projector, top, bottom, thresholds, vectors)
    start = random_signs(min(BLOCK, limit), jacobian.like, generator)
    start = start if projector is None else projector(start)

    def enough(space: SingularSpace) -> bool:
        if not converged(space, top, TOLERANCE):
            return False
        measure = measure_of(space, rank=rank)
        return all(
            measure.count(high=edge).resolved and measure.count(edge).resolved
            for edge in thresholds.counted
        )

    space = singular_space(operator.forward, operator.adjoint, start, sweeps=sweeps, enough=enough)
    measure = measure_of(space, rank=rank)
    counts = spectral_counts(measure, thresholds)
    values = _values(space, min(top, len(space.values)))
    frobenius = of_means(lambda f: f, measure.sums(torch.square))
    deviation = _deviation_samples(space, probes, images)
    moved, deviation_sq = _moved(operator, space, start, rank, deviation, moved_sweeps, thresholds)
    shown = min(len(values), len(space.small))
    return Spectrum(
        singular_values=values,
        smallest=_upper_bounds(space, bottom, exact=measure.exact),
        counts=counts,
        moved=moved,
        alignment=bulk_alignment(measure, space, counts.bulk, thresholds),
        effective_rank=effective_rank(measure),
        stable_rank=stable_rank(measure, values[0].value, resolved=values[0].resolved),
        frobenius_sq=frobenius,
        deviation_sq=deviation_sq,
        dimension=measure.dimension,
        sweeps=space.sweeps,
        sweeps_missing=missing_sweeps(
            space, measure, top=top, tolerance=TOLERANCE, edges=thresholds.counted
        ),
        products_forward=jacobian.products["forward"] - before["forward"],
        products_adjoint=jacobian.products["adjoint"] - before["adjoint"],
        method="krylov",
        vectors=SingularVectors(space.left(shown), space.right(shown)) if vectors else None,
    )


def _values(space: SingularSpace, count: int) -> tuple[SingularValue, ...]:
    pairs = zip(space.values[:count].tolist(), space.residuals[:count].tolist(), strict=True)
    return tuple(SingularValue(v, r, r <= TOLERANCE * v) for v, r in pairs)


def _upper_bounds(space: SingularSpace, count: int, *, exact: bool) -> tuple[SingularValue, ...]:
    """Rayleigh-Ritz from below: the k-th smallest Ritz value is at least the k-th smallest one."""
    values, residuals = (part.flip(0)[:count] for part in (space.values, space.residuals))
    pairs = zip(values.tolist(), residuals.tolist(), strict=True)
    # A small residual says that a value is there, not that none is below it.
    return tuple(SingularValue(v, r, exact and r <= TOLERANCE * v) for v, r in pairs)


def _moved(
    operator: SquareMap,
    space: SingularSpace,
    start: Tensor,
    rank: int | None,
    deviation: list[float],
    sweeps: int,
    thresholds: Thresholds,
) -> tuple[Estimate, Estimate]:
    """Count what training moved, and estimate |J - 1|_F^2."""
    edge = thresholds.moved_above
    if sweeps:
        map_ = Deviation(operator)

        def enough(found: SingularSpace) -> bool:
            return measure_of(found, rank=rank).count(edge).resolved

        found = singular_space(map_.forward, map_.adjoint, start, sweeps=sweeps, enough=enough)
        measure = measure_of(found, rank=rank)
        return measure.count(edge), of_means(lambda f: f, measure.sums(torch.square))
    # The singular values of (J - 1)Q' interlace with those of J - 1: no product needed.
    least = float((space.deviation_values() > edge).sum())
    note = f"At least {least:.0f}; sweeps of their own (moved_sweeps) would count them."
    most = start.shape[1] if rank is None else rank
    moved = Estimate(
        value=least, interval=(least, float(most)), status=Status.NOT_RESOLVED, note=note
    )
    if space.complete or (rank is not None and len(space.values) >= rank):
        moved = Estimate(value=least)
    return moved, from_samples(deviation)


def _deviation_samples(
    space: SingularSpace, probes: Tensor | None, images: Tensor | None
) -> list[float]:
    """Hutchinson samples of |J - 1|_F^2: the Krylov space's own probes and those pushed before."""
    here, there = space.images()
    moved = [there.double() - here.double()]
    if probes is not None and images is not None:
        moved.append(images.double() - probes.double())
    return torch.cat(moved).square().sum(-1).tolist()


def _dense(
    operator: SquareMap,
    projector: Projector | None,
    top: int,
    bottom: int,
    thresholds: Thresholds,
    vectors: bool,
) -> Spectrum:
    """Write J out and read everything from its singular value decomposition."""
    before = dict(operator.products)
    basis = range_basis(projector, operator.like)
    matrix = dense_matrix(operator, basis)
    if not bool(torch.isfinite(matrix).all()):
        raise FloatingPointError("a product with the operator is not finite; its spectrum is lost")
    left, values, right = torch.linalg.svd(matrix)
    # What rounding in the products does to each value: below it, a value is noise.
    floor = len(values) ** 0.5 * torch.finfo(basis.dtype).eps * float(values[0])

    def exact(part: Tensor) -> tuple[SingularValue, ...]:
        return tuple(SingularValue(v, floor, floor <= TOLERANCE * v) for v in part.tolist())

    measure = known_measure(values)
    moved = matrix - torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    above = (torch.linalg.svdvals(moved) > thresholds.moved_above).sum()
    bulk = (values > thresholds.stable_below) & (values <= thresholds.chaotic_above)
    cosines = (left * right.T).sum(0)[bulk]
    kept = None
    if vectors:
        rows = left[:, :top].T.to(basis.dtype), right[:top].to(basis.dtype)
        kept = SingularVectors(*(part @ basis for part in rows))
    return Spectrum(
        singular_values=exact(values[:top]),
        smallest=exact(values.flip(0)[:bottom]),
        counts=spectral_counts(measure, thresholds),
        moved=Estimate(value=float(above)),
        alignment=Estimate(value=float(cosines.mean()))
        if len(cosines)
        else not_defined("No singular value lies in the bulk."),
        effective_rank=effective_rank(measure),
        stable_rank=stable_rank(measure, float(values[0]), resolved=True),
        frobenius_sq=Estimate(value=float(matrix.square().sum())),
        deviation_sq=Estimate(value=float(moved.square().sum())),
        dimension=measure.dimension,
        sweeps=0,
        sweeps_missing=Estimate(value=0.0),
        products_forward=operator.products["forward"] - before["forward"],
        products_adjoint=operator.products["adjoint"] - before["adjoint"],
        method="dense",
        vectors=kept,
    )
