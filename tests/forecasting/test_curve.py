"""Forecasts along a knob, with the same random numbers everywhere."""

from __future__ import annotations

import pytest
import torch

import capacity
from capacity.forecasting.curve import Curve, exceeded
from capacity.forecasting.record import Forecast, Forgetting
from capacity.records.estimate import Estimate


def tasks():
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    return (x, (x[:, 0] > 0).long()), (x, (x[:, 0] < 0).long())


def turned(knob, values, **how):
    old, new = tasks()
    torch.manual_seed(1)
    plan = capacity.Training(lr=0.3, epochs=3)
    return capacity.curve(
        torch.nn.Linear(4, 2), knob, values, old=old, new=new, training=plan, budget=None, **how
    )


@pytest.mark.slow
def test_a_point_is_the_forecast_of_that_training():
    old, new = tasks()
    made = turned("lr", [0.0625, 0.5])
    torch.manual_seed(1)
    alone = capacity.forecast(
        torch.nn.Linear(4, 2),
        old=old,
        new=new,
        training=capacity.Training(lr=0.5, epochs=3),
        budget=None,
    )
    assert made.forecasts[1].old == alone.old
    rises = [one.loss_increase.value for one in made.forecasts]
    assert rises[0] < rises[1], "the tasks contradict each other"


@pytest.mark.slow
def test_no_share_is_no_strategy_and_all_of_it_holds_the_old_task():
    made = turned("replay.share", [0, 1.0])
    plain = turned("epochs", [3])
    assert made.forecasts[0].old == plain.forecasts[0].old
    assert made.forecasts[1].loss_increase.value < made.forecasts[0].loss_increase.value
    assert made.rows().column("at") == [0, 1.0]


def forecast(rise, high):
    value = Estimate(value=rise, interval=None if high is None else (0.0, high))
    cell = Forgetting(accuracy_drop=value, loss_increase=value)
    one = Estimate(value=1.0)
    return Forecast(
        old=(cell,),
        new_accuracy=one,
        new_loss=one,
        cost_ratio=one,
        average_accuracy=one,
        average_loss=one,
    )


def test_the_least_value_keeps_the_limit_with_its_whole_interval():
    made = Curve(
        knob="lr", values=(3.0, 1.0, 2.0), forecasts=(forecast(0.1, 0.2), *[forecast(0.1, 0.9)] * 2)
    )
    assert made.least(loss_increase=0.5) == 3.0
    assert made.least(loss_increase=1.0) == 1.0
    assert made.least(accuracy_drop=0.05) is None
    with pytest.raises(ValueError, match="no limit is given"):
        made.least()
    assert exceeded(forecast(None, None), loss_increase=9.0) == [True]
    assert exceeded(forecast(0.3, None), loss_increase=0.3) == [False]


@pytest.mark.parametrize(
    ("knob", "values", "said"),
    [
        ("epocs", [1], "did you mean 'epochs'"),
        ("replay.share", [2.0], "no share"),
        ("replay.sizes", [2], "no option"),
        ("rplay.share", [0.5], "rplay"),
        ("lr", [], "no list of numbers"),
        ("lr", ["a"], "values"),
        ("", [1], "no name"),
        ("lr", [-0.0, -1.0], "values"),
    ],
)
def test_a_knob_that_is_none_is_refused(knob, values, said):
    with pytest.raises(ValueError, match=said):
        turned(knob, values)


def test_a_strategy_is_named_by_its_name_alone():
    plain = capacity.Training(strategy="replay")
    assert plain == capacity.Training(strategy={"name": "replay"})
    with pytest.raises(ValueError, match="did you mean 'replay'"):
        capacity.Training(strategy="replai")
