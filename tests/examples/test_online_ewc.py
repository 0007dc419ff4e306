"""A strategy of one's own is one file, `online_ewc`, whose last line registers it."""

from __future__ import annotations

from typing import Annotated

import pytest
import torch
from pydantic import Field
from torch import nn

import capacity
from capacity.recipe import config
from capacity.recipe.config import Measure, Strategy, Training
from capacity.report.strategy_forecasts import spoken
from capacity.runs.directory import RunDirectory
from capacity.strategies import REGISTRY, register
from capacity.strategies.importance import empirical_fisher
from capacity.strategies.strategy import Strategy as Method
from examples.online_ewc import OnlineEWC
from strategies.test_step import jacobian_error
from strategy_cases import OPTIONS, starts, three

PLAN = Training(lr=0.1, epochs=2, batch_size=8)
GIVEN = {"name": "online_ewc", "strength": 3.0, "gamma": 0.5}


def pairs():
    return [(task.train.x, task.train.y) for task in three()]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4))


def test_the_fisher_runs_with_decay(float64):
    flat, theta = starts(2)
    made = OnlineEWC(strength=3.0, gamma=0.5)
    a, b, _ = three()
    first = made.prepare(flat, theta, (a,), None, None)
    second = made.prepare(flat, theta + 1, (a, b), first, None)
    fishers = [
        empirical_fisher(flat, at, task, task.train) for at, task in ((theta, a), (theta + 1, b))
    ]
    torch.testing.assert_close(second.curvature, 3 * (0.5 * fishers[0] + fishers[1]))
    assert torch.equal(second.anchor, theta + 1)


def test_a_recipe_has_it_by_name_and_refuses_what_it_does_not_know():
    recipe = config.load("split-digits", ["training.strategy={name: online_ewc, gamma: 0.5}"])
    assert recipe.training.strategy == OnlineEWC(gamma=0.5)
    assert config.build(config.parse_yaml(recipe.to_yaml())) == recipe
    assert recipe.training.strategy.label == "online_ewc, gamma = 0.5"
    assert spoken("online_ewc, gamma = 0.5") == "online EWC, gamma = 0.5"
    for text, said in {
        "{name: online_ewc, gama: 1}": "gama = 1 is no option of name = 'online_ewc'; did you mean "
        "'gamma'?; accepted: strength, gamma, samples",
        "{name: online_ewc, gamma: 2}": "training.strategy.gamma = 2: input should be less than",
        "{name: online_ewk}": "did you mean 'online_ewc'",
    }.items():
        with pytest.raises(ValueError, match=r".") as caught:
            config.load("split-digits", [f"training.strategy={text}"])
        assert said in str(caught.value)


@pytest.mark.slow
def test_its_step_has_an_exact_jacobian(float64, monkeypatch):
    monkeypatch.setitem(OPTIONS, "online_ewc", GIVEN)
    error, dot = jacobian_error("online_ewc", "sgd", heads=False)
    assert error < 1e-6
    assert dot < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("budget", [None, 0.7])
def test_it_is_forecast_by_name_and_as_an_object(budget):
    a, _, new = pairs()
    made = capacity.forecast(
        net(), old=a, new=new, training=Training(lr=0.1, epochs=40, batch_size=8),
        strategies=[GIVEN, OnlineEWC(), "naive"], budget=budget, orders=2,
    )  # fmt: skip
    labels = {"online_ewc, strength = 3.0, gamma = 0.5", "online_ewc", "naive"}
    assert set(made.by_strategy) == labels
    rises = {made.by_strategy[label].loss_increase.value for label in labels}
    assert len(rises) == 3


@pytest.mark.slow
def test_a_run_trains_with_it_and_goes_on_bit_for_bit(quick_run, tmp_path, monkeypatch):
    def run(name, strategy):
        made = capacity.run(
            pairs(), model=net(), training=PLAN.model_copy(update={"strategy": strategy}),
            measure=Measure(transport=False, capacity=False, strategies=[GIVEN]),
            replicas=1, out=tmp_path / name, quiet=True,
        )  # fmt: skip
        return made.result, RunDirectory.open(made.path).theta("task2")

    result, theta = run("whole", OnlineEWC())
    assert result["recipe"]["training"]["strategy"] == OnlineEWC().model_dump()
    assert result["transitions"][0]["by_strategy"][0]["name"].startswith("online_ewc, ")
    assert not torch.equal(theta, run("plain", Strategy())[1])
    prepare = OnlineEWC.prepare

    def cut(self, model, theta, old, *rest):
        if len(old) == 2:
            raise KeyboardInterrupt
        return prepare(self, model, theta, old, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(OnlineEWC, "prepare", cut)
        with pytest.raises(KeyboardInterrupt):
            run("cut", OnlineEWC())
    again, resumed = run("cut", OnlineEWC())
    assert torch.equal(resumed, theta)
    assert again["transitions"] == result["transitions"]


def test_what_is_not_registered_is_refused_by_name():
    class Other(OnlineEWC):
        name = "other_ewc"
        beta: Annotated[float, Field(gt=0)] = 1.0

    with pytest.raises(ValueError, match=r"strategy 'other_ewc' is not registered.*register\(Oth"):
        Training(strategy=Other())
    with pytest.raises(ValueError, match="'other_ewc' is not registered"):
        capacity.forecast(net(), old=pairs()[0], new=pairs()[1], strategies=[Other()])
    with pytest.raises(ValueError, match="is no strategy; register a subclass"):
        register("online")
    with pytest.raises(ValueError, match="name = 'ewc' is the package's own"):
        register(type("Taken", (OnlineEWC,), {"name": "ewc"}))
    assert REGISTRY.load("online_ewc") is OnlineEWC


def test_without_a_price_a_budget_is_refused_by_name():
    class Free(Method):
        name = "free_ewc"
        contribution = OnlineEWC.contribution
        prepare = OnlineEWC.prepare

    register(Free)
    try:
        with pytest.raises(ValueError, match=r"strategy 'free_ewc' does not state .* Free\.price"):
            capacity.forecast(
                net(), old=pairs()[0], new=pairs()[1], strategies=["free_ewc"], budget=0.5
            )
    finally:
        del REGISTRY.own["free_ewc"]


def test_a_price_per_sample_without_an_option_for_samples_is_refused_by_name():
    class Dear(OnlineEWC):
        name = "dear_ewc"
        samples: None = None

    with pytest.raises(ValueError, match="strategy 'dear_ewc' states a price per sample and has"):
        Dear().thinned(8)
    assert OnlineEWC(samples=128).thinned(8).samples == 8
