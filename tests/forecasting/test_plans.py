"""Forecasts of trainings with schedules, warmup, steps in place of epochs and accumulation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import capacity
from capacity.forecasting.compression import compress
from capacity.optimizers.from_recipe import from_training
from capacity.recipe.config import Training

PLANS = {
    "linear with warmup": {"schedule": "linear", "warmup": 0.1, "max_steps": 60},
    "steps that decay": {"schedule": "step", "gamma": 0.5, "decay_every": 10, "epochs": 8},
    "cosine per epoch": {"schedule": "cosine", "schedule_per": "epoch", "epochs": 8},
    "accumulated": {"accumulate": 3, "batch_size": 4, "epochs": 8},
    "groups": {
        "groups": [{"parameters": ["*.bias"], "lr_factor": 0.5, "weight_decay": 0.0}],
        "weight_decay": 0.1, "epochs": 8,
    },
    "one rate is not 0": {
        "schedule": "custom", "rates": (1.0, *[0.0] * 59), "max_steps": 60,
    },
}  # fmt: skip


def _decays(update):
    return [each.weight_decay for each in getattr(update, "maps", (update,))]


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
@pytest.mark.parametrize("name", PLANS)
def test_a_compressed_plan_keeps_its_time(name, optimizer):
    plan = Training(lr=0.01, optimizer=optimizer, **PLANS[name])
    samples, planned = 40, math.fsum(plan.learning_rates(40))
    layout = [("0.weight", 6), ("0.bias", 2)]
    whole = compress(plan, samples, steps=plan.steps(samples), batch=samples, layout=layout)
    ours = from_training(plan, layout=layout)
    assert getattr(whole.update, "scales", None) == getattr(ours, "scales", None)
    assert _decays(whole.update) == _decays(ours)
    assert whole.rates == pytest.approx(plan.learning_rates(samples), rel=1e-9)
    short = compress(plan, samples, steps=8, batch=8, layout=layout)
    assert _decays(short.update) == _decays(ours)
    assert len(short.rates) == 8
    if optimizer == "adamw":
        assert math.fsum(short.rates) == pytest.approx(planned, rel=1e-9)
    assert math.fsum(short.rates) > 0


def data(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(80, 6, generator=generator)
    return x, (x @ torch.randn(6, 3, generator=generator)).argmax(1)


@pytest.mark.slow
@pytest.mark.parametrize("budget", [0.5, math.inf, None])
@pytest.mark.parametrize("name", PLANS)
def test_every_forecast_takes_the_plan(name, budget):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))
    plan = Training(lr=0.05, optimizer="sgd", **PLANS[name])
    made = capacity.forecast(model, old=data(1), new=data(2), training=plan, budget=budget)
    assert math.isfinite(made.loss_increase.value)
    assert math.isfinite(made.new_loss.value)
