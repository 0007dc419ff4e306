"""Schedules, warmup, steps in place of epochs, and accumulated gradients: what torch does."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Recipe, Training
from capacity.recipe.schedules import named
from capacity.tasks.task import Split, Task
from capacity.thermo.path import PathObserver
from capacity.training.data_order import DataOrder
from capacity.training.train import Midway, train

STEPS = 23
PLANS = {
    "constant": {},
    "cosine": {"schedule": "cosine"},
    "cosine to a tenth": {"schedule": "cosine", "final": 0.1},
    "linear": {"schedule": "linear", "final": 0.25},
    "polynomial": {"schedule": "polynomial", "power": 2.5},
    "step": {"schedule": "step", "gamma": 0.3, "decay_every": 5},
    "exponential": {"schedule": "exponential", "gamma": 0.9},
}
TORCH = {
    "constant": lambda o: lr_scheduler.ConstantLR(o, factor=1.0),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS),
    "cosine to a tenth": lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, eta_min=0.02),
    "linear": lambda o: lr_scheduler.LinearLR(o, 1.0, 0.25, total_iters=STEPS),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, STEPS, power=2.5),
    "step": lambda o: lr_scheduler.StepLR(o, 5, gamma=0.3),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
}


def torch_rates(make, count=STEPS):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2)
    scheduler, rates = make(optimizer), []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("name", PLANS)
def test_rates_are_those_of_torchs_scheduler(name):
    plan = Training(lr=0.2, max_steps=STEPS, **PLANS[name])
    assert plan.learning_rates(100) == pytest.approx(torch_rates(TORCH[name]), rel=1e-12)


@pytest.mark.parametrize("name", PLANS)
def test_rates_per_epoch_stay_through_each(name):
    plan = Training(lr=0.2, epochs=STEPS, batch_size=4, schedule_per="epoch", **PLANS[name])
    rates = plan.learning_rates(10)
    assert rates == pytest.approx(
        [r for r in torch_rates(TORCH[name]) for _ in range(3)], rel=1e-12
    )


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize(("warmup", "warm"), [(4, 4), (0.3, 7)])
def test_behind_the_warmup_is_the_schedule_of_the_rest(name, warmup, warm):
    plan = Training(lr=0.2, max_steps=STEPS, warmup=warmup, **PLANS[name])
    rest = Training(lr=0.2, max_steps=STEPS - warm, **PLANS[name])
    rises = [0.2 * k / warm for k in range(warm)]
    assert plan.learning_rates(9) == pytest.approx([*rises, *rest.learning_rates(9)], rel=1e-12)


def test_rates_of_ones_own():
    plan = Training(lr=0.5, schedule="custom", rates=(0.0, 1.0, 0.5), max_steps=3)
    assert plan.learning_rates(7) == [0.0, 0.5, 0.25]
    per_epoch = {"rates": (1.0, 0.5), "schedule_per": "epoch", "epochs": 2, "batch_size": 3}
    plan = Training(lr=1.0, schedule="custom", **per_epoch)
    assert plan.learning_rates(7) == [1.0] * 3 + [0.5] * 3
    with pytest.raises(ValueError, match=r"has 3 rates, .* 7 samples takes 20 steps; .*max_steps"):
        Training(schedule="custom", rates=(1.0, 1.0, 0.5), batch_size=4).learning_rates(7)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"schedule": "step", "gamma": 0.1}, "needs decay_every, as 1000"),
        ({"schedule": "exponential"}, "needs gamma, as 0.1"),
        ({"gamma": 0.1}, "gamma goes with schedule = 'step' and 'exponential' only"),
        ({"schedule": "custom"}, "needs rates"),
        ({"rates": (1.0,)}, "rates goes with schedule = 'custom' only, not 'constant'"),
        ({"schedule": "custom", "rates": (0.0, 0.0)}, "rates are all 0"),
        ({"schedule": "custom", "rates": (1.0, -1.0)}, "rates.1 = -1.0"),
        ({"schedule": "custom", "rates": (1.0, math.nan)}, "rates.1 = nan"),
        ({"schedule": "custom", "rates": (1.0,), "warmup": 1}, "put it into rates"),
        (
            {"schedule": "custom", "rates": (1.0,), "schedule_per": "epoch", "max_steps": 3},
            "rates per epoch do not go with max_steps",
        ),
        ({"warmup": 1.5}, "warmup: 1.5 is no warmup; give a whole number of steps"),
        ({"warmup": -1}, "warmup: -1 is no warmup"),
        ({"warmup": True}, "warmup: True is no warmup"),
        ({"warmup": "a tenth"}, "warmup: 'a tenth' is no warmup"),
        ({"schedule": "warmup"}, "'custom'"),
        ({"max_steps": 0}, "max_steps = 0"),
        ({"accumulate": 0}, "accumulate = 0"),
        ({"final": 1.5}, "final = 1.5"),
        ({"schedule_per": "batch"}, "schedule_per = 'batch'"),
    ],
)
def test_what_is_no_plan_is_refused(fields, said):
    with pytest.raises(ValueError, match=r"^Training: ") as caught:
        Training(**fields)
    assert said in str(caught.value)


def test_more_rates_than_a_recipe_keeps_are_for_forecasts_only():
    plan = Training(schedule="custom", rates=(1.0,) * 2001, max_steps=2001)
    with pytest.raises(ValueError, match=r"has 2001 rates, and a recipe keeps 2000 at most"):
        Recipe(name="long", training=plan)
    most = plan.model_copy(update={"rates": (1.0 / 3.0,) * 2000, "max_steps": 2000})
    assert len(Recipe(name="long", training=most).to_yaml()) < 64 * 1024


@pytest.mark.parametrize("batch", [1, 3, 7, 10, 64])
@pytest.mark.parametrize("plan", [{"max_steps": 7}, {"max_steps": 1}, {"epochs": 3}])
@pytest.mark.parametrize("accumulate", [1, 2, 5])
def test_the_order_is_that_of_the_epochs_ended_early(batch, plan, accumulate):
    training = Training(batch_size=batch, accumulate=accumulate, **plan)
    order = DataOrder.planned(training, 10, replicas=2, seed=3)
    epochs = [list(batches) for batches in order.epoch_batches(torch.device("cpu"))]
    batches = [rows for epoch in epochs for rows in epoch]
    assert len(batches) == training.steps(10) == len(training.learning_rates(10))
    assert len(epochs) == training.passes(10)
    assert all(epochs)
    assert sum(rows.shape[1] for rows in batches) == training.seen(10)
    many = DataOrder(samples=10, batch_size=batch * accumulate, epochs=99, replicas=2, seed=3)
    whole = [rows for epoch in many.epoch_batches(torch.device("cpu")) for rows in epoch]
    assert all(torch.equal(a, b) for a, b in zip(batches, whole, strict=False))


def test_fewer_epochs_keep_the_shape_of_a_plan():
    plan = Training(schedule="custom", rates=(1.0, 0.8, 0.6, 0.4), epochs=2, batch_size=5)
    assert plan.shortened(0.5).rates == (0.8, 0.4)
    assert plan.shortened(0.5).learning_rates(10) == pytest.approx([0.08, 0.04])
    assert Training(max_steps=100, epochs=7).shortened(0.2).max_steps == 20
    assert Training(epochs=7).shortened(0.01).epochs == 1


def task_of(count=22):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (count,), generator=generator)
    return Task(name="a", train=Split(x, y), test=Split(x, y))


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()


WHOLE = Training(
    optimizer="adamw", lr=0.01, weight_decay=0.1, batch_size=4, accumulate=2, max_steps=11,
    schedule="linear", warmup=0.2, clip_norm=0.5,
)  # fmt: skip
"""Epochs of 22 samples: two steps of 8 samples and one of 6, which is a batch of 4 and one of 2."""


def learned(training, *, begin=None, observers=()):
    task, model = task_of(), FlatModel(network())
    order = DataOrder.planned(training, len(task.train), replicas=1, seed=0)
    theta = model.initial()[None]
    return train(model, theta, task, training, order, begin=begin, observers=observers)


def test_a_training_is_torchs_loop_with_accumulated_gradients():
    task, module = task_of(), network()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.1)

    def relative(k):
        return k / 3 if k < 3 else (11 - k) / 8

    scheduler = lr_scheduler.LambdaLR(optimizer, relative)
    order = DataOrder.planned(WHOLE, 22, replicas=1, seed=0)
    taken = 0
    for epoch in order.epoch_batches(torch.device("cpu")):
        for rows in epoch:
            optimizer.zero_grad()
            for batch in rows[0].split(4):
                loss = nn.functional.cross_entropy(module(task.train.x[batch]), task.train.y[batch])
                (loss * len(batch) / rows.shape[1]).backward()
            nn.utils.clip_grad_norm_(module.parameters(), 0.5)
            optimizer.step()
            scheduler.step()
            taken += 1
    assert taken == 11
    phase = learned(WHOLE)
    assert phase.steps == 11
    assert phase.learning_time == pytest.approx(0.01 * (1 + 4.5), rel=1e-12)
    torch.testing.assert_close(phase.theta[0], FlatModel(module).initial(), rtol=1e-9, atol=1e-12)


def test_a_training_goes_on_bit_for_bit():
    kept = []

    class Keeper:
        def observe(self, step):
            time = (kept[-1].learning_time if kept else 0.0) + step.lr
            kept.append(Midway(state=step.after, steps=step.count, learning_time=time))

    whole = learned(WHOLE, observers=[Keeper()])
    for begin in (kept[0], kept[4], kept[9]):
        again = learned(WHOLE, begin=begin)
        assert torch.equal(again.theta, whole.theta)
        assert (again.steps, again.learning_time) == (whole.steps, whole.learning_time)


def test_a_step_of_rate_0_costs_nothing():
    path = PathObserver()
    phase = learned(WHOLE, observers=[path])
    assert phase.diverged is None
    loss = torch.ones(1)
    cost = path.cost(loss, loss, plain=False, full=False, noisy=False)
    assert cost.action.value is not None
    assert math.isfinite(cost.action.value)
    assert cost.action.value > 0


@pytest.mark.parametrize("warm", [0, 1, 6])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_a_schedule_is_recognised_by_its_rates(schedule, warm):
    rates = Training(lr=1.0, schedule=schedule, warmup=warm, max_steps=40).learning_rates(1)
    assert named(rates) == (schedule, warm)
    assert named([*rates[:-1], 0.5]) is None
