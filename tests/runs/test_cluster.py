"""Runs as jobs that submitit starts, here by its local executor."""

from __future__ import annotations

import shutil
import sys
import time

import pytest

import capacity
from capacity.cli import main
from capacity.recipe import config
from capacity.runs.cluster import ClusterJobs
from capacity.runs.directory import RunDirectory
from capacity.runs.job_queue import JobQueue, Work
from capacity.runs.jobs_progress import JobsProgress

SMALL = [
    "training.epochs=1", "tasks.experiences=1", "tasks.samples=64", "measure.level=forecast",
    "replicas=1",
]  # fmt: skip


@pytest.mark.slow
def test_jobs_give_what_the_same_runs_give_and_one_that_fails_is_told(tmp_path, quick_runs):
    """Three jobs: a run, one whose directory is no run, and one that goes on where it was cut."""
    recipe = config.load("tiny-digits", SMALL)
    alone = capacity.run(recipe, out=tmp_path / "alone", quiet=True)
    shutil.copytree(alone.path, tmp_path / "done")
    (tmp_path / "taken").write_text("a file")
    works = [
        Work("new", recipe, RunDirectory(tmp_path / "new")),
        Work("taken", recipe, RunDirectory(tmp_path / "taken")),
    ]
    jobs = ClusterJobs(tmp_path / "jobs", kind="local", minutes=5)
    queue = JobQueue(2, ["--device", "cpu"], JobsProgress(2, quiet=True), jobs)
    queue.carry_out(works, finished=0)
    assert list(queue.failed) == ["taken"]
    result = "result.json"
    assert (tmp_path / "new" / result).read_bytes() == (alone.path / result).read_bytes()
    logs = [path.name for path in (tmp_path / "jobs").iterdir()]
    assert any(name.endswith("_log.err") for name in logs), logs


@pytest.mark.slow
def test_a_job_whose_run_fails_says_why(tmp_path, quick_runs):
    wild = config.load("tiny-digits", [*SMALL, "model.hidden=[8]"])
    directory = RunDirectory(tmp_path / "wild")
    directory.claim(wild)
    directory.release()
    (directory.path / "recipe.yaml").write_text("name: [")
    jobs = ClusterJobs(tmp_path / "jobs", kind="local", minutes=5)
    told: list[str] = []
    launched = jobs.start(
        "wild",
        [sys.executable, "-m", "capacity.cli", "run", "--resume", str(directory.path)],
        told.append,
    )
    while launched.poll() is None:
        time.sleep(0.1)
    assert launched.poll() == 1
    assert "recipe.yaml" in launched.lines()[-1]
    assert told[0].startswith("submitted as job ")


@pytest.mark.skipif(shutil.which("sbatch") is not None, reason="there is a cluster here")
def test_a_machine_without_a_cluster_is_told_so_before_anything_is_written(tmp_path, capsys):
    out = tmp_path / "sweep"
    asked = ["sweep", "tiny-digits", "training.lr=0.1,0.2", "--on", "slurm", "--out", str(out)]
    assert main(asked) == 2
    assert "submit from a machine that has sbatch, or use on = 'local'" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"on": "pbs"}, "on = 'pbs' is not known; accepted: local, slurm"),
        ({"partition": "gpu"}, "partition and minutes are those of a cluster's jobs"),
        ({"minutes": 5}, "partition and minutes are those of a cluster's jobs"),
        ({"on": "slurm", "minutes": 0}, "minutes = 0"),
    ],
)
def test_what_no_cluster_knows_is_refused(asked, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        capacity.sweep("tiny-digits", out=tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()
