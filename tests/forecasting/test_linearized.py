"""The linearised simulation: exact where the model is linear, and honest about its price."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from capacity.forecasting.linearized import (
    cost_ratio,
    linearized_scores,
    simulate,
    simulate_stably,
)
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from capacity.strategies.contribution import Contribution
from capacity.strategies.penalties import Quadratic
from capacity.tasks.task import Split, Task
from capacity.training.data_order import DataOrder
from capacity.training.train import train
from quadratics import linear, quadratic


def classes(name: str, labels: tuple[int, int], seed: int) -> Task:
    generator = torch.Generator().manual_seed(seed)
    y = torch.tensor(labels).repeat(30)
    x = torch.randn(60, 6, generator=generator) + torch.eye(6)[y]
    x = x.to(torch.get_default_dtype())
    return Task(name=name, train=Split(x, y), test=Split(x[:20], y[:20]))


def orders(task: Task, training: Training, replicas: int, seed: int = 0) -> DataOrder:
    return DataOrder(
        samples=len(task.train),
        batch_size=training.batch_size,
        epochs=training.epochs,
        replicas=replicas,
        seed=seed,
    )


OPTIMIZERS = {
    "sgd": {},
    "sgd, decay": {"weight_decay": 0.5},
    "momentum": {"optimizer": "momentum"},
    "adam": {"optimizer": "adam"},
    "adamw, decay": {"optimizer": "adamw", "weight_decay": 0.5},
    "sgld": {"optimizer": "sgld", "temperature": 0.01},
}


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_exact_for_a_linear_head(optimizer, schedule):
    training = Training(
        lr=0.05, schedule=schedule, epochs=8, batch_size=16, **OPTIMIZERS[optimizer]
    )
    old, new = classes("A", (0, 1), 1), classes("B", (2, 3), 2)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4))
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    flat = FlatModel(model)
    theta = flat.initial().expand(3, -1).clone()
    theta = train(flat, theta, old, training, orders(old, training, 3)).theta
    batches = orders(new, training, 3, seed=7)

    delta = simulate(flat, theta, new, training, batches).delta
    before, forecast = linearized_scores(flat, theta, delta, old, old.test)
    after = evaluate(flat, train(flat, theta, new, training, batches).theta, old, old.test)

    torch.testing.assert_close(forecast.loss, after.loss, rtol=1e-5, atol=0)
    assert torch.equal(forecast.accuracy, after.accuracy)
    assert (after.loss - before.loss).min() > 0.1, "the case must forget, or it shows nothing"


def test_forgetting_of_a_quadratic_task(float64):
    old = quadratic("A", torch.tensor([0.5, 1.0, 2.0]), seed=4)
    new = quadratic("B", torch.tensor([0.1, 1.5, 3.0]), seed=5)
    lr, steps = 0.1, 17
    training = Training(lr=lr, epochs=steps, batch_size=1000)
    flat = FlatModel(linear(3))
    theta = old.minimum[None]  # converged on A
    batches = orders(new.task, training, 1)
    delta = simulate(flat, theta, new.task, training, batches).delta
    before, after = linearized_scores(flat, theta, delta, old.task, old.task.test)

    q = torch.eye(3) - torch.linalg.matrix_power(torch.eye(3) - lr * new.hessian, steps)
    gap = new.minimum - old.minimum
    expected = 0.5 * gap @ q @ old.hessian @ q @ gap
    assert float(after.loss - before.loss) == pytest.approx(float(expected), rel=1e-6)


def test_cost_is_counted_and_below_three_gradients():
    task = classes("A", (0, 1), 1)
    flat = FlatModel(nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 4)))
    ratio = cost_ratio(flat, flat.initial(), task, 16)
    assert 1 < ratio < 3


def squares(task: Task, width: int) -> Task:
    """The task with one-hot targets of the half squared error."""
    y = torch.nn.functional.one_hot(task.train.y, width).to(task.train.x)
    return Task(
        name=task.name, train=Split(task.train.x, y), test=Split(task.train.x, y), loss="mse"
    )


@pytest.mark.slow
def test_a_network_leaves_an_unstable_region_and_the_forecast_follows():
    torch.manual_seed(0)
    new = squares(classes("B", (2, 3), 2), 4)
    flat = FlatModel(nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 4)))
    theta = flat.initial()[None]
    training = Training(lr=0.5, epochs=60, batch_size=60)  # 2.8 over the largest curvature
    batches = orders(new, training, 1)
    trained = train(flat, theta, new, training, batches).theta
    reached = evaluate(flat, trained, new, new.train).loss
    naive = simulate(flat, theta, new, training, batches)
    assert not naive.stable
    made = simulate_stably(flat, theta, new, training, batches)
    assert made.stable
    assert made.spent > 1
    _, forecast = linearized_scores(flat, theta, made.delta, new, new.train)
    assert float(forecast.loss) == pytest.approx(float(reached), rel=0.2)
    assert float(reached) < 0.25 * float(evaluate(flat, theta, new, new.train).loss)


@pytest.mark.slow
def test_what_diverges_in_truth_diverges_in_the_forecast():
    new = squares(classes("B", (2, 3), 2), 4)
    flat = FlatModel(nn.Linear(6, 4))
    theta = flat.initial()[None]
    training = Training(lr=2.0, epochs=30, batch_size=60)
    made = simulate_stably(flat, theta, new, training, orders(new, training, 1))
    assert not made.stable, "a linear model has nowhere to go"
    assert made.spent == 1
    net = FlatModel(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)))
    theta = net.initial()[None]
    slow = Training(lr=0.01, epochs=30, batch_size=60)
    penalty = Quadratic.around(theta, torch.full_like(theta, 500.0))
    plan = Contribution(training=slow, penalty=penalty)
    made = simulate_stably(net, theta, new, slow, orders(new, slow, 1), contribution=plan)
    assert not made.stable, "the penalty is what it is"
    assert made.spent == 1
