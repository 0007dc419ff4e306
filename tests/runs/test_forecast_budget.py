"""`measure.forecast_budget`: forecasts within a budget, network by network."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import capacity
from capacity.forecasting import within_budget
from capacity.forecasting.mitigated import contribution_of
from capacity.forecasting.within_budget import forecast_within, rehearse_together
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.recipe import config
from capacity.recipe.config import Strategy, Training
from capacity.records.estimate import Estimate, Status
from capacity.strategies.contribution import Contribution
from capacity.strategies.terms import Source
from capacity.tasks.task import Split, Task
from capacity.training.data_order import DataOrder
from capacity.training.train import train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_runs")]

LIGHT = ["measure.transport=false", "measure.verdicts=false", "measure.sensitivity_eps=[]"]
SMALL = [*LIGHT, "tasks.samples=64", "replicas=2"]
ASKED = "measure.strategies=[naive, {name: ewc, strength: 1, samples: 32}]"


def run(path, *more):
    recipe = config.load("tiny-digits", [*SMALL, *more])
    return capacity.run(recipe, out=path, quiet=True)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A run with rehearsals, as these are short, and one that simulates."""
    folder = tmp_path_factory.mktemp("budget")
    cheap = run(folder / "cheap", ASKED)
    return cheap, run(folder / "plain", "measure.forecast_budget=null")


def test_a_budget_changes_forecasts_alone(pair):
    cheap, plain = pair
    assert cheap.measured == plain.measured
    for mine, its in zip(cheap.result["transitions"], plain.result["transitions"], strict=True):
        assert mine["cost_ratio"]["value"] < its["cost_ratio"]["value"]
        for own, other in zip(mine["old"], its["old"], strict=True):
            assert own["forecast"] != other["forecast"]
            assert math.isfinite(own["forecast"]["accuracy_drop"]["value"])
            assert own["forecast"]["accuracy_drop"]["n"] == 2


def test_doing_nothing_is_the_plain_forecast_within_a_budget_too(pair):
    cheap, _ = pair
    for transition in cheap.result["transitions"]:
        naive = next(e for e in transition["by_strategy"] if e["name"] == "naive")
        assert naive["new"] == transition["new"]["forecast"]
        ewc = next(e for e in transition["by_strategy"] if e["name"] != "naive")
        assert ewc["new"] != naive["new"]


def test_the_page_says_how_it_was_forecast(pair, tmp_path):
    compressed = run(tmp_path / "compressed", "measure.forecast_budget=0.6", "tasks.samples=256")
    said = [made.report().read_text() for made in (*pair, compressed)]
    ways = (
        "whole training of the new task, in",
        "own training is simulated",
        "through a compressed",
    )
    for place, way in enumerate(ways):
        assert [way in _lead(text) for text in said] == [place == k for k in range(3)]


def test_the_first_screen_says_that_forecasts_were_rehearsals(pair):
    rehearsed, simulated = (made.report().read_text() for made in pair)
    assert "the forecasts (rehearsals: copies trained in full) were off by" in rehearsed
    assert "the forecasts were off by" in simulated


def _lead(page):
    """The sentence that says how forecasts were made."""
    begin = page.index("Each forecast is made before its task is trained")
    return page[begin : page.index(".", begin)]


def test_copies_of_all_networks_rehearse_as_each_would_alone():
    """Of two networks, in the orders of the first two replicas."""
    old, new = tasks()
    torch.manual_seed(0)
    model = FlatModel(torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Linear(8, 2)))
    theta = torch.stack([model.initial(), 2 * model.initial()])
    plan = Contribution(training=Training(lr=0.1, epochs=5, batch_size=16))
    order = DataOrder.planned(plan.training, len(new.train), replicas=2, seed=3)
    both = rehearse_together(model, theta, (old,), new, plan, order)
    ends = train(model, theta, new, plan.training, order).theta
    losses = [float(evaluate(model, points, old, old.test).loss.mean()) for points in (theta, ends)]
    assert both.loss_increase.value == pytest.approx(losses[1] - losses[0], rel=1e-5)
    assert both.loss_increase.status is Status.OK
    # The training, and 40 samples of two tasks read: 3 passes are a sample of a training step.
    assert 1 < both.cost_ratio.value < 1.5
    assert both.accuracy_drop.n == 2


