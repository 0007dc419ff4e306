"""A run under Langevin dynamics: everything that is measured, and what is not claimed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import capacity
from capacity.recipe.config import Measure, Training
from capacity.runs.directory import RunDirectory

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_runs")]


def pair(seed):
    x = torch.randn(24, 6, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, seed] > 0).long()


def langevin(out, *, temperature=1e-3, optimizer="sgld", **measure):
    torch.manual_seed(3)
    return capacity.run(
        [pair(0), pair(1)],
        model=nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)),
        training=Training(
            optimizer=optimizer, temperature=temperature, lr=0.1, epochs=3, batch_size=8
        ),
        measure=Measure(level="full", tangents=4, top_values=2, sweeps=2, **measure),
        replicas=2,
        out=out,
        quiet=True,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return langevin(tmp_path_factory.mktemp("langevin") / "run")


def test_transport_and_forecast_are_there_but_no_path_cost(made):
    assert made.status == "finished"
    for phase in made.result["phases"]:
        assert phase["transport"]["log_volume"]["status"] == "ok"
        for name in ("action", "loss_drop_ratio", "inefficiency_path", "length_ratio"):
            assert phase["thermo"][name]["status"] == "not_defined"
            assert "Langevin" in phase["thermo"][name]["note"]
        assert phase["thermo"]["displacement_sq"]["value"] > 0
    assert made.forecasts[0]["task"] == 1
    assert "Langevin" in made.report().read_text()


def test_the_same_seed_gives_the_same_noise(made, tmp_path):
    off = {"transport": False, "forecast": False}
    again = langevin(tmp_path / "again", **off)
    for name in ("task0", "task1"):
        first, second = (RunDirectory.open(r.path).theta(name) for r in (made, again))
        assert torch.equal(first, second), "measuring, or running again, changed the noise"
    other = langevin(tmp_path / "other", temperature=1e-2, **off)
    assert other.result["loss"] != made.result["loss"]


def test_inertia_runs_with_j_and_no_path_cost(tmp_path):
    made = langevin(tmp_path / "inert", optimizer="underdamped")
    for phase in made.result["phases"]:
        assert phase["transport"]["singular_values"][0]["value"] > 0
        assert phase["thermo"]["action"]["status"] == "not_defined"
    assert made.forecasts[0]["old"][0]["accuracy_drop"]["value"] is not None
