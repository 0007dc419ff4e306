"""Forecasts calibrated on a corpus that is made here, and on the one that ships."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from capacity.config import Training
from capacity.estimate import Estimate, Status
from capacity.forecasting.calibration import Conditions, Corpus, calibrated, shipped
from capacity.forecasting.forecast import Forecast, Forgetting


def row(number: int, source: np.random.Generator, strategy: str = "naive") -> dict:
    made = {
        "pair": f"pair {number % 30}", "family": "f", "architecture": "mlp", "strategy": strategy,
        "optimizer": ("sgd", "adam")[number % 2], "epochs": 20, "steps": 400, "samples": 1000,
        "parameters": 2000,
    }  # fmt: skip
    for name in ("drop", "rise", "new_accuracy", "new_loss"):
        value = float(source.uniform(0, 0.6))
        made |= {name: value, f"{name}_half": 0.05}
        made[f"measured_{name}"] = value + 0.1 + 0.02 * float(source.standard_normal())
    return made


def corpus(corrector: str | None = None) -> Corpus:
    source = np.random.default_rng(0)
    rows = [row(n, source, s) for s in ("naive", "ewc") for n in range(90)]
    return Corpus(tuple(rows), 0.05, {"drop": corrector, "rise": None})


def estimate(value: float) -> Estimate:
    return Estimate(
        value=value, interval=(value - 0.05, value + 0.05), status=Status.UNCALIBRATED, note="Bare."
    )


FORECAST = Forecast(
    old=(Forgetting(accuracy_drop=estimate(0.3), loss_increase=estimate(0.5)),) * 2,
    new_accuracy=estimate(0.98),
    new_loss=estimate(0.2),
    cost_ratio=Estimate(value=0.05),
    average_accuracy=estimate(0.8),
    average_loss=estimate(0.4),
)
CONDITIONS = Conditions(
    training=Training(optimizer="sgd", epochs=20, batch_size=50),
    strategy="naive",
    samples=1000,
    parameters=2000,
    budget=0.05,
    losses=frozenset({"cross_entropy"}),
)


@pytest.mark.parametrize("strategy", ["naive", "ewc"])
def test_a_known_forecast_gets_intervals_that_cover_its_bias(strategy):
    made = calibrated(FORECAST, replace(CONDITIONS, strategy=strategy), corpus())
    for each in made.old:
        low, high = each.accuracy_drop.interval
        assert each.accuracy_drop.value == 0.3
        assert low < 0.2 < 0.4 < high
        assert each.accuracy_drop.status is Status.OK
        assert "30 pairs" in each.accuracy_drop.note
    assert made.new_accuracy.interval[1] == 1.0
    assert made.average_accuracy == FORECAST.average_accuracy


def test_a_correction_in_use_moves_the_value_and_narrows_the_interval():
    bare = calibrated(FORECAST, CONDITIONS, corpus())
    made = calibrated(FORECAST, CONDITIONS, corpus("ridge"))
    assert made.accuracy_drop.value == pytest.approx(0.4, abs=0.03)
    assert np.ptp(made.accuracy_drop.interval) < 0.7 * np.ptp(bare.accuracy_drop.interval)
    assert made.loss_increase.value == bare.loss_increase.value
    mitigated = calibrated(FORECAST, replace(CONDITIONS, strategy="ewc"), corpus("ridge"))
    assert mitigated.accuracy_drop.value == 0.3


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"budget": None}, "not full simulations"),
        ({"budget": 0.5}, "a budget of 0.5 is far"),
        ({"parameters": 10**6}, "parameters: 1e"),
        ({"samples": 10**5}, "steps: 40000 is far"),
        ({"strategy": "gpm"}, "no strategy 'gpm' (ewc, naive)"),
        ({"losses": frozenset({"mse"})}, "cross-entropy only"),
        ({"training": Training(optimizer="rmsprop", epochs=20)}, "no optimizer 'rmsprop'"),
        ({"training": Training(schedule="cosine", epochs=20)}, "constant rates"),
    ],
)
def test_what_the_corpus_does_not_know_stays_uncalibrated_and_says_why(changed, reason):
    made = calibrated(FORECAST, replace(CONDITIONS, **changed), corpus())
    assert made.accuracy_drop.status is Status.UNCALIBRATED
    assert made.accuracy_drop.interval == FORECAST.accuracy_drop.interval
    assert reason in made.accuracy_drop.note
    assert reason in made.new_loss.note


def test_a_forecast_that_diverged_stays_as_it_is():
    lost = replace(FORECAST, new_loss=Estimate(value=None, status=Status.DIVERGED))
    made = calibrated(lost, CONDITIONS, corpus())
    assert made.new_loss.status is Status.DIVERGED
    assert made.accuracy_drop.status is Status.UNCALIBRATED


def test_the_shipped_corpus_calibrates_a_small_network():
    known = shipped()
    assert known is not None
    assert len({r["pair"] for r in known.rows}) > 25
    conditions = replace(CONDITIONS, training=Training(optimizer="sgd", lr=0.2, epochs=20))
    made = calibrated(FORECAST, replace(conditions, samples=1297, parameters=3610))
    assert made.accuracy_drop.status is Status.OK
    low, high = made.accuracy_drop.interval
    assert -1 <= low < made.accuracy_drop.value < high <= 1
