"""Restricted kernels, transport cost and the kernel flow, against closed forms and matrices."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from capacity.criterion.function_space import (
    restrict_hard,
    restrict_soft,
    room,
    stable_rank,
    transport_cost,
)
from capacity.forecasting.kernel_flow import integrate, learning_time
from capacity.networks.flat_model import FlatModel
from capacity.products.curvature_operators import ggn
from capacity.products.feature_rows import features
from capacity.products.output_sketches import every_output, summed_outputs
from capacity.products.output_space import metric_root, residual, task_outputs
from capacity.recipe.config import Training
from capacity.records.estimate import Status
from capacity.records.jackknife import jackknife
from capacity.tasks.task import Task
from dense import digits_task, network, run_map, trained
from quadratics import linear
from regression import converge, gaussian_features_error, plane_task, regression_task


def blocks(model: FlatModel, theta: Tensor, old: Task, new: Task):
    """K_B, K_AB, K_A with the old task's metric, r, and the dense Phi_B and Phi_A."""
    f_old = task_outputs(model, theta, old, old.train.x)
    f_new = task_outputs(model, theta, new, new.train.x)
    root = metric_root(old, f_old, old.train.y).mT / len(f_old) ** 0.5
    whole = every_output(len(f_new), f_new.shape[1], theta)
    phi_a = features(model, theta, old, old.train.x, root)
    phi_b = features(model, theta, new, new.train.x, whole)
    rows = [phi.adjoint(torch.eye(phi.count)) for phi in (phi_b, phi_a)]
    r = residual(new, f_new, new.train.y).flatten()
    return phi_b.gram(phi_b), phi_a.gram(phi_b), phi_a.gram(phi_a), r, *rows


@pytest.mark.parametrize("degrees", [5, 30, 60, 90])
def test_cost_is_one_over_sin_squared_of_the_angle(float64, degrees):
    angle = math.radians(degrees)
    model = FlatModel(linear(5))
    theta = torch.zeros(5)
    new, cross, old, r, *_ = blocks(model, theta, plane_task(0.0, 5), plane_task(angle, 5))
    restricted = restrict_hard(new, cross, old, 1e-6)
    ratio, extra = transport_cost(new, restricted, r)
    assert ratio.value == pytest.approx(1 / math.sin(angle) ** 2, rel=1e-9)
    # W2^2 of the cheapest way alone is r^2 / |x|^2.
    alone = float(r.square()) / float(new)
    assert extra.value == pytest.approx(alone / math.tan(angle) ** 2, rel=1e-9, abs=1e-12)
    # A soft restriction with s G_A = s on A's unit direction: M = 1 - s/(1 + s) on it.
    soft, _ = transport_cost(new, restrict_soft(new, cross, old, 3.0), r)
    assert soft.value == pytest.approx(1 / (1 - 0.75 * math.cos(angle) ** 2), rel=1e-9)


def test_cost_against_a_subspace(float64):
    # A takes k directions: C = 1/(1 - |U b|^2), one over sin^2 of the angle to their span.
    x = torch.randn(3, 7)
    old = regression_task("A", x, torch.randn(3))
    b = torch.randn(1, 7)
    new = regression_task("B", b, torch.ones(1))
    k_b, k_ab, k_a, r, *_ = blocks(FlatModel(linear(7)), torch.zeros(7), old, new)
    basis = torch.linalg.qr(x.T)[0]
    inside = float((basis.T @ b[0]).norm() / b.norm())
    ratio, _ = transport_cost(k_b, restrict_hard(k_b, k_ab, k_a, 1e-9), r)
    assert ratio.value == pytest.approx(1 / (1 - inside**2), rel=1e-9)


