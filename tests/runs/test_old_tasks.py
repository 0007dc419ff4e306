"""`measure.old`: which old tasks a run looks at, and that every reader copes with the rest."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

import capacity
from capacity.exporters.content import content
from capacity.report import render
from capacity.results.gather import read_checked
from capacity.results.query_rows import rows_of
from capacity.results.view import measured_mean
from capacity.runs import execute, run
from capacity.runs.old_tasks import OldTasks

COUNT = 5
OFF = {"transport": False, "closure_points": 0}
slow = pytest.mark.slow  # whole runs


def tasks():
    draw = torch.Generator().manual_seed(0)
    made = []
    for _ in range(COUNT):
        x, direction = torch.randn(24, 3, generator=draw), torch.randn(3, generator=draw)
        y = (x @ direction > 0).long()
        made.append(((x[:16], y[:16]), (x[16:], y[16:])))
    return made


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def begin(old, path, **measured):
    return capacity.run(
        tasks(),
        model=network(),
        training=capacity.Training(lr=0.2, epochs=2, batch_size=8),
        measure=capacity.Measure(
            old=old, **({"strategies": ["ewc"], "forecast_budget": None} | measured)
        ),
        replicas=2,
        out=path,
        quiet=True,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    written = {"all": "all", "last": "last 2", "sample": "sample 2"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.Run, "report", lambda self, _=None: self.path)
        return {name: begin(old, folder / name) for name, old in written.items()}


def test_what_is_looked_at_is_bounded_seeded_and_whole_at_the_end():
    last, sample = (OldTasks(f"{kind} 3", 40, 0) for kind in ("last", "sample"))
    assert last.before(2) == (0, 1)
    assert last.before(20) == (17, 18, 19)
    assert last.tested(20) == (17, 18, 19, 20)
    drawn = [sample.before(i) for i in range(4, 40)]
    assert all(len(set(old)) == 3 and max(old) < i for i, old in enumerate(drawn, start=4))
    assert len(set(drawn)) > 30, "drawn anew before every task"
    assert {j for old in drawn for j in old} >= set(range(20)), "early tasks are drawn, too"
    assert drawn == [OldTasks("sample 3", 40, 0).before(i) for i in range(4, 40)]
    assert drawn != [OldTasks("sample 3", 40, 1).before(i) for i in range(4, 40)]
    for i in range(1, 39):
        assert {*sample.before(i), i, *sample.before(i + 1)} == set(sample.tested(i))
    assert sample.scored(39) == OldTasks("all", 40, 0).tested(7) == tuple(range(40))


@slow
@pytest.mark.parametrize("name", ["last", "sample"])
def test_what_is_left_out_changes_no_other_number(runs, name):
    whole, some = runs["all"].result, runs[name].result
    chosen = OldTasks(f"{name} 2", COUNT, 0)
    for i, row in enumerate(some["accuracy"]["mean"]):
        known = {j: value for j, value in enumerate(row) if value is not None}
        assert tuple(known) == chosen.scored(i)
        assert all(value == whole["accuracy"]["mean"][i][j] for j, value in known.items())
    assert some["final"] == whole["final"], "all tasks are scored at the end"
    for i, (part, full) in enumerate(zip(some["transitions"], whole["transitions"], strict=True)):
        numbers = chosen.before(i + 1)
        assert tuple(cell["task"] for cell in part["old"]) == numbers
        assert [c["measured"] for c in part["old"]] == [full["old"][j]["measured"] for j in numbers]
        assert [c["forecast"] for c in part["old"]] == [full["old"][j]["forecast"] for j in numbers]
        for strategy in part["by_strategy"]:
            assert tuple(cell["task"] for cell in strategy["old"]) == numbers
    table = some["forgetting"]["accuracy"]["last"]
    for i, row in enumerate(table):
        known = [j for j, cell in enumerate(row) if cell is not None]
        assert known == [j for j in chosen.scored(i) if j < i]
    assert table[-1] == whole["forgetting"]["accuracy"]["last"][-1]


@slow
def test_every_reader_copes_with_the_gaps(runs, tmp_path):
    path, said = runs["sample"].path, "measure.old = sample 2"
    view = read_checked(path)
    assert said in view.old_said
    page = render(path).read_text(encoding="utf-8")
    assert said in page
    assert "not scored" in page
    assert not read_checked(runs["all"].path).old_said
    mean = measured_mean(view, view.transitions[-1], "accuracy_drop")
    cells = [c["measured"]["accuracy_drop"]["value"] for c in view.transitions[-1]["old"]]
    assert mean.value == pytest.approx(sum(cells) / 2)
    assert mean.n == 2, "spread over replicas"
    compared = capacity.compare([path, runs["all"].path])
    assert said in compared.report(tmp_path / "page.html").read_text(encoding="utf-8")
    (rows,) = capacity.load_runs([path]).query("SELECT count(*) FROM transitions").rows
    assert rows == (1 + 3 * 2,)
    tested = capacity.load_runs([path]).query(
        "SELECT count(test_loss), count(*) FROM metrics WHERE task = 3 AND epoch = 2"
    )
    assert tested.rows == [(len(OldTasks("sample 2", COUNT, 0).tested(3)), COUNT)]
    assert len(rows_of(view)["tasks"]) == COUNT
    capacity.plots.accuracy_matrix(path)
    logged = content(path, view).series[max(row["step"] for row in view.rows)]
    assert all(math.isfinite(value) for value in logged.values())
    assert {f"test_loss/task_{j + 1}" for j in range(COUNT)} & set(logged) == {
        f"test_loss/task_{j + 1}" for j in OldTasks("sample 2", COUNT, 0).tested(COUNT - 1)
    }


@slow
def test_a_run_that_goes_on_looks_at_the_same(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(run.Run, "report", lambda self, _=None: self.path)
    after = execute.Execution._after

    def interrupted(self, i):
        if i == 2:
            raise KeyboardInterrupt
        after(self, i)

    with monkeypatch.context() as patch:
        patch.setattr(execute.Execution, "_after", interrupted)
        with pytest.raises(KeyboardInterrupt):
            begin("sample 2", tmp_path / "run")
    stopped = json.loads((tmp_path / "run" / "result.json").read_text())
    assert stopped["final"]["accuracy"]["value"] is not None, "of the tasks that were scored"
    assert "max" in read_checked(tmp_path / "run").forgotten("accuracy")
    begin("sample 2", tmp_path / "run")
    for file in ("result.json", "metrics.jsonl"):
        assert (tmp_path / "run" / file).read_bytes() == (runs["sample"].path / file).read_bytes()


@slow
def test_the_room_is_that_of_the_chosen(tmp_path, monkeypatch):
    monkeypatch.setattr(run.Run, "report", lambda self, _=None: self.path)
    seen, capacity_of = [], execute.BeforeTask.room

    def room(self):
        seen.append((self.numbers, len(self.old)))
        return capacity_of(self)

    monkeypatch.setattr(execute.BeforeTask, "room", room)
    measure = {"capacity": True, "verdicts": False, "forecast": False, "strategies": ()} | OFF
    effort = {"capacity_probes": 2, "capacity_nodes": 2, "sensitivity_eps": ()}
    made = begin("last 1", tmp_path / "run", **measure, **effort)
    assert [k for k in seen if k[1] != 1] == []
    assert {numbers for numbers, _ in seen} == {(i,) for i in range(COUNT - 1)}
    assert made.result["transitions"][-1]["capacity"]["directions"]["value"] is not None


@pytest.mark.parametrize("written", ["none", "last", "last 0", "last -1", "sample 2.5", "all 3"])
def test_what_is_no_choice_is_refused(written):
    with pytest.raises(ValueError, match=r"old = .*write 'all', 'last 5' .* or 'sample 5'"):
        capacity.Measure(old=written)
