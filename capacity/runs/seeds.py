"""Many seeds of one recipe on one machine: a process per seed, some at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from capacity import config
from capacity.checks import one_of, positive_int
from capacity.comparison.differences import flat, frozen, spoken
from capacity.config import Recipe
from capacity.notebook import InNotebook
from capacity.runs.directory import UNFINISHED, RunDirectory
from capacity.runs.run import Run
from capacity.runs.seeds_progress import SeedsProgress

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


def parse_seeds(text: str) -> list[int]:
    """Read a list of seeds.

    Args:
        text: As `0-9`, `3`, or `0,2,5-7`.

    Returns:
        The seeds in the order given.

    Raises:
        ValueError: If it is not understood, or names a seed twice.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise ValueError(
                f"seeds = {text!r} is not understood at {part.strip()!r}; write 0-9 or 0,2,5-7"
            )
        low, high = int(first), int(last or first)
        if high < low:
            raise ValueError(f"seeds = {text!r}: the range {part.strip()!r} runs backwards")
        seeds += range(low, high + 1)
    return check_seeds(seeds)


def check_seeds(seeds: Iterable[int]) -> list[int]:
    """Check a list of seeds.

    Args:
        seeds: Seeds.

    Returns:
        The list.

    Raises:
        ValueError: If it is empty, names a seed twice, or holds anything but whole numbers.
    """
    if isinstance(seeds, str) or not isinstance(seeds, Iterable):
        raise ValueError(f"seeds = {seeds!r} is no list; pass range(10), [0, 2, 5], or the like")
    listed = [positive_int("seeds", seed, minimum=0) for seed in seeds]
    if not listed:
        raise ValueError("seeds is empty; pass at least one")
    twice = next((seed for k, seed in enumerate(listed) if seed in listed[:k]), None)
    if twice is not None:
        raise ValueError(f"seeds names {twice} twice; name every seed once")
    return listed


@dataclass
class _Job:
    """One seed at work."""

    seed: int
    slot: int
    directory: RunDirectory
    process: subprocess.Popen[str]
    reader: threading.Thread
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))


