"""One run as tables: the numbers of its result, a row each, and frames where pandas is there."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

import capacity
from capacity.results.frames import FRAMES
from report.fabricated_run import write


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return capacity.open_run(write(tmp_path_factory.mktemp("run") / "run"))


def test_records_are_those_of_the_result(run):
    assert [cost["task"] for cost in run.costs] == [0, 1, 2]
    assert (
        run.costs[1]["inefficiency_path"]
        == (run.result["phases"][1]["thermo"]["inefficiency_path"])
    )
    assert len(run.forecasts) == len(run.measured) == 2


def test_a_table_has_a_row_per_case_and_the_numbers_of_the_result(run):
    sizes = {name: len(run.table(name)) for name in FRAMES}
    # Three tasks: three pairs of a new and an old one; five epochs of each, three tested in each.
    assert sizes == {
        "transitions": 3,
        "forecasts": 3,
        "measured": 3,
        "strategies": 6,
        "tasks": 3,
        "costs": 3,
        "spectra": 18,
        "metrics": 45,
        "runs": 1,
    }
    first = next(iter(run.table("forecasts")))
    assert (first["task"], first["old_task"]) == (1, 0)
    assert first["accuracy_drop"] == pytest.approx(0.14)
    assert first["accuracy_drop_status"] == "uncalibrated"
    assert next(iter(run.table("measured")))["accuracy_drop"] == pytest.approx(0.12)
    assert run.table("costs").column("inefficiency_path") == pytest.approx([1.9, 2.9, 3.9])
    assert run.table("spectra").column("rank")[:7] == [1, 2, 3, 4, 5, 6, 1]
    assert run.table("metrics").column("tested")[:4] == [0, 1, 2, 0]
    assert "run" not in run.table("transitions").columns


def test_what_was_not_measured_gives_no_row(tmp_path):
    run = capacity.open_run(write(tmp_path / "run", "one_task"))
    assert len(run.table("transitions")) == len(run.table("forecasts")) == 0
    assert run.forecasts == []


def test_a_frame_is_pandas_own_and_its_absence_is_named(run, monkeypatch):
    frames = SimpleNamespace(DataFrame=lambda rows, columns: (len(rows), columns[:2]))
    monkeypatch.setitem(sys.modules, "pandas", frames)
    assert run.frame("transitions") == (3, ["task", "old_task"])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ValueError, match="needs pandas, which is not installed; install it with"):
        run.frame("transitions")


def test_an_unknown_table_is_refused_by_name(run):
    with pytest.raises(ValueError, match=r"name = 'transition' is not known.*: transitions"):
        run.frame("transition")
