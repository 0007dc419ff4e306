"""The cheap engine: the training itself for its whole budget, close to it for a tenth."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import capacity
from capacity.forecasting.compression import Pace, compress, excess_noise, steps_wanted
from capacity.forecasting.engine import _batches, forecast_cheaply
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Strategy, Training
from capacity.records.estimate import Status
from capacity.strategies import REGISTRY
from capacity.tasks.task import Split, Task
from capacity.training.data_order import DataOrder
from capacity.training.train import train


def split(n=80, width=6, classes=4, seed=0, shape=None, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *(shape or (width,)), generator=generator, dtype=dtype)
    weights = torch.randn(x[0].numel(), classes, generator=generator, dtype=dtype)
    return Split(x, (x.flatten(1) @ weights).argmax(-1))


def task(name, seed, **kind):
    return Task(name=name, train=split(seed=seed, **kind), test=split(seed=seed + 1, **kind))


def learnable(name, turn=0, n=600):
    """Four linearly separable classes; a turn renames them."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2 * n, 6, generator=generator)
    y = ((x @ torch.randn(6, 4, generator=generator)).argmax(-1) + turn) % 4
    return Task(name=name, train=Split(x[:n], y[:n]), test=Split(x[n:], y[n:]))


def model_of(module, seed=0):
    torch.manual_seed(seed)
    return FlatModel(module())


def mlp(width=16):
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 4))


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(64, 4),
    )  # fmt: skip


def trained(model, theta, new, training, seed=0):
    order = DataOrder(
        samples=len(new.train),
        batch_size=training.batch_size,
        epochs=training.epochs,
        replicas=1,
        seed=seed,
    )
    return train(model, theta[None], new, training, order).theta[0]


def rise_of(model, task, before, after):
    now, then = (task.loss_of(model.outputs(t, task.test.x), task.test.y) for t in (after, before))
    return float(now - then)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("budget", [3.0, math.inf])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw", "rmsprop"])
def test_a_budget_of_the_whole_training_is_that_training(loss, optimizer, budget):
    model = model_of(lambda: mlp().double())
    tasks = []
    for name, seed in (("old", 0), ("new", 5)):
        made = task(name, seed, n=40, dtype=torch.float64)
        if loss == "mse":
            parts = (made.train, made.test)
            one_hot = [Split(s.x, nn.functional.one_hot(s.y, 4).double()) for s in parts]
            made = Task(name=name, train=one_hot[0], test=one_hot[1], loss=loss)
        tasks.append(made)
    old, new = tasks
    theta = model.initial()
    # Full batches: there is one data order only.
    training = Training(
        optimizer=optimizer, lr=0.01, epochs=30, batch_size=40, schedule="cosine", weight_decay=0.01
    )
    said = forecast_cheaply(model, theta, (old,), new, training, budget=budget)
    assert (said.steps, said.batch) == (30, 40)
    after = trained(model, theta, new, training)
    assert said.old[0].rise.value == pytest.approx(rise_of(model, old, theta, after), rel=1e-9)
    assert said.new.loss.value == pytest.approx(
        float(new.loss_of(model.outputs(after, new.test.x), new.test.y)), rel=1e-9
    )


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_a_tenth_of_the_training_says_what_all_of_it_does(optimizer):
    model = model_of(lambda: mlp(64))
    old, new = learnable("old"), learnable("new", turn=1)
    plans = {"sgd": 0.1, "momentum": 0.02, "adam": 0.002}
    training = Training(optimizer=optimizer, lr=plans[optimizer], epochs=30, batch_size=32)
    theta = trained(model, model.initial(), old, training)
    after = trained(model, theta, new, training)
    said = forecast_cheaply(model, theta, (old,), new, training, budget=0.1)
    measured = rise_of(model, old, theta, after)
    assert measured > 1
    assert said.old[0].rise.value == pytest.approx(measured, rel=0.45)
    right = [
        float((model.outputs(t, old.test.x).argmax(-1) == old.test.y).double().mean())
        for t in (theta, after)
    ]
    assert said.old[0].drop.value == pytest.approx(right[0] - right[1], abs=0.07)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_compression_keeps_the_learning_time_but_for_the_share_named(optimizer, schedule):
    training = Training(optimizer=optimizer, lr=0.01, epochs=20, batch_size=16, schedule=schedule)
    short = compress(training, 320, steps=50, batch=8)
    share = 50 * 8 / (20 * 320)
    own = 0.1 if optimizer == "momentum" else 1.0
    planned = sum(training.learning_rates(320)) / own
    assert sum(short.rates) / (1 - short.update.mu) == pytest.approx(
        (1 - 0.3 * (1 - share) * (1 / share - 1) / 19) * planned
    )
    # The planned schedule's shape, step by step.
    assert short.rates[-1] / short.rates[0] == pytest.approx(
        training.learning_rates(320)[396] / training.learning_rates(320)[4]
    )


