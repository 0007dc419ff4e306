"""What one's own runs say of the next forecast."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import capacity
from capacity.forecasting.history import History, Past
from capacity.forecasting.record import Forecast, Forgetting
from capacity.recipe import config
from capacity.records.estimate import Estimate, Status
from capacity.records.forecast_kind import plain_strategy

PLAIN = plain_strategy({"name": "naive"})


def estimate(value: float, half: float = 0.1) -> Estimate:
    ends = (value - half, value + half)
    return Estimate(value=value, interval=ends, status=Status.UNCALIBRATED)


def said(drop: float) -> Forecast:
    return Forecast(
        old=(Forgetting(accuracy_drop=estimate(drop), loss_increase=estimate(5 * drop)),),
        new_accuracy=estimate(0.8),
        new_loss=estimate(0.5),
        cost_ratio=Estimate(value=0.05, note="Counted floating-point operations."),
        average_accuracy=estimate(0.7),
        average_loss=estimate(0.6),
    )


def drops(count: int, *, bias: float, noise: float, seed: int = 0, size: int = 10) -> list[Past]:
    draw = np.random.default_rng(seed)
    made = []
    for k in range(count):
        forecast = draw.uniform(0, 0.8)
        made.append(
            Past(
                transition=f"run {k}", quantity="drop", said=forecast, half=0.1,
                measured=forecast + bias + noise * draw.standard_normal(), physics="compressed",
                strategy=PLAIN, parameters=size,
            )
        )  # fmt: skip
    return made


def test_a_bias_is_taken_out_and_the_average_moves_along():
    made = said(0.3)
    past = History(tuple(drops(40, bias=0.2, noise=0.01)))
    found = past.calibrated(made, strategy=PLAIN, parameters=10)
    drop = found.accuracy_drop
    assert drop.value == pytest.approx(0.3 + 0.2 * 40 / 44, abs=0.01)
    assert drop.status is Status.OK
    assert drop.interval[1] - drop.interval[0] < 0.15, "narrower than the forecast's own"
    assert drop.interval[0] < 0.5 < drop.interval[1]
    moved = drop.value - 0.3
    assert found.average_accuracy.value == pytest.approx(0.7 - moved / 2)
    assert found.loss_increase.value == made.loss_increase.value, "nothing was measured of it"


def test_intervals_hold_nine_of_ten_of_what_comes_next():
    held = []
    for seed in range(60):
        *earlier, (now) = drops(31, bias=0.1, noise=0.1, seed=seed)
        found = History(tuple(earlier)).calibrated(said(now.said), strategy=PLAIN, parameters=10)
        low, high = found.accuracy_drop.interval
        held.append(low <= now.measured <= high)
    # 90 % of 60 are 54; fewer than 47 come by chance once in 400 times.
    assert sum(held) >= 47
    assert not all(held), "wide beyond what is asked"


def test_few_transitions_change_nothing_and_say_so():
    made = said(0.3)
    found = History(tuple(drops(8, bias=0.5, noise=0.0))).calibrated(
        made, strategy=PLAIN, parameters=10
    )
    assert replace(found.accuracy_drop, note="") == made.accuracy_drop
    assert "8 transitions like this one, and 9 are needed" in found.accuracy_drop.note


@pytest.mark.parametrize(
    "other", [{"strategy": plain_strategy({"name": "ewc"})}, {"physics": "rehearsed"}]
)
def test_other_strategies_and_ways_to_forecast_do_not_speak(other):
    past = History(tuple(replace(each, **other) for each in drops(20, bias=0.5, noise=0.0)))
    found = past.calibrated(said(0.3), strategy=PLAIN, parameters=10)
    assert found.accuracy_drop.value == 0.3
    assert "0 transitions like this one" in found.accuracy_drop.note


def test_a_transition_has_one_vote_however_many_old_tasks_it_has():
    past = drops(20, bias=0.0, noise=0.0)
    loud = replace(past[0], transition="loud", measured=past[0].said + 0.6)
    once = History((*past, loud)).calibrated(said(0.3), strategy=PLAIN, parameters=10)
    often = History((*past, *[loud] * 50)).calibrated(said(0.3), strategy=PLAIN, parameters=10)
    assert once.accuracy_drop.value == pytest.approx(often.accuracy_drop.value)
    assert once.accuracy_drop.value > 0.3


def test_the_history_of_another_network_is_refused():
    past = History(tuple(drops(20, bias=0.0, noise=0.1, size=2410)))
    with pytest.raises(ValueError, match=r"networks with 2,410 parameters, and this one has 10;"):
        past.calibrated(said(0.3), strategy=PLAIN, parameters=10)


def test_what_is_no_history_is_refused_at_the_door():
    x, y = torch.randn(20, 4), torch.randint(2, (20,))
    with pytest.raises(ValueError, match=r"history is a str; pass capacity\.history\('runs'\)"):
        capacity.forecast(torch.nn.Linear(4, 2), old=(x, y), new=(x, 1 - y), history="runs")


@pytest.mark.slow
def test_the_history_of_runs_calibrates_a_forecast_of_their_network(tmp_path, quick_runs):
    """Twelve transitions of three runs, and a forecast of a network like theirs."""
    light = ["measure.level=forecast", "tasks.samples=100", "tasks.experiences=5", "replicas=1"]
    for seed in range(3):
        recipe = config.load("tiny-digits", [*light, f"seed={seed}"])
        capacity.run(recipe, out=tmp_path / "runs" / str(seed), quiet=True)
    past = capacity.history(tmp_path / "runs")
    run = capacity.open_run(tmp_path / "runs" / "0")
    assert {each.physics for each in past.past} == {"rehearsed"}
    assert len({each.transition for each in past.past}) == 12
    seen = run.measured[0]["old"][0]["accuracy_drop"]["value"]
    assert any(each.measured == seen and each.quantity == "drop" for each in past.past)
    recipe = config.load("tiny-digits", light)
    from capacity.runs.ahead import before_task

    asked = before_task(recipe, device=torch.device("cpu"))
    plain = capacity.forecast(**{**asked, "strategies": []})
    better = capacity.forecast(**{**asked, "strategies": []}, history=past)
    assert "Calibrated on 12 transitions of your own runs" in better.accuracy_drop.note
    assert better.accuracy_drop.interval != plain.accuracy_drop.interval
    empty = capacity.run(
        config.load("tiny-digits", [*light, "tasks.experiences=2", "measure.forecast=false"]),
        out=tmp_path / "none",
        quiet=True,
    )
    with pytest.raises(ValueError, match="none of 1 runs has a transition that was forecast"):
        capacity.history(empty)
