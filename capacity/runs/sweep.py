"""A sweep: a grid of recipes as one folder, which says at any time what is done and what not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capacity.base.checks import boolean, nonnegative_float, one_of, positive_int
from capacity.base.files import read_json, to_json, write_atomically
from capacity.base.files import sweep as sweep_leftovers
from capacity.recipe import config
from capacity.recipe.config import Recipe
from capacity.records.notebook import InNotebook
from capacity.results.recipe_of_result import changed_fields
from capacity.runs.cluster import FOLDER as FOLDER_OF_JOBS
from capacity.runs.cluster import ClusterJobs
from capacity.runs.directory import RunDirectory
from capacity.runs.job_queue import JobQueue, Work
from capacity.runs.jobs_progress import JobsProgress
from capacity.runs.lock import DirectoryLock
from capacity.runs.run import Run
from capacity.runs.seeds_folder import check_seeds
from capacity.runs.sweep_grid import MOST, described, parse_grid, recipes_of_grid
from capacity.runs.unfinished import FOLDER, safe_name, shell_call

_FILE, _RECIPE = "sweep.json", "sweep.yaml"
_SCHEMA = "capacity/sweep"
_VERSION = 1
ON = ("local", "slurm")
"""Where runs are carried out."""
STATES = ("finished", "diverged", "failed", "running", "interrupted", "left")
"""What a run of a sweep can be; `left` has not begun."""


@dataclass(frozen=True, kw_only=True)
class Sweep(InNotebook):
    """A grid of runs in one folder. What it says is read from the runs' own directories.

    Attributes:
        path: The folder.
        recipe: Path of the recipe that all runs share; the folder has a copy of its own.
        grid: Values by field, as they were written.
        seeds: Seeds of every combination; empty takes the recipe's own.
        report: Whether every run writes its report.

    Example:
        >>> import capacity
        >>> made = capacity.sweep(
        ...     "tiny-digits", {"training.lr": ["0.1", "0.5"]}, seeds=range(3), jobs=2
        ... )  # doctest: +SKIP
        >>> made.counts["finished"]  # doctest: +SKIP
        6
        >>> print(capacity.compare(made.path))  # doctest: +SKIP
    """

    path: Path
    recipe: Path
    grid: dict[str, list[str]]
    seeds: list[int]
    report: bool = True

    @classmethod
    def open(cls, path: str | Path) -> Sweep:
        """Read a sweep that was begun.

        Args:
            path: Its folder.

        Returns:
            The sweep.

        Raises:
            ValueError: If the folder holds none, or its file is damaged.
        """
        folder = Path(path)
        file = folder / _FILE
        record = read_json(file, "start the sweep anew")
        if not record:
            raise ValueError(
                f"{str(folder)!r} holds no sweep ({_FILE} is not there); pass what "
                "`capacity sweep` printed"
            )
        try:
            if (record.get("schema"), record.get("schema_version")) != (_SCHEMA, _VERSION):
                raise ValueError("another schema")
            grid = parse_grid([f"{k}={','.join(v)}" for k, v in record["grid"].items()])
            seeds = check_seeds(record["seeds"]) if record["seeds"] else []
            report = boolean("report", record.get("report", True))
            return cls(path=folder, recipe=folder / _RECIPE, grid=grid, seeds=seeds, report=report)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{file}: holds no sweep ({error}); start the sweep anew in another folder"
            ) from None

    def works(self, *, most: int = MOST) -> dict[str, Work]:
        """List its runs.

        Args:
            most: Most runs.

        Returns:
            Runs by label. A recipe that changed since is a ValueError when they are begun.
        """
        recipes = recipes_of_grid(self.recipe, self.grid, self.seeds, most=most)
        return {
            label: Work(label, recipe, RunDirectory(self.path / label))
            for label, recipe in recipes.items()
        }

    @property
    def states(self) -> dict[str, str]:
        """State of every run, by label (see `STATES`)."""
        return {label: _state(work.directory) for label, work in self.works(most=1 << 30).items()}

    @property
    def counts(self) -> dict[str, int]:
        """How many runs are in each state."""
        return _counted(self.states)

    @property
    def runs(self) -> dict[str, Run]:
        """The runs that ended by themselves, by label."""
        return {
            label: Run(self.path / label)
            for label, state in self.states.items()
            if state in {"finished", "diverged"}
        }

    def __str__(self) -> str:
        states = self.states
        lines = [f"{self.path}: {described(self.grid, self.seeds)}"]
        lines += [f"  {n:>5} {state}" for state, n in _counted(states).items() if n]
        lines += [
            f"  failed: {label}: {RunDirectory(self.path / label).status().get('message', '')}"
            for label, state in states.items()
            if state == "failed"
        ]
        return "\n".join(lines)


def _counted(states: Mapping[str, str]) -> dict[str, int]:
    found = list(states.values())
    return {state: found.count(state) for state in STATES}


def sweep(
    recipe: str | Path,
    grid: Mapping[str, Sequence[str]] | None = None,
    *,
    seeds: Iterable[int] = (),
    jobs: int = 1,
    on: str = "local",
    partition: str | None = None,
    minutes: int | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    retry: Sequence[str] = ("interrupted", "running"),
    most: int = MOST,
    quiet: bool = False,
    checkpoint_minutes: float = 5.0,
    report: bool = True,
) -> Sweep:
    """Run a grid of recipes and seeds, each run in a process of its own.

    The same call goes on where an earlier one stopped: finished runs are not run again, those that
    were cut off go on, and those that failed stay as they are unless `retry` names them.

    Args:
        recipe: A recipe's name, or the path of one.
        grid: Values by field, as `{"training.lr": ["0.01", "0.1"]}`, in the spelling of YAML.
        seeds: Seeds of every combination; none takes the recipe's own.
        jobs: How many run at a time.
        on: `local`, in processes of this machine, or `slurm`, as jobs of a cluster (by submitit,
            extra `slurm`), which are put into the queue again where they are preempted.
        partition: The cluster's partition; None takes its default.
        minutes: Time limit of a job; None is an hour.
        out: The folder; None takes `runs/NAME-sweep`.
        device: auto, cpu, cuda or cuda:N, for all.
        retry: States that are taken up again, beside `left`: `interrupted`, `running` (whose
            process is gone), `failed`.
        most: Most runs.
        quiet: Show no progress.
        checkpoint_minutes: As in `run`.
        report: As in `run`.

    Returns:
        The sweep. A recipe, a field or a folder that will not do is a ValueError, and nothing has
        run then.

    Raises:
        ValueError: If what is asked for will not do.
        KeyboardInterrupt: If it was interrupted.
    """
    jobs = positive_int("jobs", jobs)
    kept = nonnegative_float("checkpoint_minutes", checkpoint_minutes)
    one_of("on", on, ON)
    boolean("report", report)
    if on == "local" and (partition is not None or minutes is not None):
        raise ValueError(
            "partition and minutes are those of a cluster's jobs; pass on='slurm', or leave them "
            "out"
        )
    limit = positive_int("minutes", 60 if minutes is None else minutes)
    one_of("device", str(device).split(":")[0], ["auto", "cpu", "cuda"])
    for state in retry:
        one_of("retry", state, ("failed", "interrupted", "running"))
    words = [f"{name}={','.join(map(str, values))}" for name, values in (grid or {}).items()]
    listed = list(seeds)
    checked = parse_grid(words)
    recipes = recipes_of_grid(recipe, checked, listed, most=most)
    name = next(iter(recipes.values())).name
    path = Path(out) if out is not None else FOLDER / f"{safe_name(name)}-sweep"
    made = Sweep(path=path, recipe=path / _RECIPE, grid=checked, seeds=listed, report=report)
    works = {
        label: Work(label, each, RunDirectory(path / label)) for label, each in recipes.items()
    }
    launcher = None
    if on == "slurm":
        gpus = 1 if str(device).startswith("cuda") else 0
        launcher = ClusterJobs(path / FOLDER_OF_JOBS, partition=partition, minutes=limit, gpus=gpus)
    lock = _begin(made, config.recipe_path(recipe), recipes)
    todo = [work for work in works.values() if _state(work.directory) in {"left", *retry}]
    progress = JobsProgress(len(works), quiet=quiet)
    progress.line(f"{path}: {len(works)} runs, {len(works) - len(todo)} not taken up again")
    options = ["--device", str(device), "--checkpoint-minutes", str(kept)]
    options += [] if report else ["--no-report"]
    queue = JobQueue(min(jobs, max(len(todo), 1)), options, progress, launcher)
    try:
        queue.carry_out(todo, finished=len(works) - len(todo))
    except KeyboardInterrupt:
        progress.line(f"`{shell_call('capacity', 'sweep', '--resume', path)}` goes on")
        raise
    finally:
        progress.close()
        lock.release()
    progress.line(f"next: capacity compare {path}")
    return made


def _begin(made: Sweep, source: Path, recipes: Mapping[str, Recipe]) -> DirectoryLock:
    """Take the folder and write down what is asked for, unless it holds something else."""
    path, shown, lock = made.path, repr(str(made.path)), DirectoryLock(made.path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"out = {shown} is a file; name a folder")
    for name in ("recipe.yaml", "seeds.json"):
        if (path / name).is_file():
            raise ValueError(f"out = {shown} holds {name}, and is no sweep; name another folder")
    if (path / _FILE).is_file():
        there = Sweep.open(path)
        if (there.grid, there.seeds) != (made.grid, made.seeds):
            raise ValueError(
                f"out = {shown} holds another sweep ({described(there.grid, there.seeds)}); name "
                "another folder"
            )
        changed = changed_fields(config.load(made.recipe), config.load(source))
        if changed:
            raise ValueError(
                f"out = {shown} holds a sweep of another recipe ({changed}); name another"
            )
    for label, recipe in recipes.items():
        directory = RunDirectory(path / label)
        if (directory.path / "recipe.yaml").is_file():
            changed = changed_fields(directory.recipe(), recipe)
            if changed:
                raise ValueError(
                    f"{str(directory.path)!r} holds a run of another recipe ({changed}); name "
                    "another out"
                )
        elif directory.path.is_dir() and any(directory.path.iterdir()):
            raise ValueError(f"{str(directory.path)!r} holds files that are no run; name another")
    record: dict[str, Any] = {
        "schema": _SCHEMA, "schema_version": _VERSION, "grid": made.grid, "seeds": made.seeds,
        "report": made.report, "runs": list(recipes),
    }  # fmt: skip
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        for name in (_RECIPE, _FILE):
            sweep_leftovers(path, name)
        if source != made.recipe:
            write_atomically(made.recipe, source.read_bytes())
        write_atomically(path / _FILE, to_json(record))
    except OSError as error:
        raise ValueError(
            f"out = {shown} cannot be written ({error.strerror}); name another"
        ) from None
    return lock


def _state(directory: RunDirectory) -> str:
    """Read what became of a run."""
    if not (directory.path / "recipe.yaml").is_file():
        return "left"
    try:
        state = str(directory.status().get("state", "running"))
        if state in {"finished", "diverged"} and not directory.complete:
            return "interrupted"
    except ValueError:  # a damaged file: running it again says so
        return "interrupted"
    return state if state in STATES else "interrupted"