def test_the_excess_of_noise_falls_from_a_twentieth_of_the_samples_to_all():
    assert excess_noise(0.01) == excess_noise(0.05) == 1
    assert excess_noise(0.2) == pytest.approx(4 / 19)
    assert excess_noise(1.0) == 0


@pytest.mark.parametrize(("optimizer", "grows"), [("adam", True), ("sgd", False)])
def test_what_is_paid_beyond_a_twentieth_buys_normalised_steps_first(optimizer, grows):
    plan = Training(optimizer=optimizer, epochs=40, batch_size=64)
    few, more, all_of_it = (steps_wanted(plan, 1344, budget) for budget in (0.05, 0.2, 0.9))
    assert few == steps_wanted(plan, 1344, 0.01) == steps_wanted(plan, 1344)
    assert more == pytest.approx(4 * few if grows else few)
    assert (all_of_it == 840) is grows


def test_plain_steps_keep_the_noise_that_their_own_end_has():
    tails = {
        optimizer: [
            compress(
                Training(optimizer=optimizer, epochs=20, batch_size=16), 320, steps=n, batch=16
            ).tail
            for n in (20, 100)
        ]
        for optimizer in ("sgd", "momentum", "adam")
    }
    assert tails["momentum"] == tails["adam"] == [6, 22]
    assert tails["sgd"] == [6, 4]


def test_the_whole_training_is_compressed_to_itself():
    training = Training(optimizer="momentum", lr=0.01, epochs=20, batch_size=16)
    short = compress(training, 320, steps=400, batch=16)
    assert short.rates == pytest.approx(training.learning_rates(320))
    assert (short.update.mu, short.update.nesterov) == (pytest.approx(0.9), False)
    assert short.clip == math.inf
    assert short.tail == 1


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_learning_time_lost_to_short_gradients_is_made_up_for(optimizer):
    training = Training(optimizer=optimizer, lr=0.01, epochs=20, batch_size=16)
    short = compress(training, 320, steps=50, batch=8)
    pace, gone = Pace(short), 0.0
    norms = [10.0] * 5 + [0.5] * 45
    taken = [pace.of(step, norm) for step, norm in enumerate(norms)]
    gone = sum(factor * rate for factor, rate in taken)
    # The first gradients go no farther than in the training's own steps.
    assert taken[0][0] == pytest.approx(max(short.clip, 1 / short.stretch))
    assert taken[10][1] > short.rates[10]
    assert gone == pytest.approx(sum(short.rates))


def test_one_odd_batch_does_not_count_as_usual():
    short = compress(Training(lr=0.01, epochs=20, batch_size=16), 320, steps=50, batch=8)
    pace = Pace(short)
    for step in range(20):
        pace.of(step, 1.0)
    factor, _ = pace.of(20, 100.0)
    assert factor == pytest.approx(short.clip)
    assert pace.of(21, 1.0)[0] == 1.0


def test_a_first_gradient_of_zero_does_not_stall_adam():
    short = compress(Training(optimizer="adam", epochs=20, batch_size=16), 320, steps=50, batch=8)
    pace = Pace(short)
    assert pace.of(0, 0.0) == (1.0, short.rates[0])
    assert pace.of(1, 3.0)[0] > 0


