"""No place answers for a method that it does not know: a foreign name walks all of them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

import capacity
from capacity.criterion.criterion import assess_transition
from capacity.forecasting.compression import compress, steps_wanted, unknown_to_compression
from capacity.forecasting.corpus import Conditions
from capacity.forecasting.engine import forecast_cheaply
from capacity.forecasting.kernel_flow import integrate, learning_time
from capacity.forecasting.shipped import shipped
from capacity.networks.flat_model import FlatModel
from capacity.networks.models import build_model
from capacity.optimizers.adam import Adam
from capacity.optimizers.clipped import Clipped
from capacity.optimizers.from_recipe import from_training
from capacity.optimizers.momentum import Momentum
from capacity.optimizers.optimizer import stated
from capacity.recipe.config import Model, Strategy, Training
from capacity.strategies.mitigation import from_options
from capacity.tasks.task import LOSSES, SAMPLE_LOSSES, Split, Task
from capacity.thermo.update_kinds import time_scale_of
from dense import digits_task, network


def foreign(**options) -> Training:
    """A plan whose optimiser nobody knows, as a later version or a plug-in could bring it."""
    return Training.model_construct(**{
        **Training().model_dump(), "strategy": Strategy(), "optimizer": "lion", **options,
    })  # fmt: skip


@dataclass(frozen=True)
class Lion:
    """Steps of one size along the sign of the gradient."""

    name: str = "lion"
    plain: bool = False

    def init(self, theta):
        return (theta,)

    def step(self, state, gradient, lr, count):
        del count
        return (state[0] - lr * gradient.sign(),)


def transition():
    return FlatModel(network(64, 6, 10)), digits_task((0, 1), 30), digits_task((2, 3), 30)


@pytest.mark.parametrize(
    "ask",
    [
        lambda plan: from_training(plan),
        lambda plan: learning_time(plan, 100),
        lambda plan: learning_time(plan.model_copy(update={"clip_norm": 1.0}), 100),
        lambda plan: steps_wanted(plan, 100),
        lambda plan: compress(plan, 100, steps=8, batch=8),
    ],
)
def test_an_unknown_optimiser_is_refused_by_name(ask):
    with pytest.raises(ValueError, match=r"training.optimizer = 'lion' is not known; accepted: .*"):
        ask(foreign())


def test_no_calibration_and_no_compression_speaks_of_an_unknown_optimiser():
    assert unknown_to_compression(foreign()) == "optimizer 'lion'"
    conditions = Conditions(
        training=foreign(), strategy="naive", samples=1000, parameters=3000, budget=0.05,
        losses=frozenset({"cross_entropy"}), architecture="mlp", old_tasks=1,
    )  # fmt: skip
    assert "no optimizer 'lion'" in shipped().why_not(conditions)


def test_the_doors_refuse_an_unknown_optimiser():
    flat, old, new = transition()
    model = network(64, 6, 10)
    refused = pytest.raises(ValueError, match=r"training.optimizer = 'lion' is not known")
    with refused:
        assess_transition(flat, flat.initial(), [old], new, foreign())
    with refused:
        forecast_cheaply(flat, flat.initial(), (old,), new, foreign(), budget=0.5)
    for budget in ("auto", None):
        with refused:
            capacity.forecast(model, old=old, new=new, training=foreign(), budget=budget)
    with refused:
        capacity.verdict(model, old=old, new=new, training=foreign())
    with refused:
        capacity.epistemic_speed_limit(model, old, training=foreign(), replicas=4)


@pytest.mark.parametrize("update", [Lion(), Clipped(Lion(), 1.0)])
def test_a_foreign_update_map_has_no_known_dynamics(update):
    state, update = (torch.zeros(3),), stated(update)
    for ask in (
        lambda: update.dynamics(full=True),
        lambda: time_scale_of(update),
        lambda: update.kinetic_energy(state, state, 0.1),
    ):
        with pytest.raises(ValueError, match=r"'lion' is a Lion, whose dynamics is not known"):
            ask()
    own = capacity.GradientStep(lambda state, gradient, lr, count: (state[0] - lr * gradient,))
    for known in (own, Adam(), Clipped(Momentum(), 1.0)):
        assert known.dynamics(full=True).value == "other"
        assert time_scale_of(known) == 1.0


def test_an_unknown_schedule_strategy_or_network_is_refused_by_name():
    with pytest.raises(ValueError, match=r"training.schedule = 'warmup' is not known"):
        foreign(optimizer="sgd", schedule="warmup").learning_rates(100)

    class PackNet(Strategy):
        """What nobody has registered, as a later version or a plug-in could bring it."""

        name = "packnet"

    options = PackNet()
    with pytest.raises(ValueError, match=r"training.strategy.name = 'packnet' is not known"):
        from_options(options)
    kind = Model.model_construct(**{**Model().model_dump(), "kind": "mamba"})
    with pytest.raises(ValueError, match=r"model.kind = 'mamba' is not known"):
        build_model(kind, (4,), 2, 0)


@pytest.mark.slow
def test_a_loss_that_is_registered_later_has_its_curvature_measured(monkeypatch, float64):
    """Ten times the squared error: a flow that took another's bound would be unstable."""
    monkeypatch.setitem(SAMPLE_LOSSES, "steep", lambda f, y: 5 * (f - y).square().sum(1))
    monkeypatch.setitem(LOSSES, "steep", lambda f, y: SAMPLE_LOSSES["steep"](f, y).mean())
    split = Split(torch.eye(3), torch.ones(3, 1))
    task = Task(name="A", train=split, test=split, loss="steep")
    flow = integrate(torch.eye(3), task, torch.zeros(3, 1), split.y, [3 * 10 * 0.1])[0]
    # Each output follows f' = 10 (1 - f) / 3.
    expected = 1 - torch.exp(torch.tensor(-10.0))
    assert flow.outputs.flatten().tolist() == pytest.approx([float(expected)] * 3, abs=5e-3)
