"""Tangents shared among two processes on the CPU, against one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from capacity.jacobian.distributed import ShardedJacobian
from capacity.jacobian.training_jacobian import TrainingJacobian
from forked import forked
from transport_sharded import measure, setting

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PROCESSES = 2


def environment():
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    worker = ROOT / "tests" / "transport_sharded.py"
    logs = [folder / f"{rank}.log" for rank in range(PROCESSES)]
    running = []
    try:
        for rank, log in enumerate(logs):
            with log.open("w") as output:
                command = [sys.executable, worker, str(rank), str(PROCESSES), folder]
                with forked():
                    running.append(
                        subprocess.Popen(command, env=environment(), stdout=output, stderr=output)
                    )
        for process, log in zip(running, logs, strict=True):
            assert process.wait(timeout=240) == 0, log.read_text()
    finally:
        for process in running:
            process.kill()
            process.wait()
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


def test_two_processes_find_what_one_finds(shards, float64):
    trajectory = setting()
    alone = measure(TrainingJacobian([trajectory]))
    for name, expected in alone.items():
        one, other = (shard["found"][name] for shard in shards)
        assert torch.equal(one, other), f"the processes disagree about {name}"
        torch.testing.assert_close(one, expected, rtol=1e-9, atol=1e-11, msg=name)
    assert float((alone["forward"] - alone["adjoint"]).norm()) > 0.1
    assert alone["products"][0] > 0


def test_errors_reach_every_process(shards):
    for rank, shard in enumerate(shards):
        errors = shard["errors"]
        assert "ValueError: rows differ between the 2 processes" in errors["rows"]
        assert "ValueError: rows differ" in errors["count"]
        assert "ValueError: tangents has shape (2, 3)" in errors["shape"]
        assert "ValueError: trajectories differ" in errors["training"]
        # Only the last process has the row that is lost.
        expected = "process 1 failed on its rows" if rank == 0 else "no longer finite at step"
        assert errors["infinite"].startswith("FloatingPointError")
        assert expected in errors["infinite"]


def test_without_a_process_group(float64):
    trajectory = setting()
    with pytest.raises(ValueError, match=r"init_process_group.*torchrun"):
        ShardedJacobian(TrainingJacobian([trajectory]))


def test_the_example_runs_under_torchrun():
    script = ROOT / "benchmarks" / "transport" / "sharded_spectrum.py"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    with forked():
        done = subprocess.run(
            [*launcher, "--nproc-per-node", str(PROCESSES), str(script)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=240,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "P = 3010, 2 processes, cpu" in done.stdout
    difference = float(done.stdout.split("largest relative difference")[1])
    assert difference < 1e-4
