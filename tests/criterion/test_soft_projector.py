"""The soft projector, and how far the old tasks are from being learned, against dense matrices."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from capacity.criterion.convergence import convergence
from capacity.criterion.preserving import Preserving
from capacity.criterion.soft_projector import SoftPreserving
from capacity.networks.flat_model import FlatModel
from capacity.products.curvature_operators import ggn, loss_gradient
from capacity.records.estimate import Status
from dense import digits_task, network
from quadratics import linear, quadratic


def nothing_removed(size, tolerance, displacement):
    return Preserving(
        removed_basis=torch.zeros(0, size),
        curvatures=torch.zeros(0),
        tolerance=tolerance,
        displacement=displacement,
    )


@pytest.mark.slow
@pytest.mark.parametrize("strength", [1e-3, 1.0, 200.0])
def test_conjugate_gradients_and_dense_agree(float64, strength):
    task = digits_task((0, 1, 2), count=60)
    model = FlatModel(network(64, 3, 10))
    theta = model.initial()
    operator = ggn(model, task, theta, task.train)
    dense = operator(torch.eye(model.size))
    v = torch.randn(4, model.size)
    v[2] = 0.0
    exact = torch.linalg.solve(torch.eye(model.size) + strength * dense, v.T).T
    made = SoftPreserving(curvature=operator, strength=strength).apply(v)
    assert made.error.status is Status.OK
    assert made.error.value < 1e-5
    off = (made.vectors - exact).norm(dim=-1)
    # 1 + s G is at least 1, so the residual bounds the error.
    assert (off <= made.error.value * v.norm(dim=-1) + 1e-9).all()


def test_an_eigenvector_at_the_cut_is_halved(float64):
    made = quadratic("A", torch.tensor([4.0, 1.0, 0.25]), seed=1)
    values, vectors = torch.linalg.eigh(made.hessian)
    soft = SoftPreserving(curvature=lambda v: v @ made.hessian, strength=1.0)
    shares = (soft.apply(vectors.T).vectors * vectors.T).sum(-1)
    torch.testing.assert_close(shares, 1 / (1 + values), rtol=1e-6, atol=0)
    assert float(shares[1]) == pytest.approx(0.5)


def test_running_out_of_steps_is_said():
    # Condition 1e9 in float32: conjugate gradients cannot finish.
    values = torch.logspace(0, 9, 400)
    soft = SoftPreserving(curvature=lambda v: v * values, strength=1.0, tolerance=1e-12)
    made = soft.apply(torch.ones(1, 400))
    assert made.error.status is Status.NOT_CONVERGED
    assert "stopped after" in made.error.note


@pytest.mark.parametrize("bad", [0, -1.0, math.nan, math.inf])
def test_bad_numbers(bad):
    with pytest.raises(ValueError, match=r"strength = .* must be a finite number above 0"):
        SoftPreserving(curvature=torch.zeros_like, strength=bad)
    with pytest.raises(ValueError, match=r"tolerance = .* must be a finite number above 0"):
        SoftPreserving(curvature=torch.zeros_like, strength=1.0, tolerance=bad)


def test_what_is_left_to_learn_of_a_quadratic(float64):
    made = quadratic("A", torch.tensor([4.0, 1.0, 0.25, 0.0]), seed=1)
    model = FlatModel(linear(4))
    tolerance, displacement = 0.05, 0.8
    cut = 2 * tolerance / displacement**2
    for moved, learned in ((0.0, True), (0.01, True), (2.0, False)):
        theta = made.minimum + moved * torch.ones(4)
        found = convergence(
            [ggn(model, made.task, theta, made.task.train)],
            [loss_gradient(model, made.task, theta, made.task.train)],
            nothing_removed(4, tolerance, displacement),
            ["A"],
        )
        g = made.hessian @ (theta - made.minimum)
        exact = 0.5 * float(g @ torch.linalg.solve(made.hessian + cut * torch.eye(4), g))
        assert found.gradient.value == pytest.approx(float(g.norm()), abs=1e-9)
        assert found.remaining.value == pytest.approx(exact, rel=1e-4, abs=1e-12)
        # It is less than the whole loss, and what is within reach of it.
        assert exact <= float(made.loss(theta)) + 1e-12
        assert found.converged is learned
        assert found.to_dict()["converged"] is learned
        assert ("gradient of their loss has norm" in found.note) is not learned
        assert found.note == found.to_dict()["note"]


def test_a_task_that_is_learned_makes_up_for_no_other(float64):
    # Opposite gradients: between the two minima the mean of the losses has none.
    curved = torch.tensor([4.0, 1.0, 0.25, 0.0])
    one = quadratic("A", curved, seed=1)
    model = FlatModel(linear(4))
    shift = torch.ones(4)

    def found(points):
        hessian, tasks = one.hessian, range(len(points))
        return convergence(
            [lambda v: v @ hessian for _ in tasks],
            [hessian @ point for point in points],
            replace(nothing_removed(4, 0.05, 0.8), allowances=(0.04, 0.06)[: len(points)]),
            [f"task {k}" for k in tasks],
        )

    assert model.size == 4
    learned, far = 0.001 * shift, 2 * shift
    assert found([learned, learned]).converged
    for points, worst, count in (
        ([learned, far], "task 1", 1),
        ([far, learned], "task 0", 1),
        ([far, -far], "task 0", 2),  # the smaller allowance
        ([0.3 * far, -far], "task 1", 2),
    ):
        made = found(points)
        assert not made.converged
        assert (made.task, made.not_learned) == (worst, count)
        k = int(worst[-1])
        g, cut = one.hessian @ points[k], 2 * (0.04, 0.06)[k] / 0.8**2
        exact = 0.5 * float(g @ torch.linalg.solve(one.hessian + cut * torch.eye(4), g))
        assert made.remaining.value == pytest.approx(exact, rel=1e-4)
        assert f"({count} of 2, {worst!r} the least)" in made.note
        assert made.to_dict()["task"] == worst
