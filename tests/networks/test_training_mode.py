"""Dropout and batch norm train in training mode, and are scored in evaluation mode."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import capacity
from capacity.forecasting.mitigated import contribution_of
from capacity.networks.door import fit
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from capacity.strategies.step import StrategyStep
from capacity.strategies.terms import Source
from capacity.tasks.tensors import as_task
from capacity.training.data_order import DataOrder
from capacity.training.train import train

X = torch.randn(48, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
Y = (X[:, 0] > 0).long()
TASK = as_task((X, Y), share=0)
PLAN = Training(lr=0.1, epochs=3, batch_size=16)
ORDER = DataOrder(samples=48, batch_size=16, epochs=3, replicas=1, seed=5)


def network(drop=0.0):
    torch.manual_seed(0)
    layers = (nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(drop), nn.Linear(8, 2))
    return nn.Sequential(*layers).double()


def bound(module):
    flat = FlatModel(module)
    (task,) = fit(flat, flat.initial(), [TASK], twice=False, two_modes=True)
    assert flat.two_modes
    return flat, task


def test_batch_norm_trains_as_in_a_loop_of_torch():
    module = network()
    flat, task = bound(module)
    phase = train(flat, flat.initial()[None], task, PLAN, ORDER)
    own = copy.deepcopy(module)
    optimizer = torch.optim.SGD(own.parameters(), lr=0.1)
    for batches in ORDER.epoch_batches(torch.device("cpu")):
        for index in batches:
            optimizer.zero_grad()
            cross_entropy(own(X[index[0]]), Y[index[0]]).backward()
            optimizer.step()
    torch.testing.assert_close(phase.theta[0], FlatModel(own).initial(), rtol=1e-12, atol=1e-12)
    kept = flat.statistics()
    for name, buffer in own.named_buffers():
        torch.testing.assert_close(kept[f"0/{name}"], buffer)
    with torch.no_grad():
        loss = cross_entropy(own.eval()(X), Y)
    torch.testing.assert_close(evaluate(flat, phase.theta, task, task.test).loss[0], loss)


def test_accumulated_batches_are_normalised_each_by_itself():
    module = network()
    flat, task = bound(module)
    plan = Training(lr=0.1, epochs=2, batch_size=16, accumulate=2)  # the last step has one batch
    order = DataOrder(samples=48, batch_size=32, epochs=2, replicas=1, seed=5)
    phase = train(flat, flat.initial()[None], task, plan, order)
    own = copy.deepcopy(module)
    optimizer = torch.optim.SGD(own.parameters(), lr=0.1)
    for batches in order.epoch_batches(torch.device("cpu")):
        for index in batches:
            parts = index[0].split(16)
            optimizer.zero_grad()
            for part in parts:
                (cross_entropy(own(X[part]), Y[part]) / len(parts)).backward()
            optimizer.step()
    torch.testing.assert_close(phase.theta[0], FlatModel(own).initial(), rtol=1e-12, atol=1e-12)


def test_masks_are_those_of_the_seed_and_of_the_step():
    losses = []
    for seed in (5, 5, 6):
        flat, task = bound(network(0.5))
        torch.manual_seed(seed + len(losses))  # the global state has no say
        seen = []
        order = DataOrder(samples=48, batch_size=48, epochs=2, replicas=1, seed=seed)

        class Watch:
            def observe(self, step, seen=seen):
                seen.append(float(step.loss))

        train(flat, flat.initial()[None], task, Training(lr=1e-9), order, observers=[Watch()])
        losses.append(seen)
    assert losses[0] == losses[1] != losses[2]
    assert abs(losses[0][0] - losses[0][1]) > 1e-4, "each step has masks of its own"


def test_scores_are_taken_without_masks_and_move_nothing():
    flat, task = bound(network(0.5))
    before = {name: t.clone() for name, t in flat.statistics().items()}
    first, second = (evaluate(flat, flat.initial()[None], task, task.test) for _ in range(2))
    assert torch.equal(first.loss, second.loss)
    assert all(torch.equal(before[name], t) for name, t in flat.statistics().items())


def test_replicas_have_statistics_of_their_own_and_a_teacher_keeps_its():
    flat, task = bound(network())
    teacher = flat.as_it_is()
    theta = flat.initial()
    said = teacher.outputs(theta, X).clone()
    order = DataOrder(samples=48, batch_size=16, epochs=1, replicas=2, seed=5)
    train(flat, theta.expand(2, -1), task, PLAN, order)
    kept = flat.statistics()
    assert not torch.equal(kept["0/1.running_mean"], kept["1/1.running_mean"])
    with flat.training(0):
        assert torch.equal(teacher.outputs(theta, X), said)
        assert not torch.equal(flat.outputs(theta, X), said)
    again = FlatModel(network())
    fit(again, theta, [TASK], twice=False, two_modes=True)
    again.restore(kept)
    assert all(torch.equal(kept[name], t) for name, t in again.statistics().items())


@pytest.mark.parametrize("strategy", ["naive", "replay", "agem", "ewc", "lwf"])
def test_a_forecast_in_training_mode_leaves_the_module_as_it_was(strategy):
    module = network(0.2)
    before = copy.deepcopy(module.state_dict())
    old, new = (X.clone(), Y), (X.clone(), (X[:, 1] > 0).long())
    plan = Training(lr=0.1, epochs=40, batch_size=16, strategy={"name": strategy})
    forecast = capacity.forecast(module, old=old, new=new, training=plan)
    assert forecast.new_loss.value is not None
    assert module.training
    assert module[1].training
    assert all(torch.equal(before[name], t) for name, t in module.state_dict().items())


@pytest.mark.slow
def test_training_mode_is_another_network_than_evaluation():
    """With statistics of another law, the network that is scored is not the one that trains."""
    module = network()
    module[1].running_mean += 3.0
    old, new = (X, Y), (X, (X[:, 1] > 0).long())
    plan = Training(lr=0.1, epochs=40, batch_size=16)
    live = capacity.forecast(module, old=old, new=new, training=plan, budget=float("inf"))
    module.eval()
    fixed = capacity.forecast(module, old=old, new=new, training=plan, budget=float("inf"))
    assert abs(live.old[0].loss_increase.value - fixed.old[0].loss_increase.value) > 0.05


@pytest.mark.parametrize("name", ["ewc", "replay", "lwf", "agem"])
def test_replicas_with_masks_of_their_own_learn_under_a_strategy_as_each_alone(name):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 2)).double()
    flat, task = bound(module)
    plan = Training(lr=0.1, epochs=1, batch_size=16, strategy={"name": name})
    both = flat.initial() + 0.1 * torch.randn(2, flat.size, dtype=torch.float64)

    def step(theta):
        added = contribution_of(
            plan.strategy, flat, theta, (task,), task, plan, Source(0, ("test",))
        )
        return StrategyStep(flat, task, added, len(theta))

    together = step(both)
    x, rows, _ = together.draw(torch.arange(32).view(2, 16))
    gradients, losses = together.gradients(both, x, rows, lambda replica: 7 + replica)
    assert not torch.allclose(gradients[0], gradients[1])
    alone = step(both[:1])  # the first replica's memory is that of one alone
    with flat.training(7):
        gradient, loss = alone.gradient_of(0, both[0], x[0], rows[0])
    torch.testing.assert_close(gradients[0], gradient)
    torch.testing.assert_close(losses[0], loss)
    with flat.training(8):
        gradient, _ = together.gradient_of(1, both[1], x[1], rows[1])
    torch.testing.assert_close(gradients[1], gradient)


@pytest.mark.slow
def test_a_run_of_two_replicas_with_dropout_under_a_strategy(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))
    x = X.float()
    made = capacity.run(
        tasks=[(x, Y), (x, 1 - Y)], model=module, replicas=2, quiet=True, out=tmp_path / "run",
        training=Training(lr=0.1, epochs=2, batch_size=16, strategy="ewc"),
        measure=capacity.Measure(level="forecast", strategies=[]),
    )  # fmt: skip
    drop = made.measured[0]["old"][0]["accuracy_drop"]
    assert drop["n"] == 2
    assert drop["interval"][0] <= drop["value"] <= drop["interval"][1]
