"""Runs as jobs of a SLURM cluster, by submitit (extra `slurm`).

A job is `capacity run --resume DIR`: one that is preempted, or comes to its time limit, is put into
the queue again and goes on where its directory says. What is done and left is read from the run
directories, so nothing is lost when the process that submits ends: its jobs work on, and `capacity
sweep --resume` submits what is left.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capacity.base.distribution import install
from capacity.runs.launchers import Launched

if TYPE_CHECKING:
    from submitit import Job

_KEPT_LINES, _TAIL = 20, 1 << 14
_LOOK_EVERY = 10.0
"""Seconds between two questions to the queue about a job."""
_KILLED = -signal.SIGKILL
FOLDER = "jobs"
"""Where the logs of the jobs lie, inside the sweep's folder."""


class ClusterJobs:
    """Jobs of a cluster.

    Args:
        folder: Where their logs go.
        kind: `slurm`; or `local`, processes that submitit starts without a cluster.
        partition: The cluster's partition; None takes its default.
        minutes: Time limit of a job, after which it is put into the queue again.
        gpus: GPUs of a job.

    Raises:
        ValueError: If submitit is not installed, or there is no cluster here.
    """

    def __init__(
        self,
        folder: Path,
        *,
        kind: str = "slurm",
        partition: str | None = None,
        minutes: int = 60,
        gpus: int = 0,
    ) -> None:
        try:
            import submitit
        except ImportError:
            raise ValueError(
                f"on = {kind!r} needs submitit, which is not installed: {install('slurm')}"
            ) from None
        try:
            executor = submitit.AutoExecutor(folder=folder, cluster=kind)
        except RuntimeError as error:
            raise ValueError(
                f"on = {kind!r}: {error}; submit from a machine that has sbatch, or use "
                "on = 'local'"
            ) from None
        more: dict[str, Any] = {"gpus_per_node": gpus} if gpus else {}
        if kind == "slurm":
            more |= {"slurm_partition": partition} if partition else {}
        executor.update_parameters(timeout_min=minutes, name="capacity", **more)
        self._executor, self._slurm = executor, kind == "slurm"
        # A cluster without accounting makes it warn at every look; `_gone` asks the queue itself.
        logging.getLogger("submitit").setLevel(logging.ERROR)

    def start(self, command: Sequence[str], tell: Callable[[str], None]) -> Launched:
        """Submit a command (see `launchers.Launcher`)."""
        try:
            job = self._executor.submit(_Command(tuple(command)))
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            raise ValueError(f"the cluster took no job: {error}") from None
        tell(f"submitted as job {job.job_id}")
        return _ClusterJob(job, queued=self._slurm)


class _Command:
    """A command that may be begun again at any time, since it goes on where it was."""

    def __init__(self, command: tuple[str, ...]) -> None:
        self._command = command

    def __call__(self) -> None:
        code = subprocess.run(self._command, check=False).returncode
        if code:
            raise RuntimeError(f"exit code {code}")

    def checkpoint(self) -> Any:
        """Come again into the queue, as submitit asks where a job is preempted."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class _ClusterJob:
    """A job of the cluster."""

    def __init__(self, job: Job[None], *, queued: bool) -> None:
        self._job, self._queued = job, queued
        self._looked, self._missing = time.monotonic(), 0

    def poll(self) -> int | None:
        if not self._job.done():
            return _KILLED if self._queued and self._gone() else None
        return 0 if self._job.exception() is None else 1

    def _gone(self) -> bool:
        """Whether the job has left the queue for good, as one that was killed does, untold."""
        if time.monotonic() - self._looked < _LOOK_EVERY:
            return False
        self._looked = time.monotonic()
        asked = ["squeue", "--noheader", "--jobs", str(self._job.job_id), "--format", "%T"]
        try:
            seen = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return False  # a controller that does not answer says nothing of its jobs
        there = seen.returncode == 0 and seen.stdout.strip()
        unknown = "Invalid job id" in seen.stderr or (seen.returncode == 0 and not there)
        # Once may be the moment between its end and its result.
        self._missing = self._missing + 1 if unknown else 0
        return self._missing > 1

    def lines(self) -> Sequence[str]:
        try:
            with self._job.paths.stderr.open("rb") as file:
                file.seek(0, 2)
                file.seek(max(file.tell() - _TAIL, 0))
                text = file.read().decode(errors="replace")
        except OSError:  # a job that never began has none
            return [f"job {self._job.job_id}: {self._job.state}"]
        # What submitit says of its own work is no reason of ours.
        said = [line for line in text.splitlines() if line.strip() and "submitit" not in line]
        return [line for line in said if line.startswith("capacity: ")][-1:] or said[-_KEPT_LINES:]

    def stop(self) -> None:
        self._job.cancel(check=False)

    def kill(self) -> None:
        self._job.cancel(check=False)
