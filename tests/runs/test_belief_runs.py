"""Runs in which a belief learns: what they write, show and go on with."""

from __future__ import annotations

import json

import pytest
import torch

import capacity
from capacity.recipe import config
from dense import network

X = torch.randn(60, 6, generator=torch.Generator().manual_seed(1))
TASKS = [(X, (X[:, k] > 0).long()) for k in range(2)]


@pytest.mark.slow  # a whole run, and its report
def test_a_run_reports_the_population_and_its_calibration(quick_run, tmp_path):
    made = capacity.run(
        TASKS,
        model=lambda: network(6, 5, 2),
        training=capacity.Training(
            belief="transport", temperature=1e-3, lr=0.2, epochs=3, batch_size=16
        ),
        measure={"level": "forecast"},
        replicas=2,
        out=tmp_path / "run",
        quiet=True,
    )
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    phases = result["phases"]
    assert result["model"]["parameters"] == 2 * sum(
        p.numel() for p in network(6, 5, 2).parameters()
    )
    for i, phase in enumerate(phases):
        cost = phase["thermo"]["belief"]
        assert cost["geometry"] == "transport"
        # In (widths, means) the metric is Euclid's: both meters see the same distance.
        moved = phase["thermo"]["displacement_sq"]["value"]
        assert cost["distance_sq"]["value"] == pytest.approx(moved, rel=1e-4)
        assert cost["inefficiency"]["stderr"] > 0
        spent = sum(cost[part]["value"] for part in ("transport", "commitment", "excess"))
        assert cost["energy_drop"]["value"] == pytest.approx(spent)
        fell = cost["dissipation"]["value"] / 1e-3
        assert cost["gibbs_fall"]["value"] == pytest.approx(fell, rel=1e-6)
        assert cost["gibbs_after"]["value"] > 0
        assert len(phase["calibration"]) == i + 1
        assert 0 < phase["calibration"][i]["value"] < 1
    page = made.report().read_text()
    assert "Population of networks" in page
    assert "What the improvement of the expected loss was spent on" in page
    assert "Calibration error" in page
    assert "Nats from the Gibbs law" in page
    assert made.forecasts[0]["old"][0]["accuracy_drop"]["status"] == "ok", "rehearsed"


def test_a_recipe_says_it_in_a_word_or_a_section():
    changes = ["training.temperature=0.0001", "training.belief=information"]
    plan = config.load("tiny-digits", changes).training
    assert plan.belief.geometry == "information"
    assert plan.belief.width == 0.02
    wide = ["training.temperature=0.0001", "training.belief={geometry: transport, width: 0.1}"]
    assert config.load("tiny-digits", wide).training.belief.width == 0.1
