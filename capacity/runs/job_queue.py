"""Many runs: a process or a job of a cluster each, some at a time."""

from __future__ import annotations

import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from capacity.recipe.config import Recipe
from capacity.runs.directory import RunDirectory
from capacity.runs.environment import command_line
from capacity.runs.jobs_progress import JobsProgress
from capacity.runs.launchers import Launched, Launcher, LocalProcesses, NotNowError

_POLL = 0.2
_PAUSE = 15.0
"""Seconds until a start that could not be made now is tried again."""
_GRACE = 60.0


class Work(NamedTuple):
    """One run that is to be done.

    Attributes:
        label: For people; unique among those of a queue.
        recipe: What it runs.
        directory: Where.
    """

    label: str
    recipe: Recipe
    directory: RunDirectory


@dataclass
class _Job:
    """One run at work."""

    work: Work
    slot: int
    launched: Launched


def check_movable(recipe: Recipe) -> None:
    """Check that a recipe can be run by another process.

    Args:
        recipe: The recipe.

    Raises:
        ValueError: If only Python has its tasks or its model.
    """
    if "custom" in {recipe.tasks.dataset, recipe.model.kind}:
        raise ValueError(
            "recipe has tasks or a model that only Python has, and these cannot go to another "
            "process; loop over capacity.run(..., seed=seed)"
        )


class JobQueue:
    """Keeps some processes at work until every run was taken.

    Args:
        slots: How many work at a time.
        options: Options of `capacity run`, for all.
        progress: Shows how far they are.
        launcher: Starts them; None takes processes of this machine.
    """

    def __init__(
        self,
        slots: int,
        options: list[str],
        progress: JobsProgress,
        launcher: Launcher | None = None,
    ) -> None:
        self._slots, self._options, self._progress = slots, options, progress
        self._launcher = LocalProcesses(slots) if launcher is None else launcher
        self._busy: list[_Job] = []
        self._ended, self._not_before = 0, 0.0
        self.failed: dict[str, str] = {}
        """What went wrong, by label."""

    def carry_out(self, works: Sequence[Work], *, finished: int) -> None:
        """Do the runs. A KeyboardInterrupt stops all and leaves readable run directories.

        Args:
            works: Those that are not finished.
            finished: How many others are.
        """
        waiting, self._ended = deque(works), finished
        self._progress.ended(finished)
        try:
            while waiting or self._busy:
                while waiting and len(self._busy) < self._slots and self._may_start():
                    work = waiting.popleft()
                    try:
                        self._start(work)
                    except NotNowError as error:
                        waiting.appendleft(work)
                        self._not_before = time.monotonic() + _PAUSE
                        self._progress.line(f"{error}; trying again every {_PAUSE:.0f} s")
                time.sleep(_POLL)
                self._look()
        except BaseException:
            self._stop()
            raise

    def _may_start(self) -> bool:
        return time.monotonic() >= self._not_before

    def _start(self, work: Work) -> None:
        label, directory = work.label, work.directory
        slot = min(set(range(self._slots)) - {job.slot for job in self._busy})

        def tell(text: str) -> None:
            self._progress.told(label, slot, text)

        launched = self._launcher.take_over(label, tell)
        if launched is None:
            try:
                # The recipe and the user's command are written here; the process finds them, as
                # any that goes on does.
                directory.claim(work.recipe)
                if not directory.command():
                    directory.write({"env.json": {"command": command_line()}})
            except (ValueError, OSError) as error:
                self._over(work, slot, str(error), failed=True)
                return
            finally:
                directory.release()
            command = [sys.executable, "-m", "capacity.cli", "run", "--resume", str(directory.path)]
            # Runs are at work beside one another; each alone measures in turn.
            command += [*self._options, "--processes", "1"]
            try:
                launched = self._launcher.start(label, command, tell)
            except ValueError as error:
                self._over(work, slot, str(error), failed=True)
                return
        self._busy.append(_Job(work, slot, launched))
        self._progress.started(label, slot, _steps(work.recipe))

    def _look(self) -> None:
        """Show how far the processes are, and let those go that ended."""
        for job in list(self._busy):
            code = job.launched.poll()
            if code is None:
                self._progress.reached(job.slot, _rows(job.work.directory))
                continue
            self._busy.remove(job)
            status = _status(job.work.directory)
            failed = not (status and job.work.directory.complete)
            said = _reason(job, code, status) if failed else str(status["state"])
            self._over(job.work, job.slot, said, failed=failed)

    def _over(self, work: Work, slot: int, said: str, *, failed: bool) -> None:
        """Write down how a run ended, and say it."""
        if failed:
            self.failed[work.label] = said
            _mark(work.directory, "failed", said)
        self._ended += 1
        self._progress.finished(work.label, slot, said)
        self._progress.ended(self._ended)

    def _stop(self) -> None:
        """End what runs: gently first, then not."""
        self._progress.line(f"stopping {_named(self._busy)} ...")
        for job in self._busy:
            job.launched.stop()
        try:
            deadline = time.monotonic() + _GRACE
            while time.monotonic() < deadline:
                if all(job.launched.poll() is not None for job in self._busy):
                    break
                time.sleep(_POLL)
        except KeyboardInterrupt:
            self._progress.line("not waiting any longer")
        finally:
            for job in self._busy:
                job.launched.kill()
                _mark(
                    job.work.directory, "interrupted", "Stopped by the user; what is there is kept."
                )


def _rows(directory: RunDirectory) -> int:
    """Count the rows of metrics.jsonl: one per epoch, and one before each task."""
    path = directory.path / "metrics.jsonl"
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0


def _reason(job: _Job, code: int, status: dict[str, Any]) -> str:
    """Say why a process ended without a result, from its last line."""
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    if status.get("state") == "failed" and status.get("message"):
        return str(status["message"])
    lines = job.launched.lines()
    last = lines[-1] if lines else "it said nothing"
    return f"exit code {code}: {last.removeprefix('capacity: ')}"


def _status(directory: RunDirectory) -> dict[str, Any]:
    """Read the status; empty where it is damaged, which the process itself has said."""
    try:
        return directory.status()
    except ValueError:
        return {}


def _mark(directory: RunDirectory, state: str, message: str) -> None:
    """Write down the end of a process that could not do it itself."""
    begun = (directory.path / "recipe.yaml").is_file() and not directory.busy
    if begun and _status(directory).get("state", "running") == "running":
        with suppress(OSError, ValueError):  # what will not be written is what ended it
            directory.set_status(state, message)


def _steps(recipe: Recipe) -> int:
    """Count the rows of metrics that a run will have."""
    return recipe.tasks.experiences * ((recipe.training.epochs or 1) + 1)


def _named(jobs: Sequence[_Job]) -> str:
    return jobs[0].work.label if len(jobs) == 1 else f"{len(jobs)} runs"
