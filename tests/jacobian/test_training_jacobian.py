"""Products with J_t against dense Jacobians, finite differences and closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.jacobian.trajectory import Trajectory
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.sgd import SGD
from capacity.recipe.config import Training
from dense import dense_jacobian, digits_task, network, run_map, trained
from quadratics import linear, quadratic

pytestmark = pytest.mark.slow

TRAININGS = {
    "sgd": Training(lr=0.3, epochs=3, batch_size=48),
    "momentum": Training(optimizer="momentum", lr=0.05, epochs=3, batch_size=48),
    "adam": Training(optimizer="adam", lr=0.01, epochs=3, batch_size=48, schedule="cosine"),
    "sgd, decay": Training(lr=0.3, epochs=2, batch_size=48, weight_decay=0.05),
    "nesterov": Training(
        optimizer="momentum", nesterov=True, weight_decay=0.01, lr=0.03, epochs=2, batch_size=48
    ),
    "adamw": Training(optimizer="adamw", lr=0.01, epochs=2, batch_size=48, weight_decay=0.1),
    "rmsprop": Training(optimizer="rmsprop", lr=0.003, epochs=2, batch_size=48),
    "clipped": Training(optimizer="momentum", lr=0.05, epochs=2, batch_size=48, clip_norm=0.3),
}


SHORT_LAST_BATCH = {"sgd", "adam"}
"""Whose samples are no multiple of the batch: another shape is another graph to trace."""

ROWS, CHUNK = 5, 3
"""The same in every test of the shared paths, so that their graphs are traced once."""


def path_of(name, **options):
    """Always the same training, whatever the test drew before."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        task = digits_task(count=200 if name in SHORT_LAST_BATCH else 192)
        return trained(FlatModel(network(64, 4, 10)), task, TRAININGS[name], **options)


@pytest.fixture(scope="module", params=TRAININGS)
def shared(request):
    """One training with each optimiser, which no test changes."""
    torch.set_default_dtype(torch.float64)
    made = path_of(request.param)
    torch.set_default_dtype(torch.float32)
    return made


@pytest.fixture
def trajectory(shared, float64):
    return shared


def relative(error, truth):
    return float((error - truth).norm() / truth.norm())


def test_products_match_the_dense_jacobian(trajectory):
    dense = dense_jacobian(trajectory)
    jacobian = TrainingJacobian([trajectory])
    v, u = torch.randn(ROWS, jacobian.size), torch.randn(ROWS, jacobian.size)
    jv, jtu = jacobian.forward(v), jacobian.adjoint(u)
    assert relative(jv, v @ dense.T) < 1e-10
    assert relative(jtu, u @ dense) < 1e-10
    torch.testing.assert_close((jv * u).sum(-1), (v * jtu).sum(-1), rtol=1e-10, atol=1e-10)
    # The training is long enough to be told from doing nothing.
    assert relative(jv, v) > 0.05


def test_finite_differences_of_the_training_itself(trajectory):
    v = torch.randn(ROWS, trajectory.size)
    v = v / v.norm(dim=1, keepdim=True)
    h = 1e-5
    ahead, behind = (run_map(trajectory, trajectory.like + s * h * v[0]) for s in (1, -1))
    moved = (ahead - behind) / (2 * h)
    assert relative(TrainingJacobian([trajectory]).forward(v)[0], moved) < 1e-6


def test_recomputed_states_give_the_same_products(trajectory, request):
    name = request.node.callspec.params["shared"]
    state_bytes = trajectory.size * 8 * len(trajectory.update.init(trajectory.like))
    few = path_of(name, budget=4 * state_bytes)
    assert few.stride >= 4
    assert trajectory.stride == 1
    few.products = trajectory.products  # the loss is the same, and its graphs stand
    v = torch.randn(ROWS, trajectory.size)
    for direction in ("forward", "adjoint"):
        one, other = (getattr(TrainingJacobian([t]), direction)(v) for t in (trajectory, few))
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_diagonals_agree_with_the_general_path(trajectory, monkeypatch):
    v = torch.randn(ROWS, trajectory.size)
    products = TrainingJacobian([trajectory])
    quick = products.forward(v), products.adjoint(v)
    monkeypatch.setattr(type(trajectory.update), "elementwise", False)
    for found, general in zip(quick, (products.forward(v), products.adjoint(v)), strict=True):
        assert relative(found, general) < 1e-12


def test_chunks_do_not_change_the_products(trajectory):
    v = torch.randn(ROWS, trajectory.size)
    whole, parts = TrainingJacobian([trajectory]), TrainingJacobian([trajectory], chunk=CHUNK)
    torch.testing.assert_close(whole.forward(v), parts.forward(v), rtol=1e-11, atol=1e-12)
    assert whole.products == {
        "forward": ROWS,
        "adjoint": 0,
        "gradients": ROWS * len(trajectory),
    }