@pytest.mark.parametrize("name", ["ewc", "replay", "agem", "gpm", "lwf"])
def test_a_strategy_that_remembers_enters_the_forecast(name, tmp_path, pair):
    under = run(tmp_path / "run", "measure.forecast_budget=auto", f"training.strategy.name={name}")
    (mine,), (naive,) = (made.forecasts[0]["old"] for made in (under, pair[0]))
    assert mine["loss_increase"]["value"] != naive["loss_increase"]["value"]
    assert math.isfinite(mine["loss_increase"]["value"])


def test_langevin_training_is_simulated(tmp_path):
    more = ["training.optimizer=sgld", "training.temperature=0.001"]
    made = run(tmp_path / "run", "measure.forecast_budget=0.05", *more)
    note = made.result["transitions"][0]["cost_ratio"]["note"]
    assert "no cheaper forecast knows optimizer 'sgld'" in note


def tasks():
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(3, 160, 6, generator=draw)
    return [
        Task(
            name=str(k),
            train=Split(x[k][:120], (x[k][:120, k] > 0).long()),
            test=Split(x[k][120:], (x[k][120:, k] > 0).long()),
        )
        for k in range(2)
    ]


@pytest.mark.parametrize("name", ["l2", "ewc", "lwf"])
def test_a_network_is_forecast_as_if_it_were_alone(name):
    """The second of two networks, with what it alone remembers, against itself by itself."""
    old, new = tasks()
    torch.manual_seed(0)
    layers = torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)
    model = FlatModel(torch.nn.Sequential(*layers))
    first = model.initial()
    theta = torch.stack([first, 2 * first])
    options = Strategy.model_validate({"name": name})
    training = Training(lr=0.1, epochs=40, batch_size=16, strategy=options)

    def forecast(points, seeds):
        plan = contribution_of(options, model, points, (old,), new, training, Source(0, ("t",)))
        return forecast_within(
            model, points, (old,), new, training, budget=0.5, seeds=seeds, contribution=plan
        )

    both = forecast(theta, [7, 11])
    alone = [forecast(theta[r : r + 1], [seed]) for r, seed in enumerate([7, 11])]
    values = [one.loss_increase.value for one in alone]
    assert both.loss_increase.value == pytest.approx(sum(values) / 2, rel=1e-6)
    spread = abs(values[0] - values[1]) / 2
    assert both.loss_increase.stderr == pytest.approx(spread, rel=1e-6)
    assert values[0] != values[1]
    ends = [one.loss_increase.interval for one in alone]
    assert both.loss_increase.interval == pytest.approx([
        (ends[0][k] + ends[1][k]) / 2 for k in range(2)
    ])


def test_networks_that_diverge_are_left_out_and_counted():
    good = Estimate(value=1.0, status=Status.OK, interval=(0.0, 2.0), note="N.")
    lost = Estimate(value=None, status=Status.DIVERGED, note="Lost.")
    made = within_budget._average([lost, good, replace(good, value=3.0, interval=(2.0, 4.0))])
    assert (made.value, made.interval, made.n, made.status) == (2.0, (1.0, 3.0), 2, Status.OK)
    assert made.note == "N. 1 of 3 replicas are not finite and left out."
    assert within_budget._average([lost, lost]) == lost
    mixed = within_budget._average([good, replace(good, status=Status.UNCALIBRATED)])
    assert mixed.status is Status.UNCALIBRATED


@pytest.mark.parametrize("bad", ["0", "-0.05", "much", ".inf"])
def test_a_budget_that_is_none_dies_at_the_door(bad):
    with pytest.raises(ValueError, match=r"measure\.forecast_budget: .* is no share") as caught:
        config.load("tiny-digits", [f"measure.forecast_budget={bad}"])
    assert "\n" not in str(caught.value)