def test_cost_of_the_same_task_is_infinite_and_of_a_learned_one_not_defined(float64):
    model, task = FlatModel(linear(5)), plane_task(0.0, 5)
    new, cross, old, r, *_ = blocks(model, torch.zeros(5), task, task)
    restricted = restrict_hard(new, cross, old, 1e-6)
    ratio, extra = transport_cost(new, restricted, r)
    assert ratio.status is extra.status is Status.NOT_DEFINED
    assert "C is infinite" in ratio.note
    ratio, _ = transport_cost(new, restricted, 0 * r, alpha=0.1)
    assert "zero: nothing is left to learn" in ratio.note
    ratio, _ = transport_cost(new, restricted, r, alpha=1e-14)
    assert ratio.status is Status.NOT_RESOLVED
    finite, _ = transport_cost(new, restricted, r, alpha=0.25)
    assert finite.value == pytest.approx((float(new) + 0.25) / 0.25)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_restrictions_against_dense_matrices_on_digits(float64, kind):
    old, new = digits_task((0, 1, 2), 60), digits_task((3, 4), 30)
    model = FlatModel(network(64, 24, 10))
    theta = run_map(trained(model, old, Training(lr=0.2, epochs=10)), model.initial())
    k_b, k_ab, k_a, r, phi_b, phi_a = blocks(model, theta, old, new)
    g = phi_a.T @ phi_a
    probe = torch.randn(3, model.size)
    torch.testing.assert_close(probe @ g, ggn(model, old, theta, old.train)(probe))
    if kind == "soft":
        made = restrict_soft(k_b, k_ab, k_a, 50.0)
        m = torch.linalg.inv(torch.eye(model.size) + 50.0 * g)
    else:
        made = restrict_hard(k_b, k_ab, k_a, 0.02)
        values, vectors = torch.linalg.eigh(g)
        below = vectors[:, values <= 0.02]
        assert 3 < model.size - below.shape[1] < 100
        m = below @ below.T
    dense = phi_b @ m @ phi_b.T
    torch.testing.assert_close(made, dense, rtol=1e-7, atol=1e-9)
    alpha = 3.0
    ratio, extra = transport_cost(k_b, made, r, alpha=alpha)
    # The same through P x P matrices: r'(Phi M Phi' + alpha)^-1 r.
    ridge = alpha * torch.eye(len(r))
    costs = [float(r @ torch.linalg.solve(k + ridge, r)) for k in (dense, phi_b @ phi_b.T)]
    assert ratio.value == pytest.approx(costs[0] / costs[1], rel=1e-7)
    assert extra.value == pytest.approx(costs[0] - costs[1], rel=1e-7)
    assert ratio.value > 1.01


def test_room_by_hand(float64):
    # Modes 4, 1, 0.25 hold 0.5, 0.4, 0.1 of the residual's energy; A halves the second mode.
    new = torch.diag(torch.tensor([4.0, 1.0, 0.25]))
    restricted = torch.diag(torch.tensor([4.0, 0.5, 0.25]))
    r = torch.tensor([0.5, 0.4, 0.1]).sqrt()
    made = room(new, restricted, r, alpha=1.0, delta=0.15)
    assert made.needed.value == 2
    assert made.participation.value == pytest.approx(1 / (0.25 + 0.16 + 0.01))
    assert made.log_volume.value == pytest.approx(0.5 * math.log(1.5 / 2.0))
    assert made.kept.value == pytest.approx((4 / 5 + 0.5 / 1.5) / (4 / 5 + 1 / 2))
    alone = 0.5 / 5 + 0.4 / 2 + 0.1 / 1.25
    assert made.extra.value == pytest.approx(0.4 / 1.5 - 0.4 / 2)
    assert made.cost.value == pytest.approx(1 + made.extra.value / alone)
    assert made.cost.stderr is None  # three samples make no jackknife
    assert made.to_dict()["alpha"] == 1.0


def test_room_without_an_old_task_is_whole(float64):
    new = torch.randn(24, 30)
    made = room(new @ new.T, new @ new.T, torch.randn(24), alpha=0.5, groups=4)
    assert [made.kept.value, made.cost.value] == pytest.approx([1.0, 1.0])
    assert [made.log_volume.value, made.extra.value] == pytest.approx([0.0, 0.0], abs=1e-12)
    assert made.cost.stderr == pytest.approx(0.0, abs=1e-12)
    assert made.needed.stderr > 0


def test_jackknife_is_the_standard_error_of_a_mean(float64):
    values = torch.randn(40)
    groups = [float(values[torch.arange(40) % 8 != g].mean()) for g in range(8)]
    made = jackknife(float(values.mean()), groups)
    means = torch.stack([values[g::8].mean() for g in range(8)])
    assert made.stderr == pytest.approx(float(means.std()) / 8**0.5)
    assert jackknife(1.0, []).stderr is None


