"""A device that vanishes, and a disk that is full in one run of many: one line, nothing lost."""

from __future__ import annotations

import errno
import os

import torch

from capacity.cli import main
from capacity.recipe import config
from capacity.runs.directory import RunDirectory
from capacity.runs.execute import Execution
from capacity.runs.job_queue import JobQueue, Work
from capacity.runs.jobs_progress import JobsProgress

FIELDS = [
    "tasks.samples=32", "tasks.experiences=2", "model.hidden=[4]", "training.epochs=1",
    "replicas=1", "measure.forecast=false", "measure.capacity=false", "measure.verdicts=false",
    "measure.closure_points=0", "measure.transport=false",
]  # fmt: skip


def test_a_run_whose_device_vanishes_is_one_line_and_goes_on(
    quick_run, tmp_path, capsys, monkeypatch
):
    learn = Execution._learn

    def vanishing(self, i):
        if i == 1:
            raise torch.AcceleratorError("CUDA error: unspecified launch failure")
        learn(self, i)

    words = ["run", "tiny-digits", *FIELDS, "--no-report", "--quiet", "--device", "cpu"]
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Execution, "_learn", vanishing)
        assert main([*words, "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "CUDA error" in said
    assert f"capacity run --resume {out}" in said
    assert "would fail again" not in said
    assert RunDirectory(out).status()["state"] == "failed"
    assert main(["run", "--resume", str(out), "--no-report", "--quiet", "--device", "cpu"]) == 0
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    ends = [folder / "result.json" for folder in (out, tmp_path / "whole")]
    assert ends[0].read_bytes() == ends[1].read_bytes()


class Launched:
    """A command that ended, with what it said."""

    def __init__(self, code, said):
        self._code, self._said = code, said

    def poll(self):
        return self._code

    def lines(self):
        return [self._said]


class Launcher:
    """Starts nothing; says that it was asked."""

    def __init__(self):
        self.asked = []

    def take_over(self, label, tell):
        return None

    def start(self, label, command, tell):
        self.asked.append(label)
        return Launched(1, "capacity: OSError: [Errno 28] No space left on device")


def test_a_disk_that_is_full_in_one_run_of_a_sweep_does_not_end_the_others(tmp_path, monkeypatch):
    recipe = config.load("tiny-digits", FIELDS)
    works = [Work(name, recipe, RunDirectory(tmp_path / name)) for name in ("first", "second")]
    monkeypatch.setattr(
        works[0].directory,
        "write",
        lambda files: (_ for _ in ()).throw(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
    )
    launcher = Launcher()
    queue = JobQueue(1, [], JobsProgress(2, quiet=True), launcher)
    queue.carry_out(works, finished=0)
    assert launcher.asked == ["second"]
    assert "No space left on device" in queue.failed["first"]
    assert "No space left on device" in queue.failed["second"]
    assert not works[0].directory.busy
