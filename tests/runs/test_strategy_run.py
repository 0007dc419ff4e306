"""A run under a strategy: trained, tracked, and forecast with what the strategy adds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import capacity
from capacity.config import Measure, Training
from capacity.runs.directory import RunDirectory


def task(labels):
    generator = torch.Generator().manual_seed(sum(labels))
    y = torch.tensor(labels).repeat(12)
    return torch.randn(24, 4, generator=generator) + 2 * torch.eye(4)[y], y


def run(out, strategy, *, transport=True, **training):
    torch.manual_seed(3)
    plan = {"lr": 0.2, "epochs": 4, "batch_size": 8} | training
    return capacity.run(
        [task((0, 1)), task((1, 2)), task((2, 3))],
        model=nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4)),
        training=Training(strategy=strategy, **plan),
        measure=Measure(
            tangents=4, top_values=2, sweeps=2, transport=transport, sensitivity_eps=()
        ),
        replicas=2,
        out=out,
        quiet=True,
    )


STRATEGIES = {
    "si": {"strength": 5.0},
    "replay": {"memory": 8, "memory_batch": 4},
    "agem": {"memory": 8, "memory_batch": 4},
    "gpm": {"samples": 6, "threshold": 0.8},
}


@pytest.fixture(scope="module")
def naive(tmp_path_factory):
    return run(tmp_path_factory.mktemp("naive") / "run", {"name": "naive"})


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_run_is_tracked_and_forecast_under_its_strategy(naive, tmp_path, name):
    made = run(tmp_path / "run", {"name": name, **STRATEGIES[name]})
    assert made.status == "finished"
    first, after = (
        [RunDirectory.open(r.path).theta(f"task{i}") for r in (naive, made)] for i in (0, 1)
    )
    assert torch.equal(*first), "nothing is added to the first task"
    assert not torch.equal(*after)
    for mine, its in zip(made.forecasts, naive.forecasts, strict=True):
        for cell, other in zip(mine["old"], its["old"], strict=True):
            assert cell["loss_increase"]["value"] is not None
            assert cell["loss_increase"] != other["loss_increase"]
    phases = made.result["phases"]
    assert all(phase["transport"] is not None for phase in phases)
    determinant = phases[1]["transport"]["log_volume"]
    assert determinant["status"] in {"ok", "not_defined"}
    assert (determinant["value"] is None) == (determinant["status"] == "not_defined")
    assert made.result["recipe"]["training"]["strategy"]["name"] == name
    assert made.report().is_file()


def test_watching_changes_nothing(tmp_path):
    replay = {"name": "replay", "memory": 8, "memory_batch": 4}
    ends = [
        RunDirectory.open(run(tmp_path / str(on), replay, transport=on).path).theta("task2")
        for on in (True, False)
    ]
    assert torch.equal(*ends)


def test_a_changed_plan_counts_in_steps_and_forecast(naive, tmp_path):
    made = run(tmp_path / "run", {"name": "fewer_epochs", "factor": 0.5})
    steps = [phase["steps"] for phase in made.result["phases"]]
    assert steps == [12, 6, 6]
    moved = [r.forecasts[0]["old"][0]["loss_increase"]["value"] for r in (made, naive)]
    assert moved[0] < moved[1]
