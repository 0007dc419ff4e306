"""An optimiser as a user would add it: one class in one file, and one line that registers it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

import capacity
from capacity.jacobian.own_step_check import check_step
from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.networks.flat_model import FlatModel
from capacity.optimizers import REGISTRY, register
from capacity.optimizers.dynamics import Dynamics
from capacity.optimizers.from_recipe import from_training
from capacity.optimizers.optimizer import NormalisedSteps, Optimizer
from capacity.optimizers.update_map import State
from capacity.recipe import config
from capacity.records.estimate import Status
from dense import dense_jacobian, digits_task, network, run_map, trained


@dataclass(frozen=True)
class Bare(Optimizer):
    """Lion (Chen et al. 2023, arXiv 2302.06675) as its paper gives it, and nothing stated.

    Attributes:
        beta1: Weight of the moment in the direction.
        beta2: Decay of the moment.
        width: Where the sign turns into tanh(./width), so that it has a slope; 0 is the sign.
        weight_decay: Decoupled.
    """

    beta1: float = 0.9
    beta2: float = 0.99
    width: float = 0.0
    weight_decay: float = 0.0
    name: str = "bare"

    def init(self, theta: Tensor) -> State:
        return (theta, torch.zeros_like(theta))

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        del count
        theta, m = state
        aim = self.beta1 * m + (1 - self.beta1) * gradient
        aim = torch.tanh(aim / self.width) if self.width else aim.sign()
        theta = theta * (1 - lr * self.weight_decay) - lr * aim
        return (theta, self.beta2 * m + (1 - self.beta2) * gradient)


@dataclass(frozen=True)
class Lion(Bare):
    """With the facts that let every feature work."""

    name: str = "lion"
    elementwise = True

    def learning_time(self, rates: float) -> None:
        """Signs are no gradient flow."""
        del rates

    def dynamics(self, *, full: bool) -> Dynamics:
        del full
        return Dynamics.OTHER

    def compression(self) -> NormalisedSteps:
        def stretched(stretch: float) -> Lion:
            beta1 = self.beta1 ** math.sqrt(stretch)
            return replace(self, beta1=beta1, beta2=self.beta2**stretch)

        return NormalisedSteps(stretched)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(REGISTRY, "own", {})
    register("lion", Lion)
    register("bare", Bare)


def plan(name="lion", **changes):
    options = {"lr": 0.003, "epochs": 3, "batch_size": 16, "options": {"width": 0.01}}
    return capacity.Training(optimizer=name, **{**options, **changes})


def tasks():
    net = network(64, 4, 10)
    old, new = digits_task((0, 1), 60), digits_task((2, 3), 60)
    return net, old, new


def relative(error, truth):
    return float((error - truth).norm() / truth.norm())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lion", "bare"])
def test_its_jacobian_is_exact(name, float64):
    path = trained(
        FlatModel(network(64, 3, 10)), digits_task(count=96), plan(name, weight_decay=0.1)
    )
    dense, jacobian = dense_jacobian(path), TrainingJacobian([path])
    v, u = torch.randn(3, jacobian.size), torch.randn(3, jacobian.size)
    assert relative(jacobian.forward(v), v @ dense.T) < 1e-10
    assert relative(jacobian.adjoint(u), u @ dense) < 1e-10
    assert relative(jacobian.forward(v), v) > 0.02, "long enough to be told from doing nothing"
    moved = 1e-6 * v[0]
    seen = (run_map(path, path.like + moved) - run_map(path, path.like - moved)) / 2e-6
    assert relative(seen, dense @ v[0]) < 1e-5


@pytest.mark.slow
def test_a_recipe_runs_with_it_and_goes_on(quick_run, tmp_path):
    recipe = config.load("tiny-digits", [
        "tasks.samples=32", "replicas=2", "measure.closure_points=0", "training.epochs=2",
        "measure.tangents=2", "measure.top_values=2", "measure.sweeps=2",
        "measure.log_volume_columns=0",
        "measure.capacity_probes=2", "measure.capacity_nodes=2", "measure.curvature_samples=16",
        "training.optimizer=lion", "training.lr=0.003", "training.options={width: 0.01}",
        "measure.forecast_budget=auto",
    ])  # fmt: skip
    made = capacity.run(recipe, out=tmp_path / "run", quiet=True)
    assert made.status == "finished"
    assert made.result["recipe"]["training"]["options"] == {"width": 0.01}
    phase = made.result["phases"][0]
    assert phase["transport"]["singular_values"][0]["value"] > 1
    prices = [entry["cost_ratio"] for entry in made.forecasts]
    assert all("Simulated" not in price["note"] for price in prices)
    REGISTRY.own.clear()
    with pytest.raises(ValueError, match=r"training.optimizer = 'lion' is not known; accepted"):
        capacity.resume(tmp_path / "run", quiet=True)


def test_it_is_forecast_by_a_compressed_training_that_nobody_calibrated():
    net, old, new = tasks()
    made = capacity.forecast(net, old=old, new=new, training=plan(epochs=20), budget=0.5)
    assert made.cost_ratio.value < 0.6
    assert made.accuracy_drop.status is Status.UNCALIBRATED
    assert "no optimizer 'lion'" in made.accuracy_drop.note


def test_without_a_compression_it_is_simulated_by_name():
    net, old, new = tasks()
    made = capacity.forecast(net, old=old, new=new, training=plan("bare"), orders=2)
    assert "no cheaper forecast knows optimizer 'bare'" in made.cost_ratio.note


@pytest.mark.slow
def test_verdicts_follow_its_forecast_or_refuse():
    net, old, new = tasks()
    made = capacity.verdict(net, old=old, new=new, training=plan(epochs=20))
    assert "Steps of 'lion'" in made.why
    assert made.directional.value.value is not None
    with pytest.raises(ValueError, match=r"optimizer 'bare' states no learning time; give its"):
        capacity.verdict(net, old=old, new=new, training=plan("bare"))


def test_it_has_a_cost_and_no_speed_limit():
    net, old, _ = tasks()
    made = capacity.epistemic_speed_limit(net, old, training=plan(), replicas=4)
    assert made.records[0].dynamics is Dynamics.OTHER
    assert made.tasks[0].optimizer == "lion"
    with pytest.raises(ValueError, match=r"'bare' is a Bare, whose dynamics is not known here"):
        capacity.epistemic_speed_limit(net, old, training=plan("bare"), replicas=4)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("lion", {"beta": 0.9}, r"options = 'beta' is not known; accepted: beta1, beta2"),
        ("lion", {"beta1": "0.9"}, r"options.beta1 = '0.9': Input should be a valid number"),
        ("sgd", {"beta1": 0.9}, r"options = .* those of 'sgd' are fields of training"),
        ("tiger", {}, r"'tiger' is not known; accepted: 'sgd', .*, 'lion', 'bare'"),
    ],
)
def test_what_it_does_not_know_is_refused_by_name(name, options, said):
    with pytest.raises(ValueError, match=said):
        plan(name, options=options)


def test_a_function_goes_the_same_way():
    def soft(state, g, lr, count):
        theta, m = state
        return theta - lr * g / (g.norm() + 0.1), 0.9 * m + g

    step = capacity.GradientStep(soft, moments=1, name="normed")
    training = capacity.Training(optimizer=step, lr=0.01, epochs=2, batch_size=16)
    assert training.optimizer == "normed"
    update = from_training(training)
    theta, g = torch.randn(2, 5), torch.randn(2, 5)
    both = update.step(update.init(theta), g, 0.1, 1)
    alone = update.step(update.init(theta[0]), g[0], 0.1, 1)
    torch.testing.assert_close(both[0][0], alone[0])
    net, old, new = tasks()
    made = capacity.forecast(net, old=old, new=new, training=training, orders=2)
    assert "no cheaper forecast knows optimizer 'normed'" in made.cost_ratio.note
    with pytest.raises(ValueError, match=r"weight_decay = 0.1 does not reach the step 'normed'"):
        capacity.Training(optimizer=step, weight_decay=0.1)


def test_a_batch_step_is_refused_by_name():
    step = capacity.BatchStep(lambda loss, state, x, y, lr, count: state, name="SAM")
    with pytest.raises(ValueError, match=r"batch step 'SAM' .* capacity.TransportTracker"):
        capacity.Training(optimizer=step)


@pytest.mark.slow
def test_a_wrong_claim_is_found_out(float64):
    @dataclass(frozen=True)
    class Normed(Lion):
        name: str = "normed"

        def step(self, state, gradient, lr, count):
            return (state[0] - lr * gradient / gradient.norm(dim=-1, keepdim=True), state[1])

    path = trained(
        FlatModel(network(64, 3, 10)), digits_task(count=48), plan(epochs=1), update=Normed()
    )
    with pytest.raises(ValueError, match=r"'normed' states .* elementwise, and its Jacobian is an"):
        check_step(path.loss, next(path.forwards()))


def test_a_step_that_mixes_replicas_is_refused():
    @dataclass(frozen=True)
    class Mixed(Bare):
        def step(self, state, gradient, lr, count):
            return (state[0] - lr * gradient / gradient.norm(), state[1])

    register("mixed", Mixed)
    with pytest.raises(ValueError, match=r"'mixed' steps otherwise with other replicas beside it"):
        from_training(plan("mixed"))


def test_the_packages_names_stay_its_own():
    with pytest.raises(ValueError, match=r"name = 'sgd' is the package's own"):
        register("sgd", Lion)
