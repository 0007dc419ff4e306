"""Eigenspaces with their bounds, and traces from the same space, against dense matrices."""

from __future__ import annotations

import math

import pytest
import torch

from capacity.krylov.eigenspace import eigenpairs
from capacity.krylov.lanczos import random_signs
from capacity.krylov.symmetric_space import symmetric_space
from capacity.records.estimate import Status


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rotated(values, seed=0):
    values = torch.as_tensor(values)
    q = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator(seed)))[0]
    return q * values @ q.T, q


def space_of(matrix, *, probes=6, most=60, seed=0, **options):
    return symmetric_space(
        lambda v: v @ matrix,
        random_signs(probes, matrix[0], generator(seed)),
        max_products=most,
        enough=lambda space: False,
        **options,
    )


def test_subspace_error_bounds_the_true_angle(float64):
    # A gap after the fifth value, and too few products to resolve the space to rounding.
    values = torch.cat([torch.linspace(8, 6, 5), torch.linspace(3, 0, 115)])
    matrix, q = rotated(values)
    found = eigenpairs(
        lambda v: v @ matrix, matrix[0], count=5, tolerance=0.1, generator=generator()
    )
    truth = q[:, :5]
    inside = torch.linalg.svdvals(found.vectors @ truth)
    sine = math.sqrt(max(1 - float(inside.min()) ** 2, 0.0))
    bound = found.subspace_error()
    assert bound.status is Status.OK
    assert 1e-8 < sine <= bound.value < 0.5


def test_a_cut_without_a_gap_is_not_resolved(float64):
    matrix, _ = rotated(torch.cat([torch.ones(40) * 2, torch.zeros(40)]))
    # Six of forty equal eigenvalues: any six vectors of that space will do.
    found = eigenpairs(lambda v: v @ matrix, matrix[0], count=6, generator=generator())
    assert found.subspace_error().status is Status.NOT_RESOLVED
    everything = eigenpairs(lambda v: v @ matrix, matrix[0], count=80, generator=generator())
    assert everything.subspace_error().value == 0.0


def test_count_above_brackets_what_lies_at_the_cut(float64):
    values = torch.cat([torch.linspace(9, 5, 4), torch.logspace(0, -4, 96)])
    matrix, _ = rotated(values)
    found = eigenpairs(lambda v: v @ matrix, matrix[0], above=2.0, generator=generator())
    assert found.count_above(2.0) == (4, 4)
    # At an eigenvalue itself, its residual decides nothing.
    at = float(found.values[3])
    assert found.count_above(at) == (3, 4)


def test_every_eigenvalue_lies_within_its_residual(float64):
    values = torch.linspace(-3, 5, 90)
    matrix, _ = rotated(values)
    space = space_of(matrix, most=42)
    distance = (space.values[:, None] - values).abs().min(dim=1).values
    assert (distance <= space.residuals + 1e-12).all()
    vectors = space.vectors(3)
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(3))


@pytest.mark.slow
@pytest.mark.parametrize("function", [torch.abs, torch.square, lambda x: x / (x.abs() + 1)])
def test_traces_within_three_standard_errors(float64, function):
    values = torch.cat([torch.logspace(1, -3, 150), -torch.logspace(0, -3, 50)])
    matrix, _ = rotated(values)
    exact = float(function(values).sum())
    scores = []
    for seed in range(12):
        space = space_of(matrix, most=60, seed=seed, by_magnitude=True)
        samples = space.sums(function, rank=200)
        scores.append((float(samples.mean()) - exact) / float(samples.std() / 6**0.5))
    assert torch.tensor(scores).square().mean().sqrt() < 3, scores


def test_traces_are_exact_where_the_space_is_whole(float64):
    values = torch.linspace(-1, 2, 40)
    matrix, _ = rotated(values)
    space = space_of(matrix, most=40)
    assert space.complete
    samples = space.sums(lambda x: x.exp(), rank=40)
    torch.testing.assert_close(samples, torch.full_like(samples, float(values.exp().sum())))


def test_restricted_trace_counts_the_range_only(float64):
    # A function that is not 0 at 0: what the projector removed must not be counted.
    matrix, q = rotated(torch.linspace(1, 2, 50))
    kept = q[:, :20]
    projector = kept @ kept.T
    probes = random_signs(8, matrix[0], generator()) @ projector
    space = symmetric_space(
        lambda v: v @ projector @ matrix @ projector,
        probes,
        max_products=50,
        enough=lambda space: False,
    )
    exact = float((1 + torch.linspace(1, 2, 50)[:20]).sum())
    samples = space.sums(lambda x: 1 + x, rank=20)
    torch.testing.assert_close(samples, torch.full_like(samples, exact))


def test_a_multiple_eigenvalue_beyond_the_block_needs_a_restart(float64):
    matrix, _ = rotated(torch.tensor([4.0] * 10 + [0.0] * 30))
    alone = space_of(matrix, probes=3, most=40)
    assert int((alone.values > 1).sum()) == 3
    again = space_of(matrix, probes=3, most=40, restart=generator(1))
    assert int((again.values > 1).sum()) == 10


def test_a_product_that_is_not_finite_is_said():
    with pytest.raises(FloatingPointError, match="not finite"):
        symmetric_space(
            lambda v: v * torch.nan, torch.ones(2, 5), max_products=4, enough=lambda s: False
        )
