"""`budget="auto"`: what it spends, and the rehearsal of a short training."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import capacity
from capacity.forecasting import budget
from capacity.forecasting.budget import Prices, allocate, automatic, enough, seconds
from capacity.forecasting.compression import steps_wanted
from capacity.forecasting.engine import forecast_cheaply
from capacity.forecasting.rehearsal import (
    EXPECTED,
    FLOOR,
    STRETCH,
    combined,
    over_orders,
    rehearsed,
    unlike_measured,
)
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from capacity.records.estimate import Estimate, Status
from capacity.tasks.task import Split, Task
from capacity.training.data_order import DataOrder
from capacity.training.train import train

PLAN = Training(optimizer="adam", lr=0.01, epochs=6, batch_size=16)


def task(name, turn):
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(240, 6, generator=draw)
    y = ((x @ torch.randn(6, 4, generator=draw)).argmax(-1) + turn) % 4
    return Task(name=name, train=Split(x[:90], y[:90]), test=Split(x[90:], y[90:]))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))


def test_auto_rehearses_what_is_short_and_else_spends_ten_seconds_or_a_twentieth():
    assert automatic(5.4e11, 2000) == math.inf
    assert automatic(1.2e12, 4000) == pytest.approx(10 / 123.2, rel=0.01)
    assert automatic(6e13, 10**6) == 0.05
    # A step takes its time whatever it computes.
    assert automatic(1e6, 70_000) == math.inf
    assert automatic(1e6, 80_000) == pytest.approx(10 / 64, rel=0.01)


def test_large_steps_are_taken_to_be_faster_but_no_faster_than_a_core_is():
    assert seconds(3e10, 100) == pytest.approx(3.08)
    assert seconds(16 * 3e10, 100) == pytest.approx(16 * 3 / 2 + 0.08)
    assert seconds(1e4 * 3e10, 100) == pytest.approx(1e4 + 0.08)


def test_forecasts_made_together_share_the_time():
    assert automatic(3e11, 1000) == math.inf
    assert automatic(3e11, 1000, forecasts=4) == pytest.approx(10 / 123.2, rel=0.01)


def test_a_training_of_few_steps_is_given_the_steps_that_compressing_it_wants(monkeypatch):
    """As if it took long: a twentieth of 60 steps is 3, and no forecast."""
    monkeypatch.setattr(budget, "_SHORT", 0.0)
    monkeypatch.setattr(budget, "_SECONDS", 0.0)
    old, new = task("old", 0), task("new", 1)
    model = FlatModel(net())
    plan = Training(optimizer="adamw", lr=0.01, batch_size=30, epochs=20)
    said = forecast_cheaply(model, model.initial(), (old,), new, plan, budget="auto")
    assert said.steps >= steps_wanted(plan, 90) > 30
    assert 0.05 < said.share <= 0.5
    assert said.cost_ratio.value <= said.share + 1e-9
    assert not said.rehearsed
    prices = Prices(step=0.0, sample=1.0, test=0.3, spent=0.0)
    whole = {"training": 1e6, "wanted": 200, "planned": 10_000, "largest": 100}
    assert enough(prices, tests=[1000], passes=[2.0], **whole) == pytest.approx(0.00166)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_a_rehearsal_draws_its_batches_as_the_training_does(optimizer):
    old, new = task("old", 0), task("new", 1)
    model = FlatModel(net())
    theta = model.initial()
    plan = PLAN.model_copy(update={"optimizer": optimizer})
    said = forecast_cheaply(model, theta, (old,), new, plan, budget="auto", seed=5)
    order = DataOrder.planned(plan, 90, replicas=1, seed=5, path=("engine", "batches"))
    after = train(model, theta[None], new, plan, order).theta[0]
    x, y = old.test.x, old.test.y
    then, now = (float(old.loss_of(model.outputs(t, x), y)) for t in (theta, after))
    assert said.rehearsed
    assert said.old[0].rise.value == pytest.approx(now - then, abs=1e-5)
    assert said.displacement == pytest.approx(float((after - theta).norm()), rel=1e-5)


def test_a_short_training_is_rehearsed_and_the_forecast_says_so():
    made = capacity.forecast(net(), old=task("old", 0), new=task("new", 1), training=PLAN, orders=1)
    drop = made.accuracy_drop
    assert (drop.status, drop.n) == (Status.OK, 150)
    assert drop.note.startswith("Rehearsed: a copy")
    assert made.cost_ratio.note.endswith("in a data order of its own.")
    assert 1 <= made.cost_ratio.value < 2
    low, high = made.loss_increase.interval
    assert low < made.loss_increase.value < high


def test_several_copies_rehearse_in_orders_of_their_own_and_their_mean_is_the_forecast():
    pair = {"old": task("old", 0), "new": task("new", 1), "training": PLAN}
    made = capacity.forecast(net(), **pair, seed=3)
    drop, rise = made.accuracy_drop, made.loss_increase
    assert (drop.n, drop.status) == (4, Status.OK)
    assert drop.note.startswith("Rehearsed: 4 copies")
    assert 1 <= made.cost_ratio.value < 2  # of one copy
    order = DataOrder.planned(PLAN, 90, replicas=4, seed=3, path=("forecast",))
    model, old = FlatModel(net()), task("old", 0)
    theta = model.initial()
    ends = train(model, theta.expand(4, -1).contiguous(), task("new", 1), PLAN, order).theta
    losses = [float(old.loss_of(model.outputs(t, old.test.x), old.test.y)) for t in (theta, *ends)]
    assert rise.value == pytest.approx(sum(losses[1:]) / 4 - losses[0], abs=1e-5)
    assert rise.interval[0] < rise.value < rise.interval[1]


def test_copies_with_dropout_rehearse_in_turn():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.2), nn.ReLU(), nn.Linear(16, 4))
    made = capacity.forecast(
        module, old=task("old", 0), new=task("new", 1), training=PLAN, orders=2
    )
    assert made.accuracy_drop.n == 2
    assert made.accuracy_drop.note.startswith("Rehearsed: 2 copies")


def spread_of(values, half=0.1, status=Status.OK):
    each = [
        Estimate(value=v, status=status, interval=(v - half, v + half) if v is not None else None)
        for v in values
    ]
    return combined("rise", each)


@pytest.mark.parametrize(
    ("kind", "size", "said"),
    [
        ("mlp", 2000, ""),
        ("network with lstm", 2000, "not measured on a network with lstm"),
        ("mlp", 200_000, "this one has 200,000"),
    ],
)
def test_one_rehearsal_of_another_kind_of_network_is_uncalibrated_and_several_are_not(
    kind, size, said
):
    unlike = unlike_measured(kind, size)
    assert said in unlike
    made = capacity.forecast(net(), old=task("old", 0), new=task("new", 1), training=PLAN, orders=1)
    one = rehearsed(made, unlike)
    assert one.accuracy_drop.status is (Status.UNCALIBRATED if said else Status.OK)
    assert said in one.new_loss.note
    several = [over_orders([one] * n).accuracy_drop.status for n in (2, 3)]
    assert several == [one.accuracy_drop.status, Status.OK]


def test_what_copies_differ_by_widens_or_narrows_what_was_expected():
    alike, apart = spread_of([1.0] * 4), spread_of([0.8, 0.9, 1.1, 1.2])
    assert alike.value == apart.value == pytest.approx(1.0)
    low, high = alike.interval
    assert 0.5 * 0.2 < high - low < 0.2
    assert np.ptp(apart.interval) > 2 * (high - low)
    # Student's t with the copies' three degrees of freedom and those of what was expected.
    expected = 0.1 / (stats.t.ppf(0.95, EXPECTED) * math.sqrt(2))
    sigma = math.sqrt((EXPECTED * expected**2 + 0.1) / (EXPECTED + 3))
    half = stats.t.ppf(0.95, EXPECTED + 3) * sigma * math.sqrt(1.25)
    assert np.ptp(apart.interval) == pytest.approx(2 * half)


def test_copies_that_diverged_are_counted_and_leave_the_status():
    made = spread_of([1.0, None, 1.2])
    assert made.value == pytest.approx(1.1)
    assert made.status is Status.UNCALIBRATED
    assert "1 of 3 copies diverged" in made.note
    assert spread_of([None, None]).value is None


def test_a_share_of_the_training_is_no_rehearsal():
    longer = PLAN.model_copy(update={"epochs": 30})
    made = capacity.forecast(
        net(), old=task("old", 0), new=task("new", 1), training=longer, budget=0.3
    )
    assert "Rehearsed" not in made.accuracy_drop.note + made.cost_ratio.note
    assert made.cost_ratio.value <= 0.3


def test_a_rehearsal_that_diverged_has_no_value():
    made = capacity.forecast(net(), old=task("old", 0), new=task("new", 1), training=PLAN)
    lost = Estimate(value=None, status=Status.DIVERGED, note="Lost.")
    assert rehearsed(replace(made, new_loss=lost)).new_loss == lost


def test_the_interval_is_that_of_the_samples_widened():
    made = capacity.forecast(net(), old=task("old", 0), new=task("new", 1), training=PLAN)
    own = replace(made.new_loss, value=1.0, interval=(0.9, 1.1))
    low, high = rehearsed(replace(made, new_loss=own)).new_loss.interval
    assert high - low == pytest.approx(2 * STRETCH["new_loss"] * (0.1 + FLOOR))


@pytest.mark.parametrize("bad", ["much", "Auto"])
def test_another_word_is_refused_by_name(bad):
    model = FlatModel(net())
    with pytest.raises(ValueError, match=f"budget = '{bad}' is none; pass a share"):
        forecast_cheaply(model, model.initial(), (task("a", 0),), task("b", 1), PLAN, budget=bad)


@pytest.mark.parametrize(("price", "read"), [(1.0, 100), (5.0, 32)])
def test_a_hundred_test_samples_are_read_where_they_take_less_than_half(price, read):
    paid = allocate(
        Prices(step=0.0, sample=3.0, test=price, spent=0.0),
        budget=0.05, training=20_000.0, wanted=10, planned=100, largest=32,
        tests=[500], passes=[2.0],
    )  # fmt: skip
    assert paid.tests == (max(read, int(0.3 * 0.05 * 20_000 / price / 2)),)
    assert paid.spent <= 0.05 * 20_000
