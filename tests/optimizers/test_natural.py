"""Natural gradient: its step against a dense matrix, its exact Jacobian, and what it refuses."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch.func import functional_call, grad, hessian, jacrev

import capacity
from capacity.forecasting.linearized import simulate
from capacity.forecasting.plan_time import flow_plan
from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.jacobian.trajectory import Trajectory
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.optimizers import natural
from capacity.optimizers.conditioner import conditioned
from capacity.optimizers.from_recipe import from_training
from capacity.optimizers.natural import Natural
from capacity.optimizers.optimizer import stated
from capacity.records.estimate import Status
from capacity.tasks.task import Split
from capacity.thermo.path import PathObserver
from capacity.training.data_order import DataOrder
from capacity.training.train import train
from dense import Record, digits_task, network

CURVATURES = {
    "exact": {"damping": 0.05},
    "exact, momentum": {"damping": 0.05, "momentum": 0.5, "nesterov": True},
    "diagonal": {"damping": 0.05, "curvature": "diagonal", "groups": 2},
}


def plan(**options):
    return capacity.Training(
        optimizer="natural", options=options, lr=0.02, max_steps=3, batch_size=17
    )


def regression(count=40, size=6):
    x = torch.randn(count, size)
    y = x @ torch.randn(size, 2) + 0.1 * torch.randn(count, 2)
    return capacity.Task(name="lines", train=(x, y), test=(x, y), loss="mse")


def bound(update, flat, task):
    return update.bound(flat.outputs, task)


def trained(flat, task, training):
    update = bound(from_training(training), flat, task)
    path = Trajectory(flat.loss(task), update, data=(task.train.x, task.train.y))
    order = DataOrder.planned(training, len(task.train), replicas=1, seed=0)
    start = flat.initial()[None]
    train(flat, start, task, training, order, observers=[Record(path)], update=update)
    return path


def run_map(path, theta):
    state = path.update.init(theta)
    for step in path.forwards():
        state = stated(path.update).advance(path.loss, state, step.x, step.y, step.lr, step.count)
    return state[0]


@pytest.mark.slow  # two networks are trained again from points beside
@pytest.mark.parametrize("case", CURVATURES)
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_products_with_its_jacobian_are_those_of_finite_differences(case, loss, float64):
    flat = FlatModel(network(64, 2, 3) if loss == "cross_entropy" else network(6, 3, 2))
    task = digits_task((0, 1, 2), 34) if loss == "cross_entropy" else regression()
    path = trained(flat, task, plan(**CURVATURES[case]))
    jacobian, v, u = TrainingJacobian([path]), torch.randn(2, path.size), torch.randn(2, path.size)
    away = 1e-5 * v[0]
    seen = (run_map(path, path.like + away) - run_map(path, path.like - away)) / 2e-5
    forward = jacobian.forward(v)
    assert float((forward[0] - seen).norm() / seen.norm()) < 1e-6
    assert float((forward[0] - v[0]).norm() / seen.norm()) > 1e-3
    torch.testing.assert_close(forward @ u.T, v @ jacobian.adjoint(u).T)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_the_exact_step_solves_with_the_dense_gauss_newton_matrix(loss, float64):
    flat = FlatModel(network(64, 2, 3) if loss == "cross_entropy" else network(6, 3, 2))
    task = digits_task((0, 1, 2), 20) if loss == "cross_entropy" else regression(20)
    theta, x, y = flat.initial(), task.train.x, task.train.y
    metric = bound(Natural(damping=0.01), flat, task).conditioner
    matrix = dense_metric(flat, task, theta, 0.01)
    gradient = grad(flat.loss(task))(theta, x, y)
    solved = torch.linalg.solve(matrix, gradient)
    torch.testing.assert_close(metric.apply(theta, x, gradient), solved)


@pytest.mark.slow  # three hundred draws
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_the_diagonal_is_unbiased_over_the_signs(loss, float64, monkeypatch):
    flat = FlatModel(network(64, 3) if loss == "cross_entropy" else network(6, 2))
    task = digits_task((0, 1, 2), 24) if loss == "cross_entropy" else regression(24)
    theta, x, y = flat.initial(), task.train.x, task.train.y
    metric = bound(Natural(curvature="diagonal", groups=6), flat, task).conditioner
    features = jacrev(lambda t: flat.outputs(t, x[::2]))(theta).flatten(0, 1)
    outputs = flat.outputs(theta, x[::2])
    curve = hessian(lambda f: task.loss_of(f.reshape(outputs.shape), y[::2]))(outputs.flatten())
    truth = torch.diag(features.T @ curve @ features)
    draws = []
    for seed in range(300):
        monkeypatch.setattr(natural, "_SIGNS", seed)
        draws.append(metric._diagonal(theta, x))
        torch.testing.assert_close(metric._diagonal_now(theta, x), draws[-1])
    drawn = torch.stack(draws)
    error = drawn.std(0) / len(drawn) ** 0.5
    off = (drawn.mean(0) - truth)[error > 0] / error[error > 0]
    assert float(off.abs().max()) < 4.5
    spread = float(drawn.std(0).sum() / truth.sum())
    assert 0.3 < spread < 0.8  # six degrees of freedom: sqrt(2/6)


def test_least_squares_arrive_in_one_step(float64):
    flat, task = FlatModel(network(6, 2)), regression()
    theta, x, y = flat.initial(), task.train.x, task.train.y
    update = bound(Natural(damping=1e-12), flat, task)
    (after,) = update.advance(flat.loss(task), (theta,), x, y, 1.0, 1)
    assert float(grad(flat.loss(task))(after, x, y).norm()) < 1e-9
    path = Trajectory(flat.loss(task), update)
    path.record((theta,), x, y, 0.3)
    v = torch.randn(1, path.size)
    torch.testing.assert_close(TrainingJacobian([path]).forward(v), 0.7 * v)


def paid(flat, task, lr, steps, **options):
    """A full-batch training, its cost, and action and squared ends in dense metrics."""
    training = capacity.Training(
        optimizer="natural", options=options, lr=lr, max_steps=steps, batch_size=len(task.train)
    )
    update = bound(from_training(training), flat, task)
    observer, seen = PathObserver(update), []

    class Seen:
        def observe(self, step):
            seen.append((step.before[0][0], step.after[0][0]))

    order = DataOrder.planned(training, len(task.train), replicas=1, seed=0)
    start = flat.initial()[None]
    end = train(flat, start, task, training, order, observers=[observer, Seen()], update=update)
    losses = [evaluate(flat, theta, task, task.train).loss for theta in (start, end.theta)]
    cost = observer.cost(*losses, plain=False, full=True)
    again = PathObserver(update)
    again.restore(observer.state())
    assert again.cost(*losses, plain=False, full=True) == cost
    return cost.geometry, seen, float(losses[0] - losses[1])


def dense_metric(flat, task, theta, damping):
    x, y = task.train.x, task.train.y
    features = jacrev(lambda t: flat.outputs(t, x))(theta).flatten(0, 1)
    outputs = flat.outputs(theta, x)
    curve = hessian(lambda f: task.loss_of(f.reshape(outputs.shape), y))(outputs.flatten())
    return features.T @ curve @ features + damping * torch.eye(len(theta))


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_its_own_speed_limit_is_bracketed_in_its_curved_metric(loss, float64):
    flat = FlatModel(network(64, 2, 3) if loss == "cross_entropy" else network(6, 3, 2))
    task = digits_task((0, 1, 2), 20) if loss == "cross_entropy" else regression(20)
    lr, steps, damping = 0.02, 30, 0.05
    own, seen, drop = paid(flat, task, lr, steps, damping=damping)
    action = length = 0.0
    for before, after in seen:
        moved = after - before
        spent = float(moved @ dense_metric(flat, task, before, damping) @ moved)
        action, length = action + spent / lr, length + spent**0.5
    assert own.action.value == pytest.approx(action, rel=1e-6)
    assert own.length_sq.value == pytest.approx(length**2, rel=1e-6)
    assert own.least_inefficiency.value == pytest.approx(lr * steps * action / length**2)
    # d^2 lies between; the flow pays the drop of the loss for it.
    assert 0 < own.distance_sq.value <= own.length_sq.value
    assert 1 <= own.least_inefficiency.value <= own.inefficiency.value
    assert own.action.value == pytest.approx(drop, rel=0.05)
    assert own.loss_drop_ratio.value == pytest.approx(own.inefficiency.value, rel=0.05)
    assert lr * steps * drop > own.distance_sq.value
    assert own.name == "Gauss-Newton, damping 0.05"


def test_where_its_metric_is_flat_the_distance_is_exact(float64):
    flat, task = FlatModel(network(6, 2)), regression(20)
    own, seen, _ = paid(flat, task, 0.1, 8, damping=0.3)
    moved = seen[-1][1] - seen[0][0]
    truth = float(moved @ dense_metric(flat, task, moved, 0.3) @ moved)
    assert own.distance_sq.value == pytest.approx(truth, rel=1e-9)


def test_steps_longer_than_their_metric_reaches_bound_nothing(float64):
    # Wrong and sure of it: the metric is flat there, and one step turns every prediction over.
    layer = torch.nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-7.0], [7.0]]))
    flat = FlatModel(layer)
    split = Split(torch.ones(8, 1), torch.zeros(8, dtype=torch.long))
    task = capacity.Task(name="wrong", train=split, test=split)
    own, _, _ = paid(flat, task, 0.3, 1, damping=0.01)
    assert own.length_sq.value < own.distance_sq.value
    for bound_of in (own.inefficiency, own.length_sq, own.least_inefficiency):
        assert bound_of.status is Status.OUT_OF_REGIME
        assert "No bound" in bound_of.note
    assert own.distance_sq.status is Status.OK


def test_small_moves_are_as_far_apart_as_the_metric_says(float64):
    flat, task = FlatModel(network(64, 2, 3)), digits_task((0, 1, 2), 20)
    theta, moved = flat.initial(), torch.randn(len(flat.initial()))
    metric = bound(Natural(damping=0.05), flat, task).conditioner
    for size in (1e-3, 1e-5):  # far below what a cosine could tell from 1
        found = float(metric.least_sq(theta - 0.5 * size * moved, theta + 0.5 * size * moved))
        truth = float(moved @ dense_metric(flat, task, theta, 0.05) @ moved) * size**2
        assert found == pytest.approx(truth, rel=1e-4)


def test_other_metrics_say_what_is_not_known_of_them(float64):
    flat, task = FlatModel(network(6, 3, 2)), regression(20)
    own, _, _ = paid(flat, task, 0.02, 5, damping=0.1, curvature="diagonal")
    assert own.name == "diagonal Gauss-Newton, damping 0.1"
    assert own.distance_sq.value is own.inefficiency.value is None
    assert own.least_inefficiency.value >= 1
    assert paid(flat, task, 0.02, 5, damping=0.1, momentum=0.5)[0] is None


class Rescaled(torch.nn.Module):
    """A network whose parameters are told in other units: sinh of the ones that are trained."""

    def __init__(self, inner):
        super().__init__()
        self.inner = copy.deepcopy(inner).requires_grad_(requires_grad=False)
        pairs = [(n.replace(".", "_"), n, p) for n, p in inner.named_parameters()]
        self.names = [(own, name) for own, name, _ in pairs]
        for own, _, parameter in pairs:
            self.register_parameter(own, torch.nn.Parameter(parameter.detach().asinh()))

    def forward(self, x):
        told = {name: getattr(self, own).sinh() for own, name in self.names}
        return functional_call(self.inner, told, (x,))


def test_a_reparametrised_network_follows_the_same_functions_to_first_order(float64):
    # Fewer parameters than outputs, so that G alone is a metric.
    inner, task = network(3, 2), regression(20, 3)
    kinds = FlatModel(inner), FlatModel(Rescaled(inner))
    x, y = task.train.x, task.train.y

    def apart(update, lr):
        ends, starts = [], []
        for flat in kinds:
            theta = flat.initial()
            made = bound(update, flat, task) if isinstance(update, Natural) else update
            (after,) = made.advance(flat.loss(task), (theta,), x, y, lr, 1)
            starts.append(flat.outputs(theta, x))
            ends.append(flat.outputs(after, x))
        torch.testing.assert_close(*starts)
        return float((ends[0] - ends[1]).norm() / (ends[0] - starts[0]).norm())

    coarse, fine = (apart(Natural(damping=1e-12), lr) for lr in (1e-2, 1e-3))
    assert coarse / fine == pytest.approx(10, rel=0.05)
    assert fine < 1e-3
    plain = from_training(capacity.Training(optimizer="sgd"))
    assert apart(plain, 1e-3) > 0.05


@pytest.mark.slow  # a training, and its simulation
def test_a_simulation_of_a_linear_network_is_its_training(float64):
    flat, task, training = FlatModel(network(64, 3)), digits_task((0, 1, 2), 34), plan()
    order = DataOrder.planned(training, len(task.train), replicas=1, seed=0)
    made = simulate(flat, flat.initial()[None], task, training, order)
    path = trained(flat, task, training)
    torch.testing.assert_close(made.delta[0], run_map(path, path.like) - path.like)
    with pytest.raises(ValueError, match=r"optimizer = 'natural' states no flow"):
        flow_plan(training, 30, flat.layout)


def test_replicas_are_conditioned_each_by_its_own_batch(float64):
    flat, task = FlatModel(network(64, 2, 3)), digits_task((0, 1, 2), 20)
    metric = bound(Natural(), flat, task).conditioner
    theta = flat.initial() + 0.1 * torch.randn(2, len(flat.initial()))
    x, g = task.train.x.reshape(2, 10, -1), torch.randn_like(theta)
    both = conditioned(metric, theta, x, g)
    torch.testing.assert_close(both[1], metric.apply(theta[1], x[1], g[1]))
    assert conditioned(None, theta, x, g) is g


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"damping": 0.0}, r"options.damping = 0.0"),
        ({"groups": 0}, r"options.groups = 0"),
        ({"damping": -1.0}, r"options.damping = -1.0"),
        ({"curvature": "kfac"}, r"options.curvature = 'kfac' is not known; accepted: auto, exact"),
        ({"momentum": 1.0}, r"options.momentum = 1; give a number from 0 to below 1"),
        ({"metric": 1}, r"options = 'metric' is not known; accepted: damping, curvature"),
    ],
)
def test_options_out_of_range_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        plan(**options)


def test_what_it_cannot_read_a_metric_off_is_refused_by_name():
    flat, task = FlatModel(network(64, 3)), digits_task((0, 1, 2), 20)
    own = capacity.Task(
        name="own", train=task.train, test=task.test, loss=lambda f, y: f.square().mean()
    )
    with pytest.raises(ValueError, match=r"reads its metric off a loss by name"):
        Natural().bound(flat.outputs, own)
    with pytest.raises(ValueError, match=r"layers that train otherwise"):
        Natural().bound(flat.outputs, task, modes=True)
    with pytest.raises(ValueError, match=r"needs the network and the task"):
        Natural().advance(flat.loss(task), (flat.initial(),), task.train.x, task.train.y, 0.1, 1)
    with pytest.raises(ValueError, match=r"weight_decay = 0.1 goes with optimisers that have one"):
        capacity.Training(optimizer="natural", weight_decay=0.1)
    with pytest.raises(ValueError, match=r"training.groups do not go with"):
        from_training(
            capacity.Training(optimizer="natural", groups=[{"parameters": ["*"]}]),
            layout=flat.layout,
        )


@pytest.mark.slow  # conjugate gradients go on to their limit
def test_a_matrix_that_is_singular_to_rounding_is_refused_by_name():
    flat, task = FlatModel(network(64, 2, 3)), digits_task((0, 1, 2), 20)
    metric = bound(Natural(damping=1e-30), flat, task).conditioner
    theta = flat.initial()
    with pytest.raises(ValueError, match=r"options.damping = 1e-30 leaves the natural gradient"):
        metric.apply(theta, task.train.x, torch.randn(len(theta)))


@pytest.mark.slow  # a whole run with its report
def test_a_recipe_runs_with_it_under_a_strategy_and_forecasts(quick_run, tmp_path):
    made = capacity.run(
        [digits_task((0, 1), 24), digits_task((2, 3), 24)],
        model=network(64, 2, 4),
        training=plan(damping=0.1).model_copy(update={"clip_norm": 1.0, "strategy": _ewc()}),
        measure=capacity.Measure(
            level="forecast", transport=True, tangents=2, top_values=2, sweeps=1
        ),
        out=tmp_path / "run",
        quiet=True,
    )
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["phases"][1]["transport"]["singular_values"][0]["value"] > 0
    page = made.report().read_text()
    assert "natural" in page
    # Clipped: its steps are no steepest descent in a metric that is known.
    assert "Length², at least d²" not in page
    assert made.forecasts[0]["cost_ratio"]["value"] > 0


@pytest.mark.slow  # a whole run with its report
def test_a_run_reports_its_own_speed_limit(quick_run, tmp_path):
    made = capacity.run(
        [digits_task((0, 1), 24), digits_task((2, 3), 24)],
        model=network(64, 2, 4),
        training=plan(damping=0.1),
        measure={"level": "forecast"},
        replicas=1,
        out=tmp_path / "run",
        quiet=True,
    )
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    own = result["phases"][1]["thermo"]["geometry"]
    assert own["distance_sq"]["value"] <= own["length_sq"]["value"]
    assert own["least_inefficiency"]["value"] >= 1
    assert "metric of its batch" in own["action"]["note"]
    page = made.report().read_text()
    assert "Length², at least d²" in page
    assert "Gauss-Newton, damping 0.1" in page


def _ewc():
    return capacity.Training(strategy="ewc").strategy
