"""Runs as jobs of a SLURM cluster, by submitit (extra `slurm`).

A job is `capacity run --resume DIR`: one that is preempted, or comes to its time limit, is put into
the queue again and goes on where its directory says. What is done and left is read from the run
directories, so nothing is lost when the process that submits ends: its jobs work on, and `capacity
sweep --resume` takes them over and submits what is left. A controller that does not answer is asked
again until it does.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capacity.base.checks import one_of
from capacity.base.distribution import install
from capacity.runs.launchers import Launched, NotNowError

if TYPE_CHECKING:
    from submitit import Job

_NAME = "capacity"
"""What the jobs are called in the queue."""
_KEPT_LINES, _TAIL = 20, 1 << 14
_LOOK_EVERY = 10.0
"""Seconds between two questions to the queue about a job."""
_KILLED = -signal.SIGKILL
_AWAY = ("Unable to contact slurm controller", "Socket timed out", "Connection refused")
"""What SLURM says where its controller is away, and nothing is wrong with a job."""
_TIME_LIMITS = 1000
"""How often a job may come to its time limit and go on; submitit's own is 3."""
_ENDING = 120.0
"""Seconds that a cluster has to end a job whose command it told to end."""
_SUBMITTED = "submitted.jsonl"
"""Which job works on what: a label and a number per line."""
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
        ValueError: If submitit is not installed, there is no cluster here, or no such partition.
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
            executor = submitit.AutoExecutor(
                folder=folder, cluster=kind, slurm_max_num_timeout=_TIME_LIMITS
            )
        except RuntimeError as error:
            raise ValueError(
                f"on = {kind!r}: {error}; submit from a machine that has sbatch, or use "
                "on = 'local'"
            ) from None
        if kind == "slurm" and partition is not None:
            _check_partition(partition)
        more: dict[str, Any] = {"gpus_per_node": gpus} if gpus else {}
        if kind == "slurm":
            more |= {"slurm_partition": partition} if partition else {}
        executor.update_parameters(timeout_min=minutes, name=_NAME, **more)
        self._executor, self._slurm, self._folder = executor, kind == "slurm", folder
        self._submitted = _read(folder / _SUBMITTED) if self._slurm else {}
        # A cluster without accounting makes it warn at every look; `_gone` asks the queue itself.
        logging.getLogger("submitit").setLevel(logging.ERROR)

    def take_over(self, label: str, tell: Callable[[str], None]) -> Launched | None:
        """Find the job of an earlier process (see `launchers.Launcher`)."""
        there = self._submitted.get(label)
        if there is None or not self._in_queue(there):
            return None
        from submitit import SlurmJob

        tell(f"taken over as job {there}")
        return _ClusterJob(SlurmJob(self._folder, there), queued=True)

    def start(self, label: str, command: Sequence[str], tell: Callable[[str], None]) -> Launched:
        """Submit a command (see `launchers.Launcher`)."""
        try:
            job = self._executor.submit(_Command(tuple(command)))
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            if any(away in str(error) for away in _AWAY):
                raise NotNowError(f"the cluster does not answer: {_last_line(error)}") from None
            raise ValueError(f"the cluster took no job: {_last_line(error)}") from None
        if self._slurm:
            with (self._folder / _SUBMITTED).open("a", encoding="utf-8") as file:
                file.write(json.dumps([label, str(job.job_id)]) + "\n")
        tell(f"submitted as job {job.job_id}")
        return _ClusterJob(job, queued=self._slurm)

    def _in_queue(self, number: str) -> bool:
        """Whether an earlier process's job is waiting or at work."""
        seen = _asked(number)
        if seen is None or any(away in seen.stderr for away in _AWAY):
            raise NotNowError("the cluster does not say which jobs it has")
        return seen.returncode == 0 and seen.stdout.split() != []


def _check_partition(name: str) -> None:
    """Refuse a partition that the cluster does not have; one that does not answer says it later."""
    asked = ["sinfo", "--noheader", "--format", "%R"]
    try:
        seen = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return
    known = sorted(set(seen.stdout.split()))
    if known:
        one_of("partition", name, known)


def _read(path: Path) -> dict[str, str]:
    """Read which job was submitted last, by label; a line that was cut off says nothing."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    return dict(json.loads(line) for line in lines if line.endswith('"]'))


def _asked(number: str) -> subprocess.CompletedProcess[str] | None:
    """Ask the queue for the state of a job of ours; None where it does not answer."""
    words = ["squeue", "--noheader", "--jobs", number, "--name", _NAME, "--format", "%T"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None


def _last_line(error: Exception) -> str:
    """Give what a command said last, which names the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


class _Command:
    """A command that may be begun again at any time, since it goes on where it was."""

    def __init__(self, command: tuple[str, ...]) -> None:
        self._command = command

    def __call__(self) -> None:
        code = subprocess.run(self._command, check=False).returncode
        if code == -signal.SIGTERM:
            # The cluster ends the job, to requeue or to cancel it. We are ended next, and say
            # nothing: a result would be taken for the job's own end.
            time.sleep(_ENDING)
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
        seen = _asked(str(self._job.job_id))
        if seen is None:
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
