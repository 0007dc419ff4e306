"""Many seeds of one recipe on one machine: a process per seed, some at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from capacity.base.checks import nonnegative_float, one_of, positive_int
from capacity.base.interruption import ENDS_WITH_STDIN
from capacity.recipe import config
from capacity.recipe.config import Recipe
from capacity.records.notebook import InNotebook
from capacity.runs.directory import RunDirectory
from capacity.runs.environment import command_line
from capacity.runs.run import Run
from capacity.runs.seeds_folder import SeedsFolder, check_seeds
from capacity.runs.seeds_progress import SeedsProgress
from capacity.runs.unfinished import FOLDER, safe_name, shell_call

_POLL = 0.2
_GRACE = 60.0
_KEPT_LINES = 20


@dataclass(frozen=True, kw_only=True)
class SeedRuns(InNotebook):
    """What became of the seeds of a recipe.

    Attributes:
        path: The folder of the run directories.
        runs: The runs that ended by themselves, finished or diverged, by seed.
        failed: What went wrong, by seed.
    """

    path: Path
    runs: dict[int, Run]
    failed: dict[int, str]

    @property
    def diverged(self) -> list[int]:
        """Seeds whose loss was no longer finite."""
        return [seed for seed, run in self.runs.items() if run.status == "diverged"]


@dataclass
class _Job:
    """One seed at work."""

    seed: int
    slot: int
    directory: RunDirectory
    process: subprocess.Popen[str]
    reader: threading.Thread
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))

    def let_go(self) -> None:
        """Close what its process, which has ended, left open."""
        self.reader.join()
        if self.process.stdin is not None:
            self.process.stdin.close()


def run_seeds(
    recipe: str | Path | Recipe,
    seeds: Iterable[int],
    *,
    jobs: int = 1,
    out: str | Path | None = None,
    device: str = "auto",
    quiet: bool = False,
    checkpoint_minutes: float = 5.0,
) -> SeedRuns:
    """Run a recipe with many seeds, each in a process of its own.

    Seeds that are finished already are not run again, and one that was cut off goes on: the same
    call goes on where an earlier one stopped. A seed that fails is reported and does not end the
    others. A KeyboardInterrupt stops all of them and leaves readable run directories.

    Args:
        recipe: A recipe's name, the path of a recipe, or a `Recipe`. Tasks or models that only
            Python has cannot go to another process: loop over `capacity.run(..., seed=seed)`.
        seeds: The seeds.
        jobs: How many run at a time; the cores are divided among them, unless OMP_NUM_THREADS is
            set.
        out: The folder, with one run directory `seed-N` per seed; None takes `runs/NAME-seeds`.
        device: auto, cpu, cuda or cuda:N, for all.
        quiet: Show no progress.
        checkpoint_minutes: As in `run`.

    Returns:
        The runs and the failures; `capacity.compare(made.path)` sets them side by side.

    Raises:
        KeyboardInterrupt: If it was interrupted.
        ValueError: If the recipe, the seeds or the folder will not do; nothing has run then.

    Example:
        >>> import capacity
        >>> made = capacity.run_seeds("split-digits", range(10), jobs=2)  # doctest: +SKIP
        >>> print(capacity.compare(made.path))  # doctest: +SKIP
    """
    listed, jobs = check_seeds(seeds), positive_int("jobs", jobs)
    minutes = nonnegative_float("checkpoint_minutes", checkpoint_minutes)
    one_of("device", str(device).split(":")[0], ["auto", "cpu", "cuda"])
    base = recipe if isinstance(recipe, Recipe) else config.load(recipe)
    if "custom" in {base.tasks.dataset, base.model.kind}:
        raise ValueError(
            "recipe has tasks or a model that only Python has, and these cannot go to another "
            "process; loop over capacity.run(..., seed=seed)"
        )
    path = Path(out) if out is not None else FOLDER / f"{safe_name(base.name)}-seeds"
    folder = SeedsFolder(path)
    done = folder.begin(base, listed)
    steps = base.tasks.experiences * (base.training.epochs + 1)
    progress = SeedsProgress(len(listed), steps, quiet=quiet)
    if done:
        progress.line(f"{path}: {_count(done)} finished already, not run again")
    options = ["--device", str(device), "--checkpoint-minutes", str(minutes)]
    queue = _Queue(base, folder, min(jobs, len(listed)), options, progress)
    try:
        queue.carry_out([seed for seed in listed if seed not in done], finished=len(done))
    except KeyboardInterrupt:
        progress.line(f"`{shell_call('capacity', 'run', '--resume', path)}` goes on")
        raise
    finally:
        progress.close()
    runs = {seed: Run(folder.directory(seed).path) for seed in listed if seed not in queue.failed}
    made = SeedRuns(path=path, runs=runs, failed=dict(sorted(queue.failed.items())))
    progress.line(_closing(made))
    return made


class _Queue:
    """Keeps some processes at work until every seed was taken."""

    def __init__(
        self,
        recipe: Recipe,
        folder: SeedsFolder,
        jobs: int,
        options: list[str],
        progress: SeedsProgress,
    ) -> None:
        self._recipe, self._folder, self._progress = recipe, folder, progress
        self._options, self._slots = options, jobs
        self._busy: list[_Job] = []
        self._ended = 0
        self.failed: dict[int, str] = {}

    def carry_out(self, seeds: Sequence[int], *, finished: int) -> None:
        """Run the seeds.

        Args:
            seeds: Those that are not finished.
            finished: How many are.
        """
        waiting, self._ended = deque(seeds), finished
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

    def _start(self, seed: int) -> None:
        directory = self._folder.directory(seed)
        slot = min(set(range(self._slots)) - {job.slot for job in self._busy})
        try:
            # The recipe and the user's command are written here; the process finds them, as any
            # that goes on does.
            directory.claim(self._recipe.model_copy(update={"seed": seed}))
            if not directory.command():
                directory.write({"env.json": {"command": command_line()}})
        except (ValueError, OSError) as error:
            self._over(seed, slot, directory, str(error), failed=True)
            return
        finally:
            directory.release()
        command = [sys.executable, "-m", "capacity.cli", "run", "--resume", str(directory.path)]
        command += self._options
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
            target=_read, args=(process.stderr, lines, lambda text: told(seed, slot, text))
        )
        reader.start()
        self._busy.append(_Job(seed, slot, directory, process, reader, lines))
        self._progress.started(seed, slot)

    def _look(self) -> None:
        """Show how far the processes are, and let those go that ended."""
        for job in list(self._busy):
            code = job.process.poll()
            if code is None:
                self._progress.reached(job.slot, _rows(job.directory))
                continue
            job.let_go()
            self._busy.remove(job)
            status = _status(job.directory)
            failed = not (status and job.directory.complete)
            said = _reason(job, code, status) if failed else str(status["state"])
            self._over(job.seed, job.slot, job.directory, said, failed=failed)

    def _over(
        self, seed: int, slot: int, directory: RunDirectory, said: str, *, failed: bool
    ) -> None:
        """Write down how a seed ended, and say it."""
        if failed:
            self.failed[seed] = said
            _mark(directory, "failed", said)
        self._ended += 1
        self._progress.finished(seed, slot, said)
        self._progress.ended(self._ended)

    def _stop(self) -> None:
        """End what runs: gently first, then not."""
        self._progress.line(f"stopping {_count([job.seed for job in self._busy])} ...")
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
                _mark(job.directory, "interrupted", "Stopped by the user; what is there is kept.")


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


def _count(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"


def _closing(made: SeedRuns) -> str:
    lines = [f"{len(made.runs)} of {len(made.runs) + len(made.failed)} seeds ran to their end"]
    if made.diverged:
        lines.append(f"diverged: seed {', '.join(map(str, made.diverged))}")
    lines += [f"failed: seed {seed}: {reason}" for seed, reason in made.failed.items()]
    lines.append(f"next: capacity compare {made.path}")
    return "\n".join(lines)
