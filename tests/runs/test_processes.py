"""A run on one thread, on two, and with a process beside it measures the same."""

from __future__ import annotations

import json
import os

import pytest
import torch
from torch import nn

import capacity
from capacity.base import beside
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.runs.aside import Aside
from capacity.runs.execute import Execution
from capacity.runs.repeatable import threads_for

pytestmark = pytest.mark.usefixtures("quick_run")


def task(labels):
    generator = torch.Generator().manual_seed(sum(labels))
    y = torch.tensor(labels).repeat(12)
    return torch.randn(24, 4, generator=generator) + 2 * torch.eye(4)[y], y


def result(out, tasks=2, **how):
    torch.manual_seed(3)
    labels = [(0, 1), (1, 2), (0, 2), (0, 1), (1, 2)]
    run = capacity.run(
        [task(pair) for pair in labels[:tasks]],
        model=nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)),
        training=capacity.Training(lr=0.2, epochs=3, batch_size=8),
        measure=capacity.Measure(
            level="full", sensitivity_eps=(), capacity_nodes=2, capacity_probes=2, closure_points=1
        ),
        replicas=2,
        out=out,
        quiet=True,
        **how,
    )
    return run.result, json.loads((out / "status.json").read_text())["seconds"]


@pytest.mark.slow
def test_what_is_measured_beside_is_what_is_measured_in_turn(tmp_path, monkeypatch):
    monkeypatch.setattr("capacity.runs.execute.possible", lambda: True)
    alone, spent = result(tmp_path / "alone")
    both, shared = result(tmp_path / "both", processes=2)
    assert both == alone
    assert alone["transitions"][0]["capacity"] is not None
    assert "capacity beside" not in spent
    assert shared["capacity beside"] > 0


@pytest.mark.slow  # three short runs at level full
def test_a_process_beside_that_is_killed_has_its_work_done_from_where_it_began(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("capacity.runs.execute.possible", lambda: True)
    alone, _ = result(tmp_path / "alone", tasks=3)
    both, shared = result(tmp_path / "both", tasks=3, processes=2)
    assert both == alone
    assert set(shared) >= {"capacity beside", "forecast beside"}  # the first forecast, and the rest
    monkeypatch.setattr("capacity.base.beside._serve", lambda *_: os._exit(9))
    killed, spent = result(tmp_path / "killed", tasks=3, processes=2)
    assert killed == alone
    assert spent["capacity beside"] > 0


@pytest.mark.slow
def test_a_room_that_takes_long_is_waited_for_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("capacity.runs.execute.possible", lambda: True)
    monkeypatch.setattr("capacity.base.beside.Beside.done", lambda _: False)
    learn, wait, order = Execution._learn, Aside.result, []
    monkeypatch.setattr(
        Execution, "_learn", lambda self, i: [learn(self, i), order.append(f"learned {i}")]
    )
    monkeypatch.setattr(
        Aside, "result", lambda self, stage, kind: [wait(self, stage, kind), order.append(stage)][0]
    )
    both, _ = result(tmp_path / "both", tasks=5, processes=2)
    rooms = [stage for stage in order if stage.endswith("capacity")]
    assert rooms == ["task2.capacity", "task3.capacity", "task4.capacity"]
    assert order.index("learned 3") < order.index("task2.capacity") < order.index("learned 4")
    assert order.index("learned 4") < order.index("task3.capacity")
    assert all(t["capacity"] is not None for t in both["transitions"])


@pytest.mark.slow
def test_more_threads_change_no_result(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(
        "capacity.runs.execute.evaluate",
        lambda *given: taken.append(torch.get_num_threads()) or evaluate(*given),
    )
    one, two = (result(tmp_path / str(k), threads=k)[0]["loss"]["mean"] for k in (1, 2))
    assert set(taken) == {1, 2}
    for before, after in zip(one, two, strict=True):
        assert before == pytest.approx(after, rel=1e-4)


def test_small_networks_take_one_thread():
    cpu = torch.device("cpu")
    assert threads_for(FlatModel(nn.Linear(8, 2)), cpu) == 1
    assert threads_for(FlatModel(nn.Linear(1000, 140)), cpu) == torch.get_num_threads()


def test_a_number_of_threads_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="threads = 0"):
        result(tmp_path / "none", threads=0)
    with pytest.raises(ValueError, match="processes = 0"):
        result(tmp_path / "none", processes=0)
    assert not (tmp_path / "none").exists()


def test_there_is_a_place_beside_where_there_are_two_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert beside.possible()
    monkeypatch.setattr("sys.platform", "darwin")
    assert not beside.possible()