def test_stable_rank():
    phi = torch.diag(torch.tensor([2.0, 1.0])).double()
    assert stable_rank(phi @ phi.T) == pytest.approx((16 + 1) / 16)
    assert stable_rank(torch.zeros(3, 3)) == 0


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_bad_numbers(bad):
    one = torch.ones(1, 1).double()
    with pytest.raises(ValueError, match=r"threshold = .* must be a finite number above 0"):
        restrict_hard(one, one, one, bad)
    with pytest.raises(ValueError, match=r"strength = .* must be a finite number above 0"):
        restrict_soft(one, one, one, bad)
    with pytest.raises(ValueError, match=r"alpha = .* must be a finite number above 0"):
        room(one, one, one[0], alpha=bad)
    with pytest.raises(ValueError, match=r"delta = .* must lie between 0 and 1"):
        room(one, one, one[0], alpha=1.0, delta=bad)


# The flow.


@pytest.mark.slow
def test_flow_of_squared_error_has_a_closed_form(float64):
    x, y = torch.randn(6, 9), torch.randn(6)
    task = regression_task("B", x, y)
    model = FlatModel(linear(9))
    theta = torch.randn(9)
    f = task_outputs(model, theta, task, x)
    k = x @ x.T
    values, vectors = torch.linalg.eigh(k / 6)
    for flow in integrate(k, task, f, task.train.y, [0.3, 2.0, 50.0], tolerance=1e-7):
        shrink = -torch.expm1(-values * flow.time)
        reached = f[:, 0] + vectors @ (shrink * (vectors.T @ (y - f[:, 0])))
        torch.testing.assert_close(flow.outputs[:, 0], reached, rtol=0, atol=1e-5)
        delta = x.T @ flow.dual[:, 0] / 6
        assert flow.distance(k) == pytest.approx(float(delta.norm()), rel=1e-9)
        torch.testing.assert_close(flow.moved(k), flow.outputs - f, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_flow_is_full_batch_training_of_a_linear_head(float64):
    task = digits_task(count=60)
    model = FlatModel(torch.nn.Linear(64, 10))
    start = model.initial()
    training = Training(lr=0.01, epochs=400, batch_size=60)
    theta, x = run_map(trained(model, task, training), start), task.train.x
    f = task_outputs(model, start, task, x)
    truth = task_outputs(model, theta, task, x) - f
    time = learning_time(training, 60)
    assert time == pytest.approx(4.0)
    exact = features(model, start, task, x, every_output(60, 10, start))
    pseudo = features(model, start, task, x, summed_outputs(60, 10, start))
    for rows in (exact, pseudo):
        # The kernel of a linear head is a Gram matrix times the identity: the sketch is exact.
        flow = integrate(rows.gram(rows), task, f, task.train.y, [time], tolerance=1e-5)[0]
        assert float((flow.outputs - f - truth).norm() / truth.norm()) < 5e-3
    assert len(flow.dual) == 60


@pytest.mark.slow
def test_flow_error_falls_with_the_tolerance(float64):
    task = digits_task(count=50)
    model = FlatModel(network(64, 24, 10))
    theta, x = model.initial(), task.train.x
    f = task_outputs(model, theta, task, x)
    rows = features(model, theta, task, x, summed_outputs(50, 10, theta))
    k = rows.gram(rows)
    ends = [
        integrate(k, task, f, task.train.y, [100.0], tolerance=tolerance)[0]
        for tolerance in (1e-7, 1e-2, 1e-4)
    ]
    off = [float((end.outputs - ends[0].outputs).abs().max()) for end in ends]
    assert off[2] < 0.02 < 0.3
    assert off[2] < 0.2 * off[1] < 0.2
    # Far fewer products than the thousands of explicit steps that its stiffness would ask for.
    assert ends[1].products < 300


@pytest.mark.slow
def test_flow_of_a_loss_of_ones_own(float64):
    x, y = torch.randn(5, 8), torch.randn(5)
    squared = regression_task("B", x, y)
    own = Task(
        name="B", train=squared.train, test=squared.test,
        loss=lambda f, t: 0.5 * (f - t).square().sum(-1).mean(),
    )  # fmt: skip
    start, k = torch.zeros(5, 1), x @ x.T
    ends = [
        integrate(k, task, start, task.train.y, [3.0], tolerance=1e-7)[0].outputs
        for task in (squared, own)
    ]
    torch.testing.assert_close(*ends, rtol=0, atol=1e-5)


def test_learning_time():
    assert learning_time(Training(lr=0.1, epochs=3, batch_size=10), 25) == pytest.approx(0.9)
    heavy = Training(optimizer="momentum", momentum=0.9, lr=0.1, epochs=1, batch_size=10)
    assert learning_time(heavy, 10) == pytest.approx(1.0)
    assert learning_time(Training(optimizer="adam"), 10) is None
    assert learning_time(Training(clip_norm=1.0), 10) is None


# Sequences of regressions.


@pytest.mark.slow
@pytest.mark.parametrize("phases", [2, 3, 5])
def test_cyclic_rank_one_tasks_forget_as_evron_has_it(float64, phases):
    # Two rank-1 tasks at angle a, worst unit w*: cos^{2(k-1)} a sin^2 a after k phases.
    angle = math.radians(35)
    first = torch.tensor([1.0, 0.0])
    second = torch.tensor([math.cos(angle), math.sin(angle)])
    cycle = [(first, second)[k % 2] for k in range(phases)]
    solution = torch.tensor([0.0, 1.0])  # unit and orthogonal to the first task's direction
    tasks = [
        regression_task(str(k), row[None], (row @ solution)[None]) for k, row in enumerate(cycle)
    ]
    w = torch.zeros(2)
    for task in tasks:
        w = converge(w, task)
    before = tasks[-2].train
    forgetting = float((before.x @ w - before.y[:, 0]).square())
    expected = math.cos(angle) ** (2 * (phases - 1)) * math.sin(angle) ** 2
    assert forgetting == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_realisable_regression_forgets_what_the_projections_say(float64):
    # Forgetting of A = |X_A P_B P_A w*|^2, P_X the projector on the null space of X (Evron).
    x_a, x_b = torch.randn(3, 9), torch.randn(4, 9)
    solution = torch.randn(9)
    old, new = (regression_task(n, x, x @ solution) for n, x in (("A", x_a), ("B", x_b)))
    w = converge(torch.zeros(9), old)
    # What the flow on B does to A's outputs, from kernels alone.
    k_b, cross = x_b @ x_b.T, x_a @ x_b.T
    start = (x_b @ w)[:, None]
    flow = integrate(k_b, new, start, new.train.y, [500.0], tolerance=1e-8)[0]
    p_a, p_b = (torch.eye(9) - torch.linalg.pinv(x) @ x for x in (x_a, x_b))
    expected = float((x_a @ p_b @ p_a @ solution).square().sum())
    assert float(flow.moved(cross).square().sum()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_gaussian_features_by_monte_carlo(float64):
    # E |w_t - w_i*|^2 after t minimum-norm tasks (Lin): theory.md#minimum-norm-regression.
    p, n, noise, runs = 40, 8, 0.3, 150
    solutions = torch.randn(3, p)
    errors = torch.zeros(runs, 3)
    for run in range(runs):
        w = torch.zeros(p)
        for solution in solutions:
            x = torch.randn(n, p)
            task = regression_task("X", x, x @ solution + noise * torch.randn(n))
            w = converge(w, task, tolerance=1e-3)
            assert float((x @ w - task.train.y[:, 0]).norm()) < 0.02
        errors[run] = (w - solutions).square().sum(1)
    for i in range(3):
        expected = gaussian_features_error(solutions, i, n=n, noise=noise)
        stderr = float(errors[:, i].std()) / runs**0.5
        assert abs(float(errors[:, i].mean()) - expected) < 3 * stderr
        assert stderr < 0.05 * expected


@pytest.mark.slow
def test_angles_order_cost_and_forgetting_alike(float64):
    # Deep in the linear regime the cost and the drift of A's outputs order angles the same way.
    model, old = FlatModel(linear(5)), plane_task(0.0, 5)
    drifts, costs = [], []
    for degrees in (80, 60, 40, 20):
        new = plane_task(math.radians(degrees), 5)
        k_b, k_ab, k_a, r, *_ = blocks(model, torch.zeros(5), old, new)
        f = torch.zeros(1, 1)
        flow = integrate(k_b, new, f, new.train.y, [100.0], tolerance=1e-6)[0]
        drifts.append(float(flow.moved(k_ab).abs()))
        restricted = restrict_hard(k_b, k_ab, k_a, 1e-6)
        costs.append(transport_cost(k_b, restricted, r)[0].value)
    assert all(a < b for a, b in pairwise(drifts))
    assert all(a < b for a, b in pairwise(costs))