def test_phases_compose(float64):
    model = FlatModel(network(64, 4, 10))
    training = TRAININGS["momentum"]
    first = trained(model, digits_task((0, 1, 2)), training)
    second = trained(model, digits_task((3, 4, 5)), training)
    dense = dense_jacobian(second) @ dense_jacobian(first)
    jacobian = TrainingJacobian([first, second])
    v = torch.randn(4, model.size)
    assert relative(jacobian.forward(v), v @ dense.T) < 1e-10
    assert relative(jacobian.adjoint(v), v @ dense) < 1e-10


def test_quadratic_task(float64):
    made = quadratic("A", torch.tensor([0.2, 1.0, 3.0]), seed=1)
    trajectory = trained(FlatModel(linear(3)), made.task, Training(lr=0.1, epochs=20))
    expected = torch.linalg.matrix_power(torch.eye(3) - 0.1 * made.hessian, 20)
    found = TrainingJacobian([trajectory]).forward(torch.eye(3))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_float32_stays_close(float64):
    training = TRAININGS["momentum"]
    model = network(64, 4, 10)
    exact = TrainingJacobian([trained(FlatModel(model), digits_task(), training)])
    torch.set_default_dtype(torch.float32)
    rough = TrainingJacobian([trained(FlatModel(model.float()), digits_task(), training)])
    v = torch.randn(3, exact.size)
    assert relative(rough.forward(v).double(), exact.forward(v.double())) < 1e-4


def test_bad_input(float64):
    with pytest.raises(ValueError, match="trajectories is empty"):
        TrainingJacobian([])
    task = digits_task()
    trajectory = trained(FlatModel(network(64, 4, 10)), task, TRAININGS["sgd"])
    jacobian = TrainingJacobian([trajectory])
    with pytest.raises(ValueError, match=rf"tangents has shape \(3,\).*{jacobian.size}"):
        jacobian.forward(torch.zeros(3))
    with pytest.raises(ValueError, match="cotangents has shape"):
        jacobian.adjoint(torch.zeros(2, 3))
    other = trained(FlatModel(network(64, 5, 10)), task, TRAININGS["sgd"])
    with pytest.raises(ValueError, match="phases compose on the same theta"):
        TrainingJacobian([trajectory, other])
    with pytest.raises(ValueError, match="has no step"):
        TrainingJacobian([Trajectory(trajectory.loss, trajectory.update)])
    with pytest.raises(ValueError, match="parameters at step"):
        trajectory.record((torch.zeros(3),), task.train.x, task.train.y, 0.1)
    bad = torch.full((1, jacobian.size), 1e308)
    with pytest.raises(FloatingPointError, match="step 1 of phase 0"):
        jacobian.forward(bad * 10)


def test_a_tangent_that_overflows_names_step_and_parameter():
    flat = FlatModel(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)))
    path = Trajectory(lambda t, x, y: (flat.outputs(t, x) ** 2).mean(), SGD(), layout=flat.layout)
    for _ in range(2):
        path.record((flat.initial(),), torch.ones(4, 3), torch.zeros(4), 0.1)
    broken = torch.zeros(2, flat.size)
    broken[1, -1] = torch.inf  # H mixes it into all that sees the output: the first is named
    with pytest.raises(FloatingPointError, match=r"step 1 of phase 0, first in parameter '0\."):
        TrainingJacobian([path]).forward(broken)


def test_products_may_take_the_place_of_what_they_are_made_of(trajectory):
    jacobian = TrainingJacobian([trajectory], chunk=CHUNK)
    for product in (jacobian.forward, jacobian.adjoint):
        rows = torch.randn(ROWS, jacobian.size)
        wanted, kept, elsewhere = product(rows), rows.clone(), torch.empty_like(rows)
        assert product(rows, out=elsewhere) is elsewhere
        assert torch.equal(elsewhere, wanted)
        assert torch.equal(rows, kept)
        assert product(rows, out=rows) is rows
        assert torch.equal(rows, wanted)


@pytest.mark.parametrize("out", [torch.empty(2, 3), torch.empty(5, 314, dtype=torch.float32)])
def test_a_result_that_does_not_fit_is_refused(out, float64):
    trajectory = trained(FlatModel(network(64, 4, 10)), digits_task(), TRAININGS["sgd"])
    jacobian = TrainingJacobian([trajectory])
    rows = torch.randn(5, jacobian.size)
    with pytest.raises(ValueError, match=r"out has shape .* pass a tensor of shape \(5, "):
        jacobian.forward(rows, out=out)