def run_seeds(
    recipe: str | Path | Recipe,
    seeds: Iterable[int],
    *,
    jobs: int = 1,
    out: str | Path | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> SeedRuns:
    """Run a recipe with many seeds, each in a process of its own.

    Seeds that are finished already are not run again, so the same call goes on where an earlier one
    stopped. A seed that fails is reported and does not end the others. A KeyboardInterrupt stops
    all of them and leaves readable run directories.

    Args:
        recipe: A recipe's name, the path of a recipe, or a `Recipe`. Tasks or models that only
            Python has cannot go to another process: loop over `capacity.run(..., seed=seed)`.
        seeds: The seeds.
        jobs: How many run at a time; the cores are divided among them, unless OMP_NUM_THREADS is
            set.
        out: The folder, with one run directory `seed-N` per seed; None takes `runs/NAME-seeds`.
        device: auto, cpu, cuda or cuda:N, for all.
        quiet: Show no progress.

    Returns:
        The runs and the failures; `capacity.compare(made.path)` sets them side by side.

    Raises:
        ValueError: If the recipe, the seeds or the folder will not do; nothing has run then.

    Example:
        >>> import capacity
        >>> made = capacity.run_seeds("split-digits", range(10), jobs=2)  # doctest: +SKIP
        >>> print(capacity.compare(made.path))  # doctest: +SKIP
    """
    listed, jobs = check_seeds(seeds), positive_int("jobs", jobs)
    one_of("device", str(device).split(":")[0], ["auto", "cpu", "cuda"])
    base = recipe if isinstance(recipe, Recipe) else config.load(recipe)
    if "custom" in {base.tasks.dataset, base.model.kind}:
        raise ValueError(
            "recipe has tasks or a model that only Python has, and these cannot go to another "
            "process; loop over capacity.run(..., seed=seed)"
        )
    folder = Path(out) if out is not None else Path("runs") / f"{_safe(base.name)}-seeds"
    directories = {seed: RunDirectory(folder / f"seed-{seed}") for seed in listed}
    done = _finished(folder, directories, base)
    folder.mkdir(parents=True, exist_ok=True)
    steps = base.tasks.experiences * (base.training.epochs + 1)
    progress = SeedsProgress(len(listed), steps, quiet=quiet)
    if done:
        progress.line(f"{folder}: {_count(done)} finished already, not run again")
    queue = _Queue(base, directories, min(jobs, len(listed)), str(device), progress)
    try:
        queue.carry_out([seed for seed in listed if seed not in done], finished=len(done))
    finally:
        progress.close()
    runs = {s: Run(d.path) for s, d in directories.items() if s not in queue.failed}
    made = SeedRuns(path=folder, runs=runs, failed=dict(sorted(queue.failed.items())))
    progress.line(_closing(made))
    return made


class _Queue:
    """Keeps some processes at work until every seed was taken."""

    def __init__(
        self,
        recipe: Recipe,
        directories: dict[int, RunDirectory],
        jobs: int,
        device: str,
        progress: SeedsProgress,
    ) -> None:
        self._recipe, self._directories, self._progress = recipe, directories, progress
        self._device, self._slots = device, jobs
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
        with tempfile.TemporaryDirectory(prefix="capacity-seeds-") as folder:
            recipe = Path(folder) / "recipe.yaml"
            recipe.write_text(self._recipe.to_yaml(), encoding="utf-8")
            try:
                while waiting or self._busy:
                    while waiting and len(self._busy) < self._slots:
                        self._start(waiting.popleft(), recipe)
                    time.sleep(_POLL)
                    self._look()
            except BaseException:
                self._stop()
                raise

    def _start(self, seed: int, recipe: Path) -> None:
        directory = self._directories[seed]
        slot = min(set(range(self._slots)) - {job.slot for job in self._busy})
        command = [sys.executable, "-m", "capacity.cli", "run", str(recipe), f"seed={seed}"]
        command += ["--out", str(directory.path), "--device", self._device]
        threads = max((os.cpu_count() or 1) // self._slots, 1)
        process = subprocess.Popen(
            command,
            env={"OMP_NUM_THREADS": str(threads), **os.environ},
            stdin=subprocess.DEVNULL,
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
            job.reader.join()
            self._busy.remove(job)
            self._ended += 1
            state = job.directory.status().get("state")
            if state in {"finished", "diverged"}:
                said = state
            else:
                said = self.failed[job.seed] = _reason(job, code)
                _mark(job.directory, "failed", said)
            self._progress.finished(job.seed, job.slot, said)
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
                job.reader.join()
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


def _reason(job: _Job, code: int) -> str:
    """Say why a process ended without a result, from its last line."""
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    state = job.directory.status()
    if state.get("state") == "failed" and state.get("message"):
        return str(state["message"])
    last = job.lines[-1] if job.lines else "it said nothing"
    return f"exit code {code}: {last.removeprefix('capacity: ')}"


def _mark(directory: RunDirectory, state: str, message: str) -> None:
    """Write down the end of a process that could not do it itself."""
    begun = (directory.path / "recipe.yaml").is_file()
    if begun and directory.status().get("state", "running") == "running":
        directory.set_status(state, message)


def _finished(folder: Path, directories: dict[int, RunDirectory], base: Recipe) -> list[int]:
    """Find the seeds that need no run, and refuse a folder of another recipe."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out = {str(folder)!r} is a file; name a folder")
    if (folder / "recipe.yaml").is_file():
        raise ValueError(
            f"out = {str(folder)!r} is itself a run; name a folder that holds a run per seed"
        )
    done = []
    for seed, directory in directories.items():
        path = directory.path
        if not (path / "recipe.yaml").is_file():
            if path.is_dir() and any(path.iterdir()):
                raise ValueError(f"{str(path)!r} holds files that are no run; name another out")
            continue
        wanted = flat(base.model_copy(update={"seed": seed}).model_dump(mode="json"))
        there = flat(directory.recipe().model_dump(mode="json"))
        for name in {**wanted, **there}:
            old, new = there.get(name), wanted.get(name)
            if frozen(old) != frozen(new):
                raise ValueError(
                    f"{str(path)!r} holds a run of another recipe ({name} was {spoken(old)}, is "
                    f"{spoken(new)}); name another out"
                )
        if directory.status().get("state") not in UNFINISHED and (path / "result.json").is_file():
            done.append(seed)
    return done


def _count(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"


def _closing(made: SeedRuns) -> str:
    lines = [f"{len(made.runs)} of {len(made.runs) + len(made.failed)} seeds ran to their end"]
    if made.diverged:
        lines.append(f"diverged: seed {', '.join(map(str, made.diverged))}")
    lines += [f"failed: seed {seed}: {reason}" for seed, reason in made.failed.items()]
    lines.append(f"next: capacity compare {made.path}")
    return "\n".join(lines)


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
