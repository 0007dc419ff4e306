"""Singular values, counts and traces from one block Krylov space, on matrices that are known."""

from __future__ import annotations

import itertools

import pytest
import torch

from capacity.krylov.block_krylov import converged, singular_space
from capacity.krylov.lanczos import random_signs
from capacity.krylov.spectral_measure import known_measure, measure_of, open_mass
from capacity.records.estimate import Status
from capacity.records.jackknife import of_means


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def with_values(values, seed=7):
    """A map with given singular values and random singular vectors."""
    values = torch.as_tensor(values, dtype=torch.float64)
    size = len(values)
    u, v = (
        torch.linalg.qr(torch.randn(size, size, generator=generator(seed + k)).double())[0]
        for k in range(2)
    )
    return (u * values) @ v.T


def space_of(matrix, sweeps, *, probes=16, seed=0, enough=None):
    start = random_signs(probes, matrix[0], generator(seed))
    return singular_space(
        lambda v: v @ matrix.T, lambda u: u @ matrix, start, sweeps=sweeps, enough=enough
    )


def measured(values, sweeps, seed=0):
    return measure_of(space_of(with_values(values), sweeps, seed=seed), rank=len(values))


def test_triplets_of_a_map_that_is_not_symmetric():
    a = with_values(torch.logspace(1, -6, 80))
    truth = torch.linalg.svdvals(a)
    found = space_of(a, 20, enough=lambda s: converged(s, 6, 1e-3))
    assert 1 < found.sweeps < 5
    torch.testing.assert_close(found.values[:6], truth[:6], rtol=1e-3, atol=0)
    assert ((found.values - truth[: len(found.values)]).abs() <= found.residuals)[:6].all()
    left, right = found.left(6), found.right(6)
    torch.testing.assert_close(right @ a.T, found.values[:6, None] * left)
    torch.testing.assert_close(found.cosines(6), (left * right).sum(-1))
    here, there = found.images()
    torch.testing.assert_close(here, random_signs(16, a[0], generator()))
    torch.testing.assert_close(there, here @ a.T)
    assert found.products == (16 * found.sweeps, 16 * found.sweeps)


def test_ritz_values_bound_from_both_ends():
    a = with_values(torch.linspace(0, 3, 200))
    found, truth = space_of(a, 5).values, torch.linalg.svdvals(a)
    assert (found <= truth[: len(found)] + 1e-12).all()
    assert (found.flip(0) >= truth.flip(0)[: len(found)] - 1e-12).all()
    moved = torch.linalg.svdvals(a - torch.eye(200, dtype=a.dtype))
    bounds = space_of(a, 5).deviation_values().flip(0)
    assert (bounds <= moved[: len(bounds)] + 1e-9).all()
    assert bounds[0] > 0.9 * moved[0]


def test_a_map_of_low_rank_closes_the_space():
    a = with_values([3.0] * 5 + [2.0] * 3 + [0.0] * 40)
    found = space_of(a, 9)
    assert found.closed
    assert found.sweeps <= 3
    torch.testing.assert_close(found.values[:8], torch.linalg.svdvals(a)[:8])
    assert measure_of(found, rank=48).count(1.0).value == pytest.approx(8, abs=1e-9)


def test_separated_clusters_are_counted():
    found = measured([1.0] * 200 + torch.linspace(3, 9, 40).tolist() + [0.0] * 60, 12)
    for (low, high), truth in {(0, 0.5): 60, (0.5, 2): 200, (2, 99): 40}.items():
        estimate = found.count(low, high)
        assert abs(estimate.value - truth) <= 3 * estimate.stderr + 1e-6
        assert estimate.interval[0] - 1e-6 <= truth <= estimate.interval[1] + 1e-6
        assert estimate.status is Status.OK
    assert found.count(2.0).stderr == 0, "the converged values are counted, not sampled"


def test_more_copies_than_probes_are_not_deflated():
    # 40 copies of the largest value, of which 16 probes show 16.
    estimate = measured([5.0] * 40 + torch.linspace(0, 1, 200).tolist(), 6).count(2.0)
    assert abs(estimate.value - 40) <= 3 * estimate.stderr
    assert estimate.value > 30


@pytest.mark.slow
@pytest.mark.parametrize("sweeps", [4, 8, 12])
def test_the_interval_covers_a_threshold_in_a_dense_spectrum(sweeps):
    values = torch.linspace(0, 1, 400).double()
    truth = int((values > 0.37).sum())
    found = [measured(values, sweeps, seed=s).count(0.37) for s in range(12)]
    covered = sum(e.interval[0] <= truth <= e.interval[1] for e in found)
    assert covered >= 11
    assert sum(abs(e.value - truth) <= 2 * e.stderr for e in found) >= 11
    # Not by being everything.
    if sweeps == 12:
        assert all(e.status is Status.OK for e in found)
        assert max(e.interval[1] - e.interval[0] for e in found) < 100


def test_beside_an_atom():
    # Interpolating between quadrature nodes gives 20 to 100 here.
    values = torch.cat([torch.full((380,), 1.0), torch.linspace(1.15, 3.0, 20)]).double()
    few, many = measured(values, 3).count(1.1), measured(values, 9).count(1.1)
    assert few.interval[0] <= 20 <= few.interval[1]
    assert many.value == pytest.approx(20, abs=1)
    rough = measured(torch.cat([torch.full((380,), 1.0), torch.linspace(1.05, 1.2, 20)]), 2)
    assert rough.count(1.1).status is Status.NOT_RESOLVED
    assert "more sweeps" in rough.count(1.1).note


def test_the_open_mass_falls_with_the_sweeps():
    space = space_of(with_values(torch.linspace(0, 2, 300)), 10)
    masses = [open_mass(space, 0.8, k) for k in range(1, 11)]
    assert all(a > b for a, b in itertools.pairwise(masses))
    assert masses[0] == pytest.approx(300)


@pytest.mark.slow
def test_sums_are_traces():
    values = torch.linspace(0.1, 3, 300).double()
    exact = float(values.square().sum())
    scores = []
    for seed in range(12):
        made = of_means(lambda f: f, measured(values, 4, seed=seed).sums(torch.square))
        scores.append((made.value - exact) / made.stderr)
    spread = torch.tensor(scores)
    assert spread.abs().mean() < 1.5
    assert spread.abs().max() < 4
    known = of_means(lambda f: f, known_measure(values).sums(torch.square))
    assert (known.value, known.stderr) == (pytest.approx(exact), None)


def test_jackknife_of_a_ratio():
    top, bottom = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([2.0, 4.0, 6.0]).double()
    found = of_means(lambda a, b: a / b, top, bottom)
    assert found.value == 0.5
    assert found.stderr == pytest.approx(0)
    mean = of_means(lambda a: a, top)
    assert mean.stderr == pytest.approx(float(top.std()) / 3**0.5)


def test_a_product_that_is_not_finite():
    bad = torch.full((5, 5), torch.nan, dtype=torch.float64)
    with pytest.raises(FloatingPointError, match="not finite"):
        space_of(bad, 2, probes=2)