def test_classes_are_spread_evenly_over_the_batches():
    labels = torch.arange(4).repeat_interleave(25)
    batches = _batches(Split(torch.randn(100, 2), labels), 20, seed=0)
    first = [next(batches) for _ in range(5)]
    assert sorted(torch.cat(first).tolist()) == list(range(100))
    for batch in first:
        assert labels[batch].bincount(minlength=4).sub(5).abs().max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("build", [lambda: mlp(16), lambda: mlp(64), cnn, lambda: nn.Linear(6, 4)])
@pytest.mark.parametrize("budget", [0.1, 0.3])
def test_the_budget_is_kept(build, budget):
    shape = (1, 8, 8) if build is cnn else None
    model = model_of(build)
    old, new = (task(name, s, n=400, shape=shape) for name, s in (("old", 0), ("new", 5)))
    training = Training(lr=0.1, epochs=40, batch_size=16)
    said = forecast_cheaply(model, model.initial(), (old,), new, training, budget=budget)
    assert 0 < said.cost_ratio.value <= budget
    assert said.old[0].drop.status is Status.UNCALIBRATED


def test_a_head_that_shares_nothing_is_not_moved():
    model = model_of(lambda: nn.Linear(6, 4))
    parts = []
    for name, outputs, seed in (("old", (0, 1), 0), ("new", (2, 3), 5)):
        made = task(name, seed, classes=2)
        parts.append(Task(name=name, train=made.train, test=made.test, outputs=outputs))
    training = Training(lr=0.1, epochs=20, batch_size=16)
    said = forecast_cheaply(model, model.initial(), (parts[0],), parts[1], training, budget=0.5)
    assert said.old[0].rise.value == 0
    assert said.new.accuracy.value > 0.6


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", sorted(set(REGISTRY.built_in) - {"si", "vcl", "fisher_rao", "generative_replay"})
)
def test_every_strategy_stays_within_the_budget(name):
    model = model_of(lambda: mlp(32))
    old, new = task("old", 0, n=300), task("new", 5, n=300)
    training = Training(lr=0.1, epochs=30, batch_size=16)
    frozen = {"parameters": ("0.*",)} if name == "freeze" else {}
    strategy = Strategy(name=name, **frozen)
    said = forecast_cheaply(
        model, model.initial(), (old,), new, training, budget=0.2, strategy=strategy
    )
    assert 0 < said.cost_ratio.value <= 0.2
    assert said.old[0].drop.value is not None


@pytest.mark.parametrize("name", ["replay", "agem", "joint"])
def test_a_memory_smaller_than_its_batches_does(name):
    old, new = (task(which, seed, n=6) for which, seed in (("old", 0), ("new", 5)))
    training = Training(lr=0.1, epochs=2, batch_size=4)
    said = forecast_cheaply(
        model_of(mlp), model_of(mlp).initial(), (old,), new, training,
        budget=0.2, strategy=Strategy(name=name),
    )  # fmt: skip
    assert said.old[0].drop.value is not None


@pytest.mark.slow
def test_what_a_strategy_holds_back_is_held_back_in_the_forecast():
    model = model_of(lambda: mlp(64))
    old, new = learnable("old"), learnable("new", turn=1)
    training = Training(lr=0.1, epochs=30, batch_size=32)
    theta = trained(model, model.initial(), old, training)

    def drop(**options):
        strategy = Strategy(**options)
        return (
            forecast_cheaply(model, theta, (old,), new, training, budget=0.2, strategy=strategy)
            .old[0]
            .drop.value
        )

    assert drop(name="replay", memory=500) < drop(name="naive") - 0.1
    assert drop(name="l2", strength=1e3) < drop(name="naive") - 0.1


@pytest.mark.slow
def test_a_training_that_diverges_is_said_to():
    model = model_of(mlp)
    training = Training(lr=1e20, epochs=60, batch_size=16)
    said = forecast_cheaply(
        model, model.initial(), (task("old", 0),), task("new", 5), training, budget=0.5
    )
    assert said.old[0].rise.status is Status.DIVERGED
    assert said.old[0].rise.value is None


def pairs():
    old, new = split(seed=0), split(seed=5)
    return {"old": (old.x, old.y), "new": (new.x, new.y)}


