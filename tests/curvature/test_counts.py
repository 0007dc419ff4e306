"""Eigenvalue counts against matrices whose spectrum is known."""

from __future__ import annotations

import pytest
import torch

from capacity.curvature.counts import eigenvalue_counts
from capacity.estimate import Status


def symmetric(values):
    generator = torch.Generator().manual_seed(7)
    size = len(values)
    q = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
    return (q * values) @ q.T


def counts(values, edges, *, probes=8, steps=40, seed=0):
    matrix = symmetric(values.double())
    made = torch.Generator().manual_seed(seed)
    return eigenvalue_counts(
        lambda v: v @ matrix, matrix[0], edges, probes=probes, steps=steps, generator=made
    )


def test_separated_clusters_are_counted():
    values = torch.cat([torch.full((200,), 1.0), torch.linspace(3, 9, 40), torch.zeros(60)])
    found = counts(values, [0.5, 2.0])
    for estimate, truth in zip(found, (60, 200, 40), strict=True):
        assert abs(estimate.value - truth) < 4 * estimate.stderr
        assert estimate.value == pytest.approx(truth, rel=0.15)
        low, high = estimate.interval
        assert low <= truth <= high
    assert sum(e.value for e in found) == pytest.approx(300)


def test_the_interval_covers_a_threshold_in_a_dense_spectrum():
    values = torch.linspace(0, 1, 400)
    truth = int((values > 0.37).sum())
    covered = [counts(values, [0.37], steps=20, seed=s)[1].interval for s in range(20)]
    assert sum(low <= truth <= high for low, high in covered) >= 18
    # Not by being everything.
    assert counts(values, [0.37])[1].status is Status.OK
    assert max(high - low for low, high in covered) < 120


def test_what_is_not_resolved_is_said():
    values = torch.cat([torch.ones(380), torch.linspace(1.05, 1.2, 20)])
    found = counts(values, [1.1], steps=2)[1]
    assert found.status is Status.NOT_RESOLVED
    assert "more Lanczos steps" in found.note
    assert found.interval[0] <= int((values > 1.1).sum()) <= found.interval[1]


def test_bad_input():
    for edges in ([], [1.0, 1.0], [2.0, 1.0]):
        with pytest.raises(ValueError, match="rising order"):
            counts(torch.ones(5), edges)
    with pytest.raises(ValueError, match="probes = 1"):
        counts(torch.ones(5), [0.5], probes=1)
    with pytest.raises(FloatingPointError, match="not finite"):
        counts(torch.full((5,), torch.nan), [0.5])
