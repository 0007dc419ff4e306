"""A run under a strategy: trained, tracked, and forecast with what the strategy adds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import capacity
from capacity.recipe.config import Measure, Training
from capacity.runs.directory import RunDirectory

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_runs")]


def task(labels):
    generator = torch.Generator().manual_seed(sum(labels))
    y = torch.tensor(labels).repeat(12)
    return torch.randn(24, 4, generator=generator) + 2 * torch.eye(4)[y], y


def run(out, strategy, *, transport=True, **training):
    torch.manual_seed(3)
    plan = {"lr": 0.2, "epochs": 4, "batch_size": 8} | training
    return capacity.run(
        [task((0, 1)), task((1, 2))],
        model=nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)),
        training=Training(strategy=strategy, **plan),
        measure=Measure(
            level="full",
            tangents=2,
            top_values=2,
            sweeps=1,
            transport=transport,
            sensitivity_eps=(),
            log_volume_probes=2,
            capacity_probes=2,
            capacity_nodes=1,
            curvature_samples=8,
        ),
        replicas=2,
        out=out,
        quiet=True,
    )


STRATEGIES = {
    "naive": {},
    "si": {"strength": 5.0},
    "agem": {"memory": 8, "memory_batch": 4},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strategies")
    return {
        name: run(folder / name, {"name": name, **options}) for name, options in STRATEGIES.items()
    }


def thetas(made, *tasks):
    return [RunDirectory.open(made.path).theta(name) for name in tasks]


@pytest.mark.parametrize("name", ["si", "agem"])
def test_a_run_is_tracked_and_forecast_under_its_strategy(runs, name):
    made, naive = runs[name], runs["naive"]
    assert made.status == "finished"
    first, second = zip(*(thetas(r, "task0", "task1") for r in (naive, made)), strict=True)
    assert torch.equal(*first), "nothing is added to the first task"
    assert not torch.equal(*second)
    (mine,), (its,) = (r.forecasts[0]["old"] for r in (made, naive))
    assert mine["loss_increase"]["value"] is not None
    assert mine["loss_increase"] != its["loss_increase"]
    phases = made.result["phases"]
    assert all(phase["transport"] is not None for phase in phases)
    determinant = phases[1]["transport"]["log_volume"]
    assert determinant["status"] == "ok"
    assert determinant["value"] is not None
    assert made.result["recipe"]["training"]["strategy"]["name"] == name
    assert made.report().is_file()


def test_watching_changes_nothing(runs, tmp_path):
    alone = run(tmp_path / "run", {"name": "agem", **STRATEGIES["agem"]}, transport=False)
    assert torch.equal(*thetas(runs["agem"], "task1"), *thetas(alone, "task1"))


def test_a_changed_plan_counts_in_steps_and_forecast(runs, tmp_path):
    made = run(tmp_path / "run", {"name": "fewer_epochs", "factor": 0.5}, transport=False)
    assert [t["steps"] for t in made.result["tasks"]] == [12, 6]
    moved = [r.forecasts[0]["old"][0]["loss_increase"]["value"] for r in (made, runs["naive"])]
    assert moved[0] < moved[1]
