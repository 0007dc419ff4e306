"""Krylov methods against matrices whose spectrum is known."""

from __future__ import annotations

import pytest
import torch

from capacity.krylov.eigenspace import eigenpairs
from capacity.krylov.lanczos import (
    Quadrature,
    orthonormal,
    quadrature,
    random_signs,
)
from capacity.records.estimate import Status


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def symmetric(values, seed=0):
    values = torch.as_tensor(values, dtype=torch.float64)
    q = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator(seed)).double())[
        0
    ]
    return q * values @ q.T


def decaying(size):
    return torch.logspace(1, -6, size, dtype=torch.float64)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_top_eigenpairs(kind):
    matrix = symmetric(decaying(120)).to(kind)
    found = eigenpairs(lambda v: v @ matrix, matrix[0], count=12, generator=generator())
    truth = decaying(120)[:12]
    assert found.status is Status.OK
    assert ((found.values - truth).abs() <= found.residuals + 1e-5).all()
    torch.testing.assert_close(found.values, truth, rtol=1e-2, atol=0)
    unit = found.vectors @ found.vectors.T
    torch.testing.assert_close(unit, torch.eye(12, dtype=kind), rtol=0, atol=1e-5)


def test_all_above_a_threshold_and_none_missed():
    matrix = symmetric([5.0] * 7 + [2.0] * 4 + [1.0] * 30 + [0.0] * 60)
    # Multiplicities above the block size are the hard case for a block method.
    found = eigenpairs(
        lambda v: v @ matrix, matrix[0], above=1.5, generator=generator(), tolerance=1e-8
    )
    torch.testing.assert_close(
        found.values, torch.tensor([5.0] * 7 + [2.0] * 4, dtype=torch.float64)
    )


def test_nothing_above():
    matrix = symmetric(decaying(40))
    found = eigenpairs(lambda v: v @ matrix, matrix[0], above=100.0, generator=generator())
    assert found.vectors.shape == (0, 40)
    assert found.status is Status.OK


def test_magnitude_sees_negative_curvature():
    matrix = symmetric([-9.0, 4.0, 1.0] + [0.1] * 30)
    found = eigenpairs(
        lambda v: v @ matrix, matrix[0], count=1, by_magnitude=True, generator=generator()
    )
    assert found.values[0] == pytest.approx(-9.0, rel=1e-3)


def test_running_out_is_said():
    matrix = symmetric(torch.linspace(1, 2, 200))
    found = eigenpairs(
        lambda v: v @ matrix, matrix[0], count=20, generator=generator(), max_products=32
    )
    assert found.status is Status.NOT_CONVERGED
    assert found.products == 32


def test_zero_operator():
    found = eigenpairs(torch.zeros_like, torch.zeros(30), count=1, generator=generator())
    assert float(found.values[0]) == 0.0


@pytest.mark.parametrize("bad", [{}, {"count": 1, "above": 1.0}])
def test_count_or_above(bad):
    with pytest.raises(ValueError, match="exactly one of count and above"):
        eigenpairs(torch.zeros_like, torch.zeros(3), generator=generator(), **bad)


def test_quadrature_is_exact_at_full_grade():
    matrix = symmetric([1.0, 2.0, 5.0, 7.0])
    z = torch.randn(3, 4, generator=generator()).double()
    nodes, weights = quadrature(lambda v: v @ matrix, z, 4)
    exact = (z @ torch.linalg.matrix_exp(matrix) * z).sum(-1) / z.square().sum(-1)
    torch.testing.assert_close((weights * nodes.exp()).sum(-1), exact)


def test_a_quadrature_that_goes_on_multiplies_no_vector_twice():
    matrix, asked = symmetric([1.0, 2.0, 5.0, 7.0, 11.0]), []
    z = random_signs(2, matrix[0], generator())
    found = Quadrature(lambda v: asked.append(len(v)) or v @ matrix, z)
    shown = [found.nodes(steps) for steps in (1, 4, 2)]
    assert asked == [2] * 4
    for steps, (nodes, weights) in zip((1, 4, 2), shown, strict=True):
        alone = quadrature(lambda v: v @ matrix, z, steps)
        assert torch.equal(nodes, alone[0])
        assert torch.equal(weights, alone[1])


def test_quadrature_survives_an_exhausted_space():
    matrix = torch.eye(50, dtype=torch.float64) * 3
    nodes, weights = quadrature(lambda v: v @ matrix, random_signs(4, matrix[0], generator()), 6)
    assert torch.isfinite(nodes).all()
    torch.testing.assert_close((weights * nodes).sum(-1), torch.full((4,), 3.0).double())


def test_orthonormal_drops_what_is_dependent():
    basis = torch.linalg.qr(torch.randn(10, 3, generator=generator()))[0].T
    made = orthonormal(torch.randn(20, 10, generator=generator()), basis)
    assert made.shape == (7, 10)
    both = torch.cat([basis, made])
    torch.testing.assert_close(both @ both.T, torch.eye(10), rtol=0, atol=1e-5)
