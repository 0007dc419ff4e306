"""R_A, m_B and the literal criterion against closed forms (theory.md#closed-forms)."""

from __future__ import annotations

import math

import pytest
import torch

from capacity.criterion.compatible_capacity import CapacityAtScale, literal_capacity
from capacity.criterion.preserving import (
    Preserving,
    curvature_threshold,
    default_tolerance,
    preserving_projector,
)
from capacity.criterion.task_dimension import Dimension, literal_dimension
from capacity.criterion.transition import assess, literal_verdict
from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.networks.flat_model import FlatModel
from capacity.products.curvature_operators import ggn, hessian
from capacity.recipe.config import Measure, Training
from capacity.records.estimate import Estimate
from capacity.tasks.task import Split, Task
from dense import dense_jacobian, digits_task, network, trained
from quadratics import linear, quadratic


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def projector(removed: int, size: int) -> Preserving:
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator(9)).double())[0]
    return Preserving(
        removed_basis=basis[:removed],
        curvatures=torch.ones(removed),
        tolerance=1.0,
        displacement=1.0,
    )


def capacity(jacobian, preserving, like, eps=(0.1,), probes=8, nodes=12, seed=0):
    return literal_capacity(
        jacobian,
        preserving,
        like=like,
        eps=eps,
        probes=probes,
        nodes=nodes,
        generator=generator(seed),
    )


@pytest.mark.parametrize("eps", [0.01, 0.1, 1.0])
def test_an_isometry_gives_exactly_k_directions(eps):
    made = capacity(None, projector(7, 20), torch.zeros(20), eps=(eps,))[0]
    assert made.directions.value == pytest.approx(13, abs=1e-12)
    assert made.nats.value == pytest.approx(13 / 2 * math.log(1 + eps**-2))


@pytest.mark.slow
def test_training_under_decay(float64):
    # J = (1 - lr gamma)^t on every direction: R_A = (P - k)/2 log(1 + eps^-2 (1 - lr gamma)^2t).
    made = quadratic("A", torch.full((12,), 0.7), seed=1)
    trajectory = trained(FlatModel(linear(12)), made.task, Training(lr=0.2, epochs=9))
    for removed in (0, 5):
        found = capacity(
            TrainingJacobian([trajectory]), projector(removed, 12), trajectory.like, probes=400
        )[0]
        shrink = (1 - 0.2 * 0.7) ** 18
        expected = (12 - removed) / 2 * math.log(1 + 100 * shrink)
        assert found.nats.value == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_against_the_dense_jacobian_on_digits(float64):
    task = digits_task((0, 1, 2))
    model = FlatModel(network(64, 4, 10))
    training = Training(optimizer="momentum", lr=0.05, epochs=6, batch_size=64)
    trajectory = trained(model, task, training)
    theta = trajectory.like
    operator = ggn(model, task, theta, task.train)
    preserving = preserving_projector(
        operator, theta, tolerance=0.01, displacement=2.0, generator=generator()
    )
    assert preserving.converged

    dense_ggn = operator(torch.eye(model.size))
    values, vectors = torch.linalg.eigh(dense_ggn)
    above = vectors[:, values > 0.005]
    assert preserving.removed == above.shape[1] > 3
    p = torch.eye(model.size) - above @ above.T
    v = torch.randn(4, model.size)
    # Eigenvectors at the cut itself are known to a tenth of the threshold only.
    assert float((preserving.project(v) - v @ p).norm() / v.norm()) < 0.02

    j = dense_jacobian(trajectory)
    for eps, made in zip(
        (0.1, 1.0),
        capacity(TrainingJacobian([trajectory]), preserving, theta, eps=(0.1, 1.0), nodes=12),
        strict=True,
    ):
        matrix = torch.eye(model.size) + (p @ j).T @ (p @ j) / eps**2
        exact = 0.5 * float(torch.linalg.slogdet(matrix)[1])
        assert made.nats.value == pytest.approx(exact, rel=0.01)
        assert abs(made.nats.value - exact) < 4 * made.nats.stderr + 1e-3 * exact


