"""What notebooks show: short, escaped, with every status."""

from __future__ import annotations

import pytest
import torch

import capacity
from capacity.forecasting.record import Forecast, Forgetting
from capacity.records.estimate import Estimate, Status, from_samples, not_defined
from capacity.records.html_table import table
from report.fabricated_run import HOSTILE, write


def test_an_estimate_shows_value_error_interval_status_and_note():
    shown = from_samples([1.0, 2.0, 3.0], status=Status.UNCALIBRATED, note=HOSTILE)._repr_html_()
    for said in ("2.0 ± 0.6", "90 %", "uncalibrated", "&lt;script&gt;"):
        assert said in shown
    assert "<script" not in shown


def test_a_missing_value_says_why():
    shown = not_defined("There is no earlier task.")._repr_html_()
    assert "not defined" in shown
    assert "There is no earlier task." in shown
    assert "None" not in shown


def test_records_spread_their_estimates():
    one = Estimate(value=0.25)
    old = (Forgetting(accuracy_drop=one, loss_increase=one),)
    made = Forecast(
        old=old,
        new_accuracy=one,
        new_loss=not_defined("NOTE-none"),
        cost_ratio=one,
        average_accuracy=one,
        average_loss=one,
    )
    shown = made._repr_html_()
    assert shown.startswith("<table><caption>Forecast</caption>")
    for said in ("new accuracy", "0.250", "NOTE-none", "1 entries", "cost ratio"):
        assert said in shown


@pytest.mark.parametrize("case", ["finished", "stopped_early", "diverged"])
def test_a_run_shows_its_state_and_what_it_ended_with(case, tmp_path):
    shown = capacity.open_run(write(tmp_path / "<b>run", case))._repr_html_()
    assert "<b>" not in shown
    if case != "stopped_early":
        assert case in shown
        assert "forgetting last" in shown


def test_long_tables_and_texts_are_cut():
    shown = table("x", [("y" * 1000, str(k)) for k in range(100)])
    assert "and 76 more" in shown
    assert len(shown) < 8000


def test_equality_and_fields_of_records_are_as_before():
    assert Estimate(value=1.0) == Estimate(value=1.0)
    assert set(Estimate(value=1.0).to_dict()) == {
        "value", "stderr", "status", "interval", "level", "n", "cost", "note",
    }  # fmt: skip


def test_every_public_record_has_a_table():
    for name in ("Comparison", "EpistemicSpeedLimit", "Estimate", "Forecast", "Rows", "Run",
                 "SeedRuns", "Split", "Task", "TaskSequence"):  # fmt: skip
        assert hasattr(getattr(capacity, name), "_repr_html_"), name


def test_tensors_are_shown_by_their_shape():
    x = torch.zeros(7, 3)
    shown = capacity.Split(x, torch.zeros(7, dtype=torch.int64))._repr_html_()
    assert "Tensor of shape (7, 3)" in shown
