"""What a sweep makes of a SLURM's answers, here given by scripts in place of its commands."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

import capacity
from capacity.recipe import config
from capacity.runs import cluster, job_queue
from capacity.runs.cluster import ClusterJobs
from capacity.runs.directory import RunDirectory
from capacity.runs.job_queue import JobQueue, Work
from capacity.runs.jobs_progress import JobsProgress
from capacity.runs.launchers import NotNowError

ABSENT = "echo 'sbatch: error: Unable to contact slurm controller (connect failure)' >&2; exit 1"


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """A function that says what a command of SLURM answers: shell text by its name."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def answer(**commands: str) -> None:
        for name, text in commands.items():
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)

    answer(
        srun="exit 0", sacct="exit 0", scancel="exit 0", squeue="exit 0",
        sinfo="printf 'cpu\\ngpu\\n'", sbatch="echo Submitted batch job 7",
    )  # fmt: skip
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return answer


@pytest.mark.usefixtures("answers")
def test_a_partition_that_is_not_there_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"partition = 'gpus' is not known.*gpu"):
        capacity.sweep("tiny-digits", on="slurm", partition="gpus", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    ClusterJobs(tmp_path / "jobs", partition="gpu")


def test_a_job_that_an_earlier_process_submitted_is_taken_over_while_it_is_queued(
    tmp_path, answers
):
    told: list[str] = []
    ClusterJobs(tmp_path / "jobs").start("seed=0", ["true"], told.append)
    with (tmp_path / "jobs" / "submitted.jsonl").open("a") as file:
        file.write('["seed=1", "8')  # whose process died as it wrote
    later = ClusterJobs(tmp_path / "jobs")
    answers(squeue="echo RUNNING")
    assert later.take_over("seed=0", told.append) is not None
    assert later.take_over("seed=1", told.append) is None
    answers(squeue="echo slurm_load_jobs error: Invalid job id specified >&2; exit 1")
    assert later.take_over("seed=0", told.append) is None
    answers(squeue=ABSENT)
    with pytest.raises(NotNowError):
        later.take_over("seed=0", told.append)
    assert told == ["submitted as job 7", "taken over as job 7"]


def test_a_run_whose_job_still_works_on_it_is_waited_for_and_not_begun_again(
    tmp_path, answers, monkeypatch
):
    """Its directory is in use, which would be the end of a job that is submitted once more."""
    recipe = config.load("tiny-digits")
    work = Work("run", recipe, RunDirectory(tmp_path / "run"))
    ClusterJobs(tmp_path / "jobs").start("run", ["true"], list)
    holder = RunDirectory(tmp_path / "run")
    holder.claim(recipe)
    answers(squeue="echo RUNNING", sbatch="exit 1")
    queue = JobQueue(1, [], JobsProgress(1, quiet=True), ClusterJobs(tmp_path / "jobs"))
    try:
        queue._start(work)
    finally:
        holder.release()
    assert queue.failed == {}
    assert len(queue._busy) == 1


def test_a_controller_that_is_away_fails_no_run(tmp_path, answers, monkeypatch):
    asked: list[str] = []

    class Away(ClusterJobs):
        """A cluster whose controller comes back before the third question."""

        def start(self, label, command, tell):
            asked.append(label)
            answers(sbatch=ABSENT if len(asked) < 3 else "echo not today >&2; exit 1")
            return super().start(label, command, tell)

    monkeypatch.setattr(job_queue, "_PAUSE", 0.01)
    work = Work("run", config.load("tiny-digits"), RunDirectory(tmp_path / "run"))
    queue = JobQueue(1, [], JobsProgress(1, quiet=True), Away(tmp_path / "jobs"))
    queue.carry_out([work], finished=0)
    assert asked == ["run"] * 3
    assert queue.failed == {"run": "the cluster took no job: not today"}


def test_a_job_that_the_cluster_ends_to_requeue_it_leaves_no_result_of_its_own(monkeypatch):
    """submitit would take an error for the end of the job, which begins again."""
    slept: list[float] = []
    monkeypatch.setattr(cluster.time, "sleep", slept.append)
    ended = f"import os; os.kill(os.getpid(), {int(signal.SIGTERM)})"
    with pytest.raises(RuntimeError, match="exit code -15"):
        cluster._Command((sys.executable, "-c", ended))()
    assert slept == [cluster._ENDING]
    with pytest.raises(RuntimeError, match="exit code 3"):
        cluster._Command((sys.executable, "-c", "raise SystemExit(3)"))()
    assert len(slept) == 1


def test_two_processes_do_not_work_on_one_sweep(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    held = (
        "from pathlib import Path; from capacity.runs.lock import DirectoryLock; "
        f"DirectoryLock(Path({str(out)!r})).acquire(); print('held', flush=True); input()"
    )
    words = [sys.executable, "-c", held]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match="in use by process"):
            capacity.sweep("tiny-digits", seeds=[0], out=out, quiet=True)
        process.kill()
    assert not (out / "sweep.json").exists()
