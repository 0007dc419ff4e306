"""What `benchmarks/forecast/strategies_forecast.py` compares, on a sequence that is small."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import pytest

from capacity.recipe import config
from capacity.recipe.config import Strategy

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "benchmarks" / "forecast"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("strategies_forecast")


@pytest.fixture
def recipe():
    return config.load("split-digits", ["training.epochs=2", "model.hidden=[4]"])


def test_the_verdict_by_hand(script):
    lost = (math.nan,) * 3
    found = {
        "joint": script.Outcome((0.0, 1.0, 1.0), (0.0, 1.0, 1.0)),
        "naive": script.Outcome((1.0, 1.0, 0.5), (1.0, 1.0, 0.4)),
        "ewc": script.Outcome((0.1, 0.9, 0.9), (0.2, 0.9, 0.7)),
        "lwf": script.Outcome((0.2, 0.9, 0.8), (0.1, 0.9, 0.75)),
        "l2": script.Outcome(lost, lost),
    }
    # Ranks of the forecast 2, 4, 3, 1 and of the truth 2, 3, 4, 1: rho = 1 - 6 x 2 / (4 x 15).
    assert "over 4 strategies 0.800" in script.verdict(found)
    assert "names 'ewc', best is 'lwf': 5.0 points given away" in script.verdict(found)


def test_a_pair_is_forecast_and_learned(script, recipe):
    pair = script.Pair(recipe, 2)
    made = pair.under(Strategy(name="replay", memory=20))
    for drop, new, mean in (made.forecast, made.measured):
        assert -1 <= drop <= 1
        assert 0 <= new <= 1
        assert 0 <= mean <= 1
    wild = pair.under(Strategy(name="l2", strength=1e30))
    assert math.isnan(wild.measured[2])


def test_a_sequence_is_learned(script, recipe):
    check = importlib.import_module("strategies_check")
    outcome = check.learn(recipe, Strategy(name="fewer_epochs"), 2)
    assert outcome.matrix.shape == (5, 5, 2)
    assert "diverged" not in check.figures(outcome)
    wild = check.learn(recipe, Strategy(name="l2", strength=1e30), 2)
    assert check.figures(wild) == "diverged on task 2"
