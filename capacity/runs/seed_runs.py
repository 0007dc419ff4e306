"""Many seeds of one recipe on one machine: a process per seed, some at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from capacity.base.checks import nonnegative_float, one_of, positive_int
from capacity.recipe import config
from capacity.recipe.config import Recipe
from capacity.records.notebook import InNotebook
from capacity.runs.job_queue import JobQueue, Work, check_movable
from capacity.runs.jobs_progress import JobsProgress
from capacity.runs.run import Run
from capacity.runs.seeds_folder import SeedsFolder, check_seeds
from capacity.runs.unfinished import FOLDER, safe_name, shell_call


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
        The runs and the failures; `capacity.compare(made.path)` sets them side by side. A recipe,
        seeds or a folder that will not do is a ValueError, and nothing has run then.

    Raises:
        KeyboardInterrupt: If it was interrupted.

    Example:
        >>> import capacity
        >>> made = capacity.run_seeds("split-digits", range(10), jobs=2)  # doctest: +SKIP
        >>> print(capacity.compare(made.path))  # doctest: +SKIP
    """
    listed, jobs = check_seeds(seeds), positive_int("jobs", jobs)
    minutes = nonnegative_float("checkpoint_minutes", checkpoint_minutes)
    one_of("device", str(device).split(":")[0], ["auto", "cpu", "cuda"])
    base = recipe if isinstance(recipe, Recipe) else config.load(recipe)
    check_movable(base)
    path = Path(out) if out is not None else FOLDER / f"{safe_name(base.name)}-seeds"
    folder = SeedsFolder(path)
    done = folder.begin(base, listed)
    progress = JobsProgress(len(listed), unit="seed", quiet=quiet)
    if done:
        progress.line(f"{path}: {_count(done)} finished already, not run again")
    options = ["--device", str(device), "--checkpoint-minutes", str(minutes)]
    works = {
        seed: Work(f"seed {seed}", base.model_copy(update={"seed": seed}), folder.directory(seed))
        for seed in listed
    }
    queue = JobQueue(min(jobs, len(listed)), options, progress)
    try:
        queue.carry_out([works[s] for s in listed if s not in done], finished=len(done))
    except KeyboardInterrupt:
        progress.line(f"`{shell_call('capacity', 'run', '--resume', path)}` goes on")
        raise
    finally:
        progress.close()
    failed = {s: queue.failed[w.label] for s, w in works.items() if w.label in queue.failed}
    runs = {s: Run(w.directory.path) for s, w in works.items() if s not in failed}
    made = SeedRuns(path=path, runs=runs, failed=dict(sorted(failed.items())))
    progress.line(_closing(made))
    return made


def _count(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"


def _closing(made: SeedRuns) -> str:
    lines = [f"{len(made.runs)} of {len(made.runs) + len(made.failed)} seeds ran to their end"]
    if made.diverged:
        lines.append(f"diverged: seed {', '.join(map(str, made.diverged))}")
    lines += [f"failed: seed {seed}: {reason}" for seed, reason in made.failed.items()]
    lines.append(f"next: capacity compare {made.path}")
    return "\n".join(lines)
