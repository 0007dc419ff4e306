"""What every epoch leaves of the path's cost, in a run that measures no capacity."""

from __future__ import annotations

import json

import pytest

import capacity
from capacity.recipe import config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_runs")]

NAMES = ("action", "loss_drop", "displacement_sq", "inefficiency_path")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = config.load(
        "tiny-digits",
        ("replicas=4", "training.epochs=3", "measure.transport=false", "measure.capacity=false"),
    )
    return capacity.run(recipe, out=tmp_path_factory.mktemp("runs") / "run", quiet=True)


@pytest.fixture(scope="module")
def rows(run):
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def test_the_last_epoch_of_a_task_has_the_cost_of_the_task(run, rows):
    for i, phase in enumerate(run.result["phases"]):
        last = [row for row in rows if row["task"] == i][-1]
        for name in NAMES:
            assert last[name] == pytest.approx(phase["thermo"][name]["value"], rel=1e-12)
            assert last[f"{name}_stderr"] == pytest.approx(phase["thermo"][name]["stderr"])
        # Batches put the loss drop out of its regime: the result says so, a row has no status.
        assert phase["thermo"]["loss_drop_ratio"]["status"] == "out_of_regime"
        assert "too noisy" in phase["thermo"]["loss_drop_ratio"]["note"]
        assert last["loss_drop_ratio"] is last["loss_drop_ratio_stderr"] is None
        assert "inefficiency" not in phase["thermo"]


def test_the_bounds_keep_their_order_all_along(rows):
    starts = {row["task"]: row["learning_time"] for row in reversed(rows)}
    for row in rows:
        if not row["epoch"]:
            assert all(row[name] is None for name in (*NAMES, "w2_lower"))
            continue
        time = row["learning_time"] - starts[row["task"]]
        # The speed limit of the path holds for every network, hence for their means.
        assert time * row["action"] >= row["displacement_sq"]
        assert row["inefficiency_path"] >= 1
        if row["w2_lower"] is not None:
            assert 0 < row["w2_lower"] <= row["displacement_sq"]


def test_without_capacity_forecasts_and_report_are_there(run):
    (transition,) = run.result["transitions"]
    assert transition["capacity"] is transition["verdicts"] is transition["dimension"] is None
    assert transition["note"] == ""
    assert transition["old"][0]["forecast"] is not None
    assert "fig-production" in run.report().read_text(encoding="utf-8")
