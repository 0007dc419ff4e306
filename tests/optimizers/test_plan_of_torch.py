"""`Training.from_torch`: the loop's own rates and steps, read without touching the loop."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers

import capacity
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from capacity.tasks.task import Split, Task
from capacity.training.data_order import DataOrder
from capacity.training.train import train
from optimizer_cases import TORCH

STEPS = 20


class OfOnesOwn(schedulers.LRScheduler):
    def get_lr(self):
        return [base / (1 + 0.1 * self.last_epoch**2) for base in self.base_lrs]


SCHEDULERS = {
    "LambdaLR": lambda o: schedulers.LambdaLR(o, lambda k: 0.9**k),
    "MultiplicativeLR": lambda o: schedulers.MultiplicativeLR(o, lambda _: 0.9),
    "StepLR": lambda o: schedulers.StepLR(o, 3),
    "MultiStepLR": lambda o: schedulers.MultiStepLR(o, [3, 7]),
    "LinearLR": schedulers.LinearLR,
    "ExponentialLR": lambda o: schedulers.ExponentialLR(o, 0.9),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, STEPS),
    "a cosine that ends early": lambda o: schedulers.CosineAnnealingLR(o, 2 * STEPS),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 7),
    "PolynomialLR": lambda o: schedulers.PolynomialLR(o, STEPS, 2.0),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, 0.3, STEPS + 1, cycle_momentum=False),
    "CyclicLR": lambda o: schedulers.CyclicLR(o, 0.01, 0.1, 5, cycle_momentum=False),
    "CyclicLR of a function": lambda o: schedulers.CyclicLR(
        o, 0.01, 0.1, 5, scale_fn=lambda k: 0.5**k, cycle_momentum=False
    ),
    "SequentialLR": lambda o: schedulers.SequentialLR(
        o,
        [schedulers.LinearLR(o, 0.1, total_iters=5), schedulers.CosineAnnealingLR(o, 15)],
        [5],
    ),
    "ChainedScheduler": lambda o: schedulers.ChainedScheduler([
        schedulers.ExponentialLR(o, 0.9),
        schedulers.StepLR(o, 4),
    ]),
    "one of a user's own": OfOnesOwn,
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def looped(optimizer, scheduler, count=STEPS):
    """The rates of a loop that takes the steps."""
    rates = []
    for _ in range(count):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("taken", [0, 4])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_rates_are_those_of_the_loop(name, taken):
    optimizer = torch.optim.SGD(network().parameters(), lr=0.1, momentum=0.9)
    scheduler = SCHEDULERS[name](optimizer)
    looped(optimizer, scheduler, taken)
    held = copy.deepcopy((optimizer.state_dict(), scheduler.get_last_lr()))
    plan = Training.from_torch(optimizer, scheduler, steps=STEPS - taken, batch_size=4)
    assert str((optimizer.state_dict(), scheduler.get_last_lr())) == str(held)
    rates = looped(optimizer, scheduler, STEPS - taken)
    assert plan.learning_rates(9) == pytest.approx(rates, rel=1e-12, abs=1e-15)
    assert (plan.optimizer, plan.momentum, plan.max_steps) == ("momentum", 0.9, STEPS - taken)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_rates_per_epoch(name):
    optimizer = torch.optim.AdamW(network().parameters(), lr=0.1)
    scheduler = SCHEDULERS[name](optimizer)
    plan = Training.from_torch(optimizer, scheduler, epochs=5, per="epoch", batch_size=4)
    rates = [rate for rate in looped(optimizer, scheduler, 5) for _ in range(3)]
    assert plan.learning_rates(9) == pytest.approx(rates, rel=1e-12)


def test_a_schedule_with_a_name_is_called_by_it():
    optimizer = torch.optim.SGD(network().parameters(), lr=0.1)
    scheduler = schedulers.LambdaLR(optimizer, lambda k: k / 4 if k < 4 else (20 - k) / 16)
    plan = Training.from_torch(optimizer, scheduler, steps=20, batch_size=4)
    assert (plan.schedule, plan.warmup, plan.rates, plan.lr) == ("linear", 4, None, 0.1)
    with pytest.raises(ValueError, match=r"rate 0 from here .* pass its scheduler, too"):
        Training.from_torch(optimizer, steps=20, batch_size=4)


def task():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(18, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(2, (18,), generator=generator)
    return Task(name="a", train=Split(x, y), test=Split(x, y))


def grouped(module):
    weights = {n: p for n, p in module.named_parameters() if p.dim() > 1}
    vectors = {n: p for n, p in module.named_parameters() if p.dim() < 2}
    return [
        {"params": weights.values(), "weight_decay": 0.05},
        {"params": vectors.values(), "weight_decay": 0.0, "lr": 0.02},
    ]


@pytest.mark.parametrize("name", TORCH)
def test_the_training_is_the_loops(name):
    data, module = task(), network()
    module[0].weight.requires_grad_(False)
    optimizer = TORCH[name](grouped(module))
    scheduler = schedulers.OneCycleLR(
        optimizer, [g["lr"] for g in optimizer.param_groups], total_steps=13, cycle_momentum=False
    )
    plan = Training.from_torch(
        optimizer, scheduler, steps=11, batch_size=2, accumulate=3, clip_norm=0.4, model=module
    )
    model = FlatModel(module)
    order = DataOrder.planned(plan, 18, replicas=1, seed=0)
    phase = train(model, model.initial()[None], data, plan, order)
    for epoch in order.epoch_batches(torch.device("cpu")):
        for rows in epoch:
            optimizer.zero_grad()
            for batch in rows[0].split(2):
                loss = nn.functional.cross_entropy(module(data.train.x[batch]), data.train.y[batch])
                (loss / 3).backward()
            nn.utils.clip_grad_norm_(module.parameters(), 0.4)
            optimizer.step()
            scheduler.step()
    torch.testing.assert_close(phase.theta[0], FlatModel(module).initial(), rtol=1e-9, atol=1e-11)


def test_named_parameters_name_the_groups():
    module = network()
    named = list(module.named_parameters())
    groups = [
        {"params": [(n, p) for n, p in named if p.dim() > 1]},
        {"params": [(n, p) for n, p in named if p.dim() < 2], "weight_decay": 0.0},
    ]
    plan = Training.from_torch(torch.optim.AdamW(groups, 1e-3), epochs=2, batch_size=4)
    (bare,) = plan.groups
    assert (bare.parameters, bare.weight_decay) == (("0.bias", "2.bias"), 0.0)
    assert plan.weight_decay == 0.01
    alike = [{"params": module[0].parameters()}, {"params": module[2].parameters()}]
    assert not Training.from_torch(torch.optim.SGD(alike, 0.1), epochs=1, batch_size=4).groups


def test_a_tensor_rate_is_read_and_left():
    rate = torch.tensor(0.1)
    optimizer = torch.optim.Adam(network().parameters(), lr=rate)
    scheduler = schedulers.StepLR(optimizer, 1, gamma=0.5)
    plan = Training.from_torch(optimizer, scheduler, steps=3, batch_size=4)
    assert plan.learning_rates(4) == pytest.approx([0.1, 0.05, 0.025], rel=1e-6)
    assert float(optimizer.param_groups[0]["lr"]) == float(rate) == pytest.approx(0.1)


def test_a_forecast_takes_what_was_read():
    module = network().float()
    optimizer = torch.optim.AdamW(grouped(module), 1e-2)
    scheduler = schedulers.CosineAnnealingLR(optimizer, 30, eta_min=0)
    plan = Training.from_torch(optimizer, scheduler, steps=30, batch_size=4, model=module)
    x, y = torch.randn(40, 3), torch.randint(2, (40,))
    made = capacity.forecast(module, old=(x, y), new=(x, 1 - y), training=plan, budget=0.9)
    assert math.isfinite(made.loss_increase.value)


def sgd(**options):
    return torch.optim.SGD(network().parameters(), lr=0.1, **options)


def two(one, other):
    module = network()
    groups = [
        {"params": module[0].parameters(), **one},
        {"params": module[2].parameters(), **other},
    ]
    return torch.optim.AdamW(groups, 1e-3)


def on(optimizer, make):
    return {"optimizer": optimizer, "scheduler": make(optimizer), "steps": 5}


REFUSED = {
    "no length": (lambda: {"optimizer": sgd()}, "epochs = None and steps = None: give one"),
    "two lengths": (lambda: {"optimizer": sgd(), "epochs": 1, "steps": 2}, "give one of the two"),
    "unknown optimizer": (
        lambda: {"optimizer": torch.optim.NAdam(network().parameters()), "steps": 2},
        "optimizer is a NAdam; accepted: torch.optim.SGD, torch.optim.Adam",
    ),
    "no optimizer": (lambda: {"optimizer": "adam", "steps": 2}, "optimizer is a str"),
    "unknown option": (lambda: {"optimizer": sgd(maximize=True), "steps": 2}, "maximize = True"),
    "no step": (lambda: {"optimizer": sgd(), "steps": 0}, "steps = 0"),
    "per epoch, without epochs": (
        lambda: {**on(sgd(), SCHEDULERS["StepLR"]), "per": "epoch"},
        "stepped per epoch, so its rates are as many as the epochs: give epochs=..., or say per=",
    ),
    "unknown unit": (lambda: {"optimizer": sgd(), "steps": 2, "per": "batch"}, "per = 'batch'"),
    "plateau": (
        lambda: on(sgd(), schedulers.ReduceLROnPlateau), "ReduceLROnPlateau, whose rates follow"
    ),
    "no scheduler of torch": (lambda: on(sgd(), lambda _: 0.5), "scheduler is a float, which"),
    "another optimizer's": (
        lambda: {**on(sgd(), SCHEDULERS["StepLR"]), "optimizer": sgd()}, "of another optimizer"
    ),
    "momentum that moves": (
        lambda: on(sgd(momentum=0.9), lambda o: schedulers.OneCycleLR(o, 0.1, 9)),
        "OneCycleLR that moves momentum with the rate, .*cycle_momentum=False",
    ),
    "rate 0": (
        lambda: on(sgd(), lambda o: schedulers.LambdaLR(o, lambda _: 0.0)), "has rate 0 from here"
    ),
    "betas of their own": (
        lambda: {"optimizer": two({}, {"betas": (0.5, 0.9)}), "steps": 2}, "differ in lr and weight"
    ),
    "groups without names": (
        lambda: {"optimizer": two({}, {"weight_decay": 0.0}), "steps": 2}, "pass model=..., or make"
    ),
    "groups out of proportion": (
        lambda: on(
            two({}, {"lr": 0.1}),
            lambda o: schedulers.LambdaLR(o, [lambda k: 0.9**k, lambda k: 0.5**k]),
        ),
        "moves the rates of parameter groups 1 and 0 otherwise than in proportion",
    ),
    "a group that rests": (
        lambda: {"optimizer": two({}, {"lr": 0.0}), "steps": 2}, "group 1 with rate 0; freeze"
    ),
    "another model": (
        lambda: {"optimizer": two({}, {"lr": 0.1}), "steps": 2, "model": network()},
        "does not hold exactly the model's trainable parameters",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*:UserWarning")
def test_what_has_no_plan_is_refused_by_name(case):
    given, said = REFUSED[case]
    with pytest.raises(ValueError, match=said):
        Training.from_torch(batch_size=4, **given())
