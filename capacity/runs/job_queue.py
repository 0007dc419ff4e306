"""Many runs on one machine: a process each, some at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

from capacity.base.interruption import ENDS_WITH_STDIN
from capacity.recipe.config import Recipe
from capacity.runs.directory import RunDirectory
from capacity.runs.environment import command_line
from capacity.runs.jobs_progress import JobsProgress

_POLL = 0.2
_GRACE = 60.0
_KEPT_LINES = 20


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
    process: subprocess.Popen[str]
    reader: threading.Thread
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))

    def let_go(self) -> None:
        """Close what its process, which has ended, left open."""
        self.reader.join()
        if self.process.stdin is not None:
            self.process.stdin.close()


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
    """

    def __init__(self, slots: int, options: list[str], progress: JobsProgress) -> None:
        self._slots, self._options, self._progress = slots, options, progress
        self._busy: list[_Job] = []
        self._ended = 0
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
                while waiting and len(self._busy) < self._slots:
                    self._start(waiting.popleft())
                time.sleep(_POLL)
                self._look()
        except BaseException:
            self._stop()
            raise

    def _start(self, work: Work) -> None:
        label, directory = work.label, work.directory
        slot = min(set(range(self._slots)) - {job.slot for job in self._busy})
        try:
            # The recipe and the user's command are written here; the process finds them, as any
            # that goes on does.
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
        threads = max((os.cpu_count() or 1) // self._slots, 1)
        process = subprocess.Popen(
            command,
            env={"OMP_NUM_THREADS": str(threads), **os.environ, ENDS_WITH_STDIN: "1"},
            # We write nothing to it: it closes when we end, however that is.
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            # Ctrl-C on a terminal goes to the whole group; we pass it on, once, in our own time.
            start_new_session=True,
        )
        assert process.stderr is not None
        lines: deque[str] = deque(maxlen=_KEPT_LINES)
        told = self._progress.told
        reader = threading.Thread(
            target=_read, args=(process.stderr, lines, lambda text: told(label, slot, text))
        )
        reader.start()
        self._busy.append(_Job(work, slot, process, reader, lines))
        self._progress.started(label, slot, _steps(work.recipe))

    def _look(self) -> None:
        """Show how far the processes are, and let those go that ended."""
        for job in list(self._busy):
            code = job.process.poll()
            if code is None:
                self._progress.reached(job.slot, _rows(job.work.directory))
                continue
            job.let_go()
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
            job.process.send_signal(signal.SIGTERM)
        try:
            deadline = time.monotonic() + _GRACE
            for job in self._busy:
                job.process.wait(max(deadline - time.monotonic(), 0.0))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._progress.line("not waiting any longer")
        finally:
            for job in self._busy:
                job.process.kill()
                job.process.wait()
                job.let_go()
                _mark(
                    job.work.directory, "interrupted", "Stopped by the user; what is there is kept."
                )


def _read(stream: IO[str], lines: deque[str], tell: object) -> None:
    with stream:
        for line in stream:
            text = line.rstrip()
            if text:
                lines.append(text)
                tell(text)  # type: ignore[operator]


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
    last = job.lines[-1] if job.lines else "it said nothing"
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