@pytest.mark.slow
def test_a_budget_that_pays_nothing_names_the_smallest_that_does():
    model, training = mlp(64), Training(epochs=60, batch_size=16)
    with pytest.raises(ValueError, match=r"budget = 0\.0001 pays no forecast.* smallest") as error:
        capacity.forecast(model, **pairs(), training=training, budget=1e-4)
    named = float(str(error.value).split("that does is ")[1].split()[0])
    made = capacity.forecast(model, **pairs(), training=training, budget=named)
    assert made.cost_ratio.value <= named


@pytest.mark.parametrize("name", ["ewc", "gpm", "mas"])
def test_the_budget_named_pays_what_a_strategy_remembers_of_it(name):
    """A larger budget remembers more, and costs more than the one asked for says."""
    model = model_of(mlp)
    old, new = learnable("a"), learnable("b", 1)
    training = Training(optimizer="sgd", lr=0.1, epochs=12, batch_size=16)
    asked = {"budget": 0.02, "strategy": Strategy.model_validate({"name": name})}
    with pytest.raises(ValueError, match="pays no forecast") as error:
        forecast_cheaply(model, model.initial(), (old,), new, training, **asked)
    named = float(str(error.value).split("that does is ")[1].split()[0])
    paid = forecast_cheaply(
        model, model.initial(), (old,), new, training, **{**asked, "budget": named}
    )
    assert paid.cost_ratio.value <= named


def test_a_budget_that_may_be_stretched_takes_the_smallest_forecast_where_it_pays_none():
    model, old, new = model_of(mlp), task("old", 0), task("new", 5)
    plan = Training(epochs=10, batch_size=16)
    said = forecast_cheaply(model, model.initial(), (old,), new, plan, budget=0.05, stretch=True)
    assert 0.05 < said.cost_ratio.value < 1
    assert "so short that the budget pays no forecast" in said.cost_ratio.note
    assert said.old[0].drop.value is not None
    longer = Training(epochs=1000, batch_size=16)
    paid = forecast_cheaply(model, model.initial(), (old,), new, longer, budget=0.05, stretch=True)
    assert paid.cost_ratio.value <= 0.05


def test_a_training_too_short_to_be_undercut_is_told_so():
    made = capacity.forecast(mlp(), **pairs(), training=Training(epochs=1), budget=0.05)
    assert made.accuracy_drop.value is not None
    assert "No forecast of this training is cheaper" in made.cost_ratio.note


@pytest.mark.parametrize("budget", [0, -0.1, float("nan"), True, "5 %"])
def test_a_budget_is_a_positive_number(budget):
    with pytest.raises(ValueError, match=r"budget = .* must be a finite number above 0"):
        capacity.forecast(mlp(), **pairs(), budget=budget)


def test_noise_of_a_temperature_is_simulated_instead_and_named():
    training = Training(optimizer="sgld", temperature=1e-4, epochs=1)
    made = capacity.forecast(mlp(), **pairs(), training=training, budget=0.05, orders=2)
    assert "optimizer 'sgld'" in made.cost_ratio.note
    assert made.cost_ratio.value > 1


def test_normalised_steps_have_the_noise_of_the_trainings_own_batches():
    """Half a batch spread over the classes has less noise than a whole one: Adam runs ahead."""
    adam = Training(optimizer="adam", epochs=10, batch_size=64)
    assert compress(adam, 1280, steps=100, batch=16).even
    assert not compress(adam, 1280, steps=200, batch=32).even
    assert compress(Training(optimizer="sgd", epochs=10), 1280, steps=200, batch=32).even
    few = split(n=60)
    even, plain = (next(_batches(few, 12, 0, even=kind)) for kind in (True, False))
    assert sorted(even.tolist()) != sorted(plain.tolist())
    assert len(set(plain.tolist())) == 12
    shares = [torch.bincount(few.y[rows], minlength=4) / 12 for rows in (even, plain)]
    whole = torch.bincount(few.y, minlength=4) / 60
    assert (shares[0] - whole).abs().max() <= 2 / 12
    assert (shares[1] - whole).abs().max() > (shares[0] - whole).abs().max()
