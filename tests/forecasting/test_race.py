"""Comparing strategies for less: which of them are given a good forecast."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import capacity
from capacity.forecasting import budget, race
from capacity.forecasting.budget import AUTO, SHARE
from capacity.forecasting.race import raced
from capacity.forecasting.record import Forecast
from capacity.recipe.config import Training
from capacity.records.estimate import Estimate, Status


def made(value, price):
    def said(number):
        return Estimate(value=number, status=Status.UNCALIBRATED)

    old = (
        capacity.forecasting.record.Forgetting(accuracy_drop=said(0.0), loss_increase=said(0.0)),
    )
    return Forecast(
        old=old, new_accuracy=said(value), new_loss=said(1.0), cost_ratio=said(price),
        average_accuracy=said(value), average_loss=said(1.0),
    )  # fmt: skip


def runner(small, good, asked):
    def forecast_of(name, share):
        asked.append((name, share))
        return made(*((small[name], 0.05) if share == SHARE else (good[name], 0.5)))

    return forecast_of


SMALL = {"a": 0.9, "b": 0.7, "c": 0.8, "d": 0.1, "e": 0.2}


def test_the_better_half_is_forecast_well_and_ranks_first():
    asked = []
    good = {"a": 0.5, "b": 0.6, "c": 0.7}
    ranked = raced(list(SMALL), runner(SMALL, good, asked))
    assert [name for name, share in asked if share == AUTO] == ["a", "c", "b"]
    assert list(ranked) == ["c", "b", "a", "e", "d"]
    assert ranked["c"].average_accuracy.value == 0.7
    assert ranked["d"].cost_ratio.value == 0.05


def test_two_strategies_do_not_race():
    asked = []
    raced(["a", "b"], runner(SMALL, {"a": 0.5, "b": 0.6}, asked))
    assert asked == [("a", AUTO), ("b", AUTO)]


def test_where_more_buys_nothing_nothing_more_is_bought():
    asked = []

    def forecast_of(name, share):
        asked.append((name, share))
        return made(SMALL[name], 0.05)

    assert list(raced(list(SMALL), forecast_of)) == ["a", "c", "b", "e", "d"]
    assert [name for name, share in asked if share == AUTO] == ["a"]


def test_a_strategy_that_cannot_be_forecast_is_left_out():
    def forecast_of(name, share):
        return None if name == "a" else made(SMALL[name], 0.05 if share == SHARE else 0.4)

    assert list(raced(list(SMALL), forecast_of)) == ["c", "b", "e", "d"]


@pytest.mark.parametrize("names", [["l2", "replay", "ewc", "lower_lr"]])
def test_strategies_race_in_a_forecast_that_is_no_rehearsal(monkeypatch, names):
    monkeypatch.setattr(budget, "_SHORT", 0.0)
    monkeypatch.setattr(budget, "_SECONDS", 0.0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    x = torch.randn(240, 6)
    y = (x @ torch.randn(6, 4)).argmax(-1)
    plan = Training(optimizer="adam", lr=0.01, epochs=40, batch_size=16)
    said = capacity.forecast(
        model, old=(x, y), new=(x, (y + 1) % 4), training=plan, strategies=names
    )
    prices = [one.cost_ratio.value for one in said.by_strategy.values()]
    assert len(prices) == 4
    assert min(prices[:2]) > 2 * max(prices[2:])
    assert len(names) >= race.FEWEST


def test_leaders_are_those_within_a_point_of_the_best():
    said = made(0.5, 1.0)
    by = {"a": made(0.905, 1), "b": made(0.9, 1), "c": made(0.89, 1), "d": made(0.91, 0.05)}
    whole = dataclasses.replace(said, by_strategy=by)
    assert whole.leaders() == ("a", "b")
    assert whole.leaders(within=0.02) == ("a", "b", "c")
    assert said.leaders() == ()
    with pytest.raises(ValueError, match="within"):
        whole.leaders(within=-1)
