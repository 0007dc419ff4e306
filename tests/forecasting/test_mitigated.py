"""Strategies in the forecast: exact where the model is linear, ranked, and refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import capacity
from capacity.forecasting.forecast import forecast_replicas
from capacity.forecasting.linearized import linearized_scores, simulate
from capacity.forecasting.mitigated import foreseen, named_strategies, without_past
from capacity.forecasting.record import rank
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Strategy, Training
from capacity.strategies.mitigation import Mitigation
from capacity.strategies.terms import Source
from capacity.tasks.task import Split, Task
from strategy_cases import OPTIONS, learn, order, three

GD = Training(lr=0.2, epochs=12, batch_size=1000)


def linear_model(loss: str) -> nn.Module:
    """A head on frozen features, or a network that is linear in all it has."""
    if loss == "mse":
        return nn.Linear(5, 4)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4))
    model[0].requires_grad_(False)
    return model


def tasks(loss: str) -> tuple[Task, ...]:
    if loss == "cross_entropy":
        return three()
    made = []
    for task in three():
        split = Split(task.train.x, torch.nn.functional.one_hot(task.train.y, 4).to(task.train.x))
        made.append(replace(task, train=split, test=split, loss="mse"))
    return tuple(made)


def options(case: str, loss: str) -> Strategy:
    given = {"name": case, **OPTIONS[case]}
    if case == "freeze":
        given["parameters"] = ["*weight"] if loss == "mse" else ["2.bias"]
    return Strategy.model_validate(given)


def after_two(case: str, loss: str, training: Training):
    torch.manual_seed(1)
    flat = FlatModel(linear_model(loss))
    theta = flat.initial() + 0.1 * torch.randn(2, flat.size)
    made = Mitigation(options(case, loss), flat, Source(0))
    *old, new = tasks(loss)
    for i, task in enumerate(old):
        theta = learn(made, flat, theta, task, training, i)[0].theta
    return made, flat, theta, tuple(old), new


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("case", OPTIONS)
def test_exact_where_the_model_is_linear(float64, case, loss):
    made, flat, theta, old, new = after_two(case, loss, GD)
    plan = made.plan(new, GD)
    batches = order(new, plan.training, 2, 2)
    delta = simulate(flat, theta, new, GD, batches, contribution=plan).delta
    forecast = [linearized_scores(flat, theta, delta, t, t.test)[1] for t in (*old, new)]
    naive = simulate(flat, theta, new, GD, batches).delta
    end = learn(made, flat, theta, new, GD, 2)[0].theta

    assert relative(delta, end - theta) < 1e-9
    assert relative(delta, naive) > 1e-3, "the strategy must do something, or it shows nothing"
    for task, found in zip((*old, new), forecast, strict=True):
        after = evaluate(flat, end, task, task.test)
        torch.testing.assert_close(found.loss, after.loss, rtol=1e-9, atol=0)
        assert torch.equal(found.accuracy.nan_to_num(), after.accuracy.nan_to_num())


OPTIMIZERS = {
    "momentum": {"optimizer": "momentum", "schedule": "cosine"},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.3},
    "clipped": {"clip_norm": 0.2, "weight_decay": 0.1},
}


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("case", ["ewc", "derpp", "agem", "gpm", "freeze"])
def test_exact_with_batches_and_other_optimisers(float64, case, optimizer):
    training = Training(lr=0.05, epochs=3, batch_size=6, **OPTIMIZERS[optimizer])
    made, flat, theta, _, new = after_two(case, "cross_entropy", training)
    plan = made.plan(new, training)
    delta = simulate(
        flat, theta, new, training, order(new, training, 2, 2), contribution=plan
    ).delta
    end = learn(made, flat, theta, new, training, 2)[0].theta
    assert relative(delta, end - theta) < 1e-9


@pytest.mark.slow
def test_a_forecast_draws_from_the_same_memory_in_another_order():
    made, flat, theta, old, new = after_two("replay", "cross_entropy", GD)
    plan = made.plan(new, GD)
    other = foreseen(plan).replay
    assert torch.equal(other.private["row"], plan.replay.private["row"])
    device = torch.device("cpu")
    draws = [next(memory.draws(2, device)) for memory in (plan.replay, other)]
    assert not torch.equal(*draws)
    batches = order(new, GD, 2, 2)
    under = forecast_replicas(flat, theta, old, new, GD, batches, plan)
    naive = forecast_replicas(flat, theta, old, new, GD, batches)
    assert under.loss_increase.value < naive.loss_increase.value
    assert under.average_loss.value < naive.average_loss.value


def pairs():
    return [(task.train.x, task.train.y) for task in three()]


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4))


@pytest.mark.slow
def test_by_strategy_is_ranked_by_what_is_left():
    a, b, new = pairs()
    training = Training(lr=0.1, epochs=3, batch_size=8)
    asked = ["naive", {"name": "freeze", "parameters": ["0.*"]}, "joint", "lwf"]
    made = capacity.forecast(
        net(), old=[a, b], new=new, training=training, strategies=asked, orders=2
    )
    assert set(made.by_strategy) == {"naive", "freeze, parameters = ['0.*']", "joint", "lwf"}
    left = [(-f.average_accuracy.value, f.average_loss.value) for f in made.by_strategy.values()]
    assert left == sorted(left)
    assert made.by_strategy["naive"].old == made.old, "the plan of the forecast is naive"
    frozen = made.by_strategy["freeze, parameters = ['0.*']"]
    # The mean over three tasks is what forgetting and the new accuracy say.
    naive = made.by_strategy["naive"]
    change = sum(
        mine.accuracy_drop.value - its.accuracy_drop.value
        for mine, its in zip(naive.old, frozen.old, strict=True)
    )
    change += frozen.new_accuracy.value - naive.new_accuracy.value
    gained = frozen.average_accuracy.value - naive.average_accuracy.value
    assert gained == pytest.approx(change / 3)


@pytest.mark.slow
def test_the_plans_own_strategy_counts():
    a, _, new = pairs()
    frozen = {"name": "freeze", "parameters": ["0.*", "2.weight"]}
    plan = Training(lr=0.1, epochs=3, batch_size=8, strategy=frozen)
    mine = capacity.forecast(net(), old=a, new=new, training=plan, orders=2, budget=None)
    naive = plan.model_copy(update={"strategy": Strategy()})
    other = capacity.forecast(
        net(), old=a, new=new, training=naive, strategies=[frozen], orders=2, budget=None
    )
    assert mine.by_strategy == {}
    (under,) = other.by_strategy.values()
    assert under != other
    assert under.accuracy_drop.n == 2


@pytest.mark.slow
def test_all_strategies_without_a_past():
    torch.manual_seed(0)
    a, _, new = pairs()
    training = Training(lr=0.05, epochs=1, batch_size=8)
    made = capacity.forecast(
        net(), old=a, new=new, training=training, strategies="all", orders=1, budget=None
    )
    assert set(made.by_strategy) == set(without_past())
    for under in made.by_strategy.values():
        assert 0 <= under.new_accuracy.value <= 1
        assert under.cost_ratio.value > 1


@pytest.mark.slow
def test_what_diverges_comes_last():
    a, _, new = pairs()
    training = Training(lr=0.1, epochs=40, batch_size=8)
    wild = {"name": "l2", "strength": 1e6}
    made = capacity.forecast(
        net(), old=a, new=new, training=training, strategies=[wild, "naive"], orders=1, budget=None
    )
    assert list(made.by_strategy) == ["naive", "l2, strength = 1000000.0"]
    assert rank({}) == {}


BAD = {
    "unknown": (["ecw"], "did you mean 'ewc'"),
    "unknown option": ([{"name": "ewc", "stength": 1}], "stength"),
    "foreign option": ([{"name": "lwf", "memory": 1}], "accepted: strength, temperature"),
    "no name": ([{"strength": 1}], "strategies: name = None"),
    "twice": (["ewc", {"name": "ewc"}], "twice"),
    "number": ([3], "strategies holds 3"),
    "needs a path": (["si"], "take strategy 'mas' or 'ewc'"),
    "needs parameters": (["freeze"], "parameters = ['1.*']"),
    "no such parameter": ([{"name": "freeze", "parameters": ["9.*"]}], "'9.*'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_strategies(case):
    given, said = BAD[case]
    a, _, new = pairs()
    with pytest.raises(ValueError, match=r".") as caught:
        capacity.forecast(net(), old=a, new=new, strategies=given)
    assert said in str(caught.value)


def test_names_say_what_differs():
    found = named_strategies(["ewc", {"name": "ewc", "strength": 3.0}, Strategy(name="lwf")])
    assert list(found) == ["ewc", "ewc, strength = 3.0", "lwf"]
    assert named_strategies("l2") == {"l2": Strategy(name="l2")}
