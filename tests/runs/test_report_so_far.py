"""The report is there while the run goes on, and the last page is the true one."""

from __future__ import annotations

import re

import pytest
import torch

import capacity
from capacity.report import renderer
from capacity.runs import report_door
from capacity.runs.directory import RunDirectory
from capacity.runs.execute import Execution
from capacity.runs.report_door import ReportSoFar
from capacity.runs.shares import shares

pytestmark = pytest.mark.page_so_far


def run(out, *, report=True):
    x = torch.randn(3, 30, 3, generator=torch.Generator().manual_seed(0))
    return capacity.run(
        [(x[k], (x[k, :, k] > 0).long()) for k in range(3)],
        model=torch.nn.Linear(3, 2),
        training=capacity.Training(epochs=2),
        measure=capacity.Measure(forecast=False),
        replicas=2,
        quiet=True,
        out=out,
        report=report,
    )


def test_a_run_without_a_report_is_finished_and_gets_it_when_asked(tmp_path):
    made = run(tmp_path / "run", report=False)
    directory = RunDirectory(made.path)
    assert made.status == "finished"
    assert directory.complete
    assert not (made.path / "report.html").exists()
    with pytest.raises(ValueError, match="report = 'no' is neither True nor False"):
        run(tmp_path / "other", report="no")


@pytest.mark.slow  # two pages with their figures are drawn
def test_after_the_first_task_a_page_with_a_figure_is_there(tmp_path, monkeypatch):
    seen = []
    learn = Execution._learn

    def looking(self, i):
        page = tmp_path / "run" / "report.html"
        seen.append(page.read_text() if page.is_file() else None)
        learn(self, i)

    monkeypatch.setattr(Execution, "_learn", looking)
    page = run(tmp_path / "run").path / "report.html"
    before, after_one, after_two = seen
    assert before is None
    assert re.search(r"<figure .*?<svg ", after_one, re.DOTALL)
    assert "had not ended" in after_one
    assert after_two == after_one, "one page in twenty times the time that it took"
    assert "had not ended" not in page.read_text()


@pytest.mark.slow  # a page is drawn
def test_a_page_so_far_does_not_outlive_the_failure_of_the_last_one(tmp_path, monkeypatch):
    render = report_door.write_report

    def failing(run_dir, output=None):
        if (tmp_path / "run" / "result.json").read_text().count('"status": "finished"'):
            raise renderer.RenderingError("a chart cannot be drawn")
        return render(run_dir, output)

    monkeypatch.setattr(report_door, "write_report", failing)
    monkeypatch.setattr("capacity.runs.run_on_disk.write_report", failing)
    made = run(tmp_path / "run")
    assert made.status == "finished"
    assert not (made.path / "report.html").exists()


def test_a_page_that_cannot_be_made_on_the_way_does_not_end_the_run(tmp_path, monkeypatch):
    tried = []

    def failing(path):
        tried.append(path)
        raise renderer.RenderingError("a chart cannot be drawn")

    monkeypatch.setattr(report_door, "write_report", failing)
    so_far = ReportSoFar(capacity.runs.directory.RunDirectory(tmp_path))
    assert so_far() is False
    assert len(tried) == 1


def test_shares_add_up_and_what_went_on_beside_is_apart():
    said = shares({"train": 30.0, "forecast": 10.0, "capacity beside": 25.0}, total=50.0)
    assert [" ".join(line.split()) for line in said.splitlines()] == [
        "30.0 s 60% train",
        "10.0 s 20% forecast",
        "10.0 s 20% start, data, last page",
        "25.0 s capacity beside",
        "50.0 s 100% in all",
    ]
