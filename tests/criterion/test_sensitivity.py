"""R_A at other tolerances: the brackets hold what a direct computation gives."""

from __future__ import annotations

import pytest
import torch

from capacity.criterion.compatible_capacity import literal_capacity
from capacity.criterion.preserving import preserving_projectors
from capacity.criterion.sensitivity import sensitivity
from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.networks.flat_model import FlatModel
from capacity.products.curvature_operators import ggn
from capacity.recipe.config import Training
from dense import MatrixMap, dense_jacobian, digits_task, network, trained

TOLERANCES, EPS = (0.01, 0.001, 0.1), (0.03, 0.3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def projectors(model, task, theta):
    return preserving_projectors(
        ggn(model, task, theta, task.train),
        theta,
        tolerances=TOLERANCES,
        displacement=2.0,
        generator=generator(),
    )


def capacity(jacobian, preserving, theta):
    return literal_capacity(
        jacobian,
        preserving,
        like=theta,
        eps=EPS,
        probes=8,
        nodes=12,
        generator=generator(),
    )


@pytest.mark.slow
def test_projectors_are_nested_and_those_of_their_tolerance(float64):
    task = digits_task((0, 1, 2))
    model = FlatModel(network(64, 4, 10))
    theta = trained(model, task, Training(lr=0.3, epochs=4)).like
    found = projectors(model, task, theta)
    dense = ggn(model, task, theta, task.train)(torch.eye(model.size))
    values = torch.linalg.eigvalsh(dense)
    for made, tolerance in zip(found, TOLERANCES, strict=True):
        assert made.tolerance == tolerance
        assert made.removed == int((values > made.threshold).sum())
        soft = float((values / (values + made.threshold)).sum())
        assert abs(made.soft_removed.value - soft) < 4 * (made.soft_removed.stderr or 0) + 1e-6
        assert made.rank + made.removed == model.size
    assert found[1].removed > found[0].removed > found[2].removed
    larger = found[1].at(TOLERANCES[0])
    assert larger.removed == found[0].removed
    torch.testing.assert_close(larger.removed_basis, found[0].removed_basis)


@pytest.mark.slow
def test_rows_hold_what_a_direct_computation_gives(float64):
    task = digits_task((0, 1, 2))
    model = FlatModel(network(64, 4, 10))
    trajectory = trained(model, task, Training(optimizer="momentum", lr=0.05, epochs=5))
    theta = trajectory.like
    jacobian = TrainingJacobian([trajectory])
    made = projectors(model, task, theta)
    rows = sensitivity(jacobian, made, capacity(jacobian, made[0], theta))
    assert [row.preserving.tolerance for row in rows] == list(TOLERANCES)
    j = dense_jacobian(trajectory)
    base = [at.nats.value for at in rows[0].capacity]
    for row in rows:
        basis = row.preserving.removed_basis
        pj = j - basis.T @ (basis @ j)
        for at, start in zip(row.capacity, base, strict=True):
            matrix = torch.eye(model.size) + pj.T @ pj / at.eps**2
            exact = 0.5 * float(torch.linalg.slogdet(matrix)[1])
            # A fifth of the change at most is open, beside the error of the row it starts from.
            assert abs(at.nats.value - exact) < 0.2 * abs(exact - start) + 0.01 * exact
            low, high = at.nats.interval
            assert low - 1e-3 * exact < exact < high + 1e-3 * exact
    assert rows[0].to_dict()["by_eps"][0]["eps"] == EPS[0]
    assert rows[0].to_dict()["removed"] == made[0].removed


@pytest.mark.slow
def test_rows_are_exact_without_a_jacobian(float64):
    task = digits_task((0, 1, 2))
    model = FlatModel(network(64, 4, 10))
    theta = model.initial()
    made = projectors(model, task, theta)
    for row in sensitivity(None, made, capacity(None, made[0], theta)):
        for at in row.capacity:
            assert at.directions.value == pytest.approx(row.preserving.rank, rel=1e-9)
            assert at.directions.interval is None


@pytest.mark.slow
def test_the_bracket_is_the_matrix_determinant_lemma(float64):
    # Where J rotates, what is removed more costs exactly one direction each: the upper end.
    task = digits_task((0, 1))
    model = FlatModel(network(64, 2, 10))
    theta = model.initial()
    made = projectors(model, task, theta)
    q = torch.linalg.qr(torch.randn(model.size, model.size))[0]
    rows = sensitivity(MatrixMap(q), made, capacity(MatrixMap(q), made[0], theta))
    for row in rows[1:]:
        low, high = row.capacity[0].directions.interval
        assert low * (1 - 1e-3) < row.preserving.rank < high * (1 + 1e-3)