@pytest.mark.slow
def test_dimension_against_the_dense_hessian(float64):
    task = digits_task((3, 4))
    model = FlatModel(network(64, 4, 10))
    theta = model.initial()
    preserving = projector(30, model.size)
    operator = hessian(model, task, theta, task.train)
    made = literal_dimension(operator, preserving, like=theta, probes=64, generator=generator())
    h = operator(torch.eye(model.size))
    p = torch.eye(model.size) - preserving.removed_basis.T @ preserving.removed_basis
    values = torch.linalg.eigvalsh(p @ h @ p)
    norm = float(values.abs().max())
    assert made.top_curvature.value == pytest.approx(norm, rel=1e-2)
    exact = float(values.square().sum()) / norm**2
    assert abs(made.stable_rank.value - exact) < 3 * made.stable_rank.stderr
    assert made.stable_rank.value == pytest.approx(exact, rel=0.2)
    exact = float(values.abs().sum()) / norm
    assert abs(made.intrinsic.value - exact) < 3 * made.intrinsic.stderr
    negative = float(values[values < 0].abs().sum() / values.abs().sum())
    assert abs(made.negative_share.value - negative) < 3 * made.negative_share.stderr + 1e-9
    assert f"{float(values.sum()) / norm:.1f}" in made.intrinsic.note


def test_no_demand_is_a_case_of_its_own(float64):
    like = torch.zeros(10)
    preserving = projector(4, 10)
    basis = preserving.removed_basis
    made = literal_dimension(
        lambda v: (v @ basis.T) @ basis, preserving, like=like, probes=4, generator=generator()
    )
    assert made.no_demand
    assert made.stable_rank.value is None
    assert "asks nothing" in made.stable_rank.note


def at_scale(directions, stderr):
    made = Estimate(value=directions, stderr=stderr)
    return CapacityAtScale(eps=0.1, nats=made, directions=made)


def dimension(stable_rank, stderr, no_demand=False):
    made = Estimate(value=stable_rank, stderr=stderr)
    return Dimension(
        stable_rank=made,
        intrinsic=made,
        top_curvature=made,
        negative_share=made,
        no_demand=no_demand,
    )


def test_literal_verdicts():
    assert literal_verdict(at_scale(9, 0.1), dimension(3, 0.1)).verdict == "room left"
    fired = literal_verdict(at_scale(3, 0.1), dimension(9, 0.1))
    assert (fired.fires, fired.verdict) == (True, "forgetting predicted")
    assert literal_verdict(at_scale(3, 1.0), dimension(4, 1.0)).verdict == "undecided"
    assert literal_verdict(at_scale(3, 1.0), dimension(4, 1.0, no_demand=True)).margin is None


def test_tolerance_is_the_noise_of_the_old_loss(float64):
    x = torch.ones(4, 1)
    y = torch.tensor([[0.0], [0.0], [2.0], [2.0]])
    task = Task(name="A", train=Split(x, y), test=Split(x, y), loss="mse")
    # Outputs 0: losses 0, 0, 2, 2; standard deviation sqrt(4/3), standard error half of it.
    found = default_tolerance(FlatModel(linear(1)), torch.zeros(1), [task])
    assert found == pytest.approx(math.sqrt(4 / 3) / 2)


@pytest.mark.parametrize("bad", [0, -1.0, math.nan, math.inf, "much"])
def test_tolerance_and_scale_must_be_positive(bad):
    with pytest.raises(ValueError, match=r"tolerance = .* must be a finite number above 0"):
        curvature_threshold(bad, 1.0)
    with pytest.raises(ValueError, match=r"displacement = .* must be a finite number above 0"):
        curvature_threshold(1.0, bad)
    with pytest.raises(ValueError, match=r"eps = .* must be a finite number above 0"):
        capacity(None, projector(1, 4), torch.zeros(4), eps=(bad,))


@pytest.mark.slow
def test_assess_puts_the_pieces_together(float64):
    model = FlatModel(network(64, 3, 10))
    old, new = digits_task((0, 1)), digits_task((2, 3))
    trajectory = trained(model, old, Training(lr=0.2, epochs=3))
    made = assess(
        model,
        trajectory.like,
        [old],
        new,
        TrainingJacobian([trajectory]),
        Measure(eps=(0.1, 1.0)),
        displacement=2.0,
        generator=generator(),
    ).to_dict()
    assert made["capacity"]["parameters"] == model.size
    assert [c["eps"] for c in made["capacity"]["by_eps"]] == [0.1, 1.0]
    assert made["capacity"]["removed"] > 0
    assert made["literal"]["verdict"] == "room left"
