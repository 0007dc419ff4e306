"""Comparisons and tables read a run's summary, and never one that is not of its files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

import capacity
from capacity.recipe import config
from capacity.results import summary_file
from capacity.results.reader import SUMMARY
from capacity.results.run_summary import summarised
from capacity.results.view_of_run import view_of
from capacity.runs.directory import RunDirectory

RECIPE = config.load("tiny-digits", [
    "tasks.samples=32", "tasks.experiences=2", "model.hidden=[4]", "training.epochs=1",
    "replicas=1", "measure.forecast=false", "measure.capacity=false", "measure.verdicts=false",
    "measure.closure_points=0", "measure.transport=false",
])  # fmt: skip


@pytest.fixture(scope="module")
def finished(quick_runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("summary") / "run"
    return capacity.run(RECIPE, out=path, quiet=True, report=False).path


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def unread(monkeypatch):
    """The runs that were read whole from here on."""
    paths = []
    read = summary_file.read_whole

    def noted(path):
        paths.append(path)
        return read(path)

    monkeypatch.setattr(summary_file, "read_whole", noted)
    return paths


def test_a_finished_run_is_read_from_its_summary_with_the_same_numbers(run, unread):
    (texts,), (compared,) = summary_file.texts_of([run]), summary_file.compared([run])
    said, rows = str(capacity.compare(run)), capacity.query("FROM tasks", run).rows
    metrics = capacity.query("FROM metrics", run).rows
    assert unread == []
    view = view_of(RunDirectory(run))
    assert {name: json.loads(text) for name, text in texts.items()} == summary_file.rows_of(view)
    assert compared.recipe == view.recipe
    assert compared.view == summarised(view)
    (run / SUMMARY).unlink()
    assert (str(capacity.compare(run)), capacity.query("FROM tasks", run).rows) == (said, rows)
    assert capacity.query("FROM metrics", run).rows == metrics
    assert len(metrics) > len(rows) == 2


def test_a_summary_of_other_files_is_not_believed_and_made_anew(run, unread):
    result = json.loads((run / "result.json").read_bytes())
    result["final"]["accuracy"]["value"] = 0.125
    RunDirectory(run).write({"result.json": result})
    asked = "SELECT accuracy FROM runs"
    assert capacity.query(asked, run).rows == [(0.125,)]
    assert unread == [run]
    assert capacity.query(asked, run).rows == [(0.125,)]
    assert unread == [run]


def test_a_summary_of_another_layout_is_not_believed(run, unread, monkeypatch):
    monkeypatch.setattr(summary_file, "_LAYOUT", "another version")
    list(summary_file.texts_of([run]))
    assert unread == [run]


def test_a_damaged_summary_is_refused_by_name(run):
    content = bytearray((run / SUMMARY).read_bytes())
    content[len(content) // 2] ^= 1
    (run / SUMMARY).write_bytes(content)
    for read in (lambda: capacity.load_runs(run), lambda: capacity.compare(run)):
        with pytest.raises(ValueError, match=r"summary\.parquet: damaged.*delete it") as caught:
            read()
        assert "made anew" in str(caught.value)
    (run / SUMMARY).unlink()
    capacity.load_runs(run)
    assert (run / SUMMARY).is_file()


def test_a_damaged_run_is_refused_whatever_its_summary_says(run):
    content = bytearray((run / "result.json").read_bytes())
    content[100] ^= 1
    (run / "result.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"result\.json: damaged"):
        capacity.load_runs(run)
    (run / "result.json").unlink()
    with pytest.raises(ValueError, match=r"result\.json: missing"):
        capacity.compare(run)


def test_a_run_that_has_not_ended_or_has_no_digests_gets_no_summary(run):
    (run / SUMMARY).unlink()
    status = json.loads((run / "status.json").read_bytes())
    RunDirectory(run).write({"status.json": {**status, "state": "interrupted"}})
    assert capacity.query("SELECT status FROM runs", run).rows == [("interrupted",)]
    (run / "manifest.json").unlink()
    (run / "status.json").write_text(json.dumps(status))
    assert capacity.query("SELECT verified FROM runs", run).rows == [(False,)]
    assert not (run / SUMMARY).exists()


def test_a_name_that_is_a_pattern_is_read_whole(run, unread):
    other = run.rename(run.with_name("run[1]"))
    assert capacity.query("SELECT path FROM runs", other).rows == [(str(other),)]
    assert unread == [other]


def test_questions_to_summaries_need_no_torch(run):
    asked = f"import sys, capacity; capacity.load_runs({str(run)!r}); print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, check=True, text=True)
    assert said.stdout == "False\n"
