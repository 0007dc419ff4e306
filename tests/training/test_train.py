"""The training loop: what it computes, and that watching does not disturb."""

from __future__ import annotations

import torch
from torch import nn

from capacity.base.differential import slopes_of
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from capacity.tasks.task import Split, Task
from capacity.thermo.path import PathObserver
from capacity.training.data_order import DataOrder
from capacity.training.train import train
from quadratics import linear, quadratic


def blobs(n: int = 60) -> Task:
    y = torch.arange(n) % 3
    x = torch.randn(n, 5) + 2 * torch.eye(5)[y]
    return Task(name="blobs", train=Split(x, y), test=Split(x[:20], y[:20]))


def order(task: Task, training: Training, replicas: int, seed: int = 0) -> DataOrder:
    return DataOrder(
        samples=len(task.train),
        batch_size=training.batch_size,
        epochs=training.epochs,
        replicas=replicas,
        seed=seed,
    )


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def test_matches_a_plain_torch_loop(float64):
    task, training = blobs(), Training(optimizer="adam", lr=0.01, epochs=3, batch_size=16)
    modules = [network() for _ in range(2)]
    flat = FlatModel(modules[0])
    theta = torch.stack([FlatModel(m).initial() for m in modules])
    batches = order(task, training, replicas=2)
    phase = train(flat, theta, task, training, batches)
    for r, module in enumerate(modules):
        optimiser = torch.optim.Adam(module.parameters(), lr=0.01)
        for epoch in batches.epoch_batches(torch.device("cpu")):
            for index in epoch:
                x, y = task.train.x[index[r]], task.train.y[index[r]]
                optimiser.zero_grad()
                nn.functional.cross_entropy(module(x), y).backward()
                optimiser.step()
        expected = FlatModel(module).initial()
        torch.testing.assert_close(phase.theta[r], expected, rtol=1e-10, atol=1e-12)
    assert phase.steps == 3 * 4


def test_replicas_are_independent_of_their_number(float64):
    task, training = blobs(), Training(lr=0.1, epochs=2, batch_size=16)
    flat = FlatModel(network())
    theta = flat.initial().expand(3, -1)
    three = train(flat, theta, task, training, order(task, training, 3)).theta
    one = train(flat, theta[:1], task, training, order(task, training, 1)).theta
    torch.testing.assert_close(three[:1], one, rtol=1e-12, atol=1e-14)
    assert not torch.equal(three[0], three[1]), "replicas must have their own data order"


def test_watching_does_not_disturb():
    task, training = blobs(), Training(lr=0.1, epochs=2, batch_size=16)
    flat = FlatModel(network())
    theta = flat.initial().expand(4, -1).clone()
    alone = train(flat, theta, task, training, order(task, training, 4))
    watched = train(
        flat, theta, task, training, order(task, training, 4), observers=[PathObserver()]
    )
    assert torch.equal(alone.theta, watched.theta)


def test_divergence_is_an_outcome(float64):
    task = quadratic("A", torch.tensor([1.0, 4.0, 9.0]), seed=1).task
    training = Training(lr=1e6, epochs=400, batch_size=64)
    flat = FlatModel(linear(3))
    theta = flat.initial().expand(2, -1).clone()
    phase = train(flat, theta, task, training, order(task, training, 2))
    assert phase.diverged is not None
    assert phase.diverged.step == phase.steps + 1 < 400
    assert phase.diverged.replicas == (0, 1)
    assert torch.isfinite(phase.theta).all(), "theta is the last finite one"


def test_gradient_descent_on_a_quadratic(float64):
    made = quadratic("A", torch.tensor([0.3, 1.0, 2.0]), seed=2)
    training = Training(lr=0.2, epochs=30, batch_size=64)
    flat = FlatModel(linear(3))
    theta = flat.initial()[None]
    phase = train(flat, theta, made.task, training, order(made.task, training, 1))
    step = torch.eye(3) - 0.2 * made.hessian
    expected = made.minimum + torch.linalg.matrix_power(step, 30) @ (theta[0] - made.minimum)
    torch.testing.assert_close(phase.theta[0], expected, rtol=1e-10, atol=1e-12)
    loss = evaluate(flat, phase.theta, made.task, made.task.train).loss[0]
    torch.testing.assert_close(loss, made.loss(expected), rtol=1e-9, atol=1e-14)


def test_slopes_taken_outside_of_vmap_are_those_taken_inside(float64):
    task, flat = blobs(), FlatModel(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)))
    theta, x = torch.randn(2, flat.size), task.train.x.expand(2, -1, -1)
    y = task.train.y.expand(2, -1)
    outside, inside = (
        slopes_of(flat.loss(task), known=known)(theta, x, y) for known in (True, False)
    )
    torch.testing.assert_close(outside, inside, rtol=1e-12, atol=1e-14)
    constant, value = slopes_of(lambda point, y: y.sum(), known=True)(theta, torch.ones(2, 3))
    assert constant.abs().max() == 0
    assert value.tolist() == [3, 3]
