"""`capacity.run`: from a recipe, or a user's own tasks and model, to a finished run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from capacity import config
from capacity.checks import positive_int, resolve_device
from capacity.config import Measure, Model, Recipe, TaskStream, Training
from capacity.dynamics.models import build_model
from capacity.estimate import Estimate
from capacity.notebook import estimate_row, table
from capacity.runs.directory import RunDirectory
from capacity.runs.environment import describe
from capacity.runs.execute import Execution
from capacity.runs.progress import Progress
from capacity.tasks.build import build_tasks
from capacity.tasks.streams import as_sequence
from capacity.tasks.task import LossFunction, TaskSequence


class RunFailedError(RuntimeError):
    """A run stopped by an error that is not the user's; its directory says `failed`."""


@dataclass(frozen=True)
class Run:
    """A run that was written to disk. Every number it gives is read from its directory.

    Attributes:
        path: The run directory.
    """

    path: Path

    @cached_property
    def result(self) -> dict[str, Any]:
        """The whole summary, `result.json` (documented in `result_schema.md`)."""
        return RunDirectory.open(self.path).result()

    @property
    def status(self) -> str:
        """finished, diverged, interrupted or running."""
        return str(self.result.get("status", "running"))

    @property
    def forecasts(self) -> list[dict[str, Any]]:
        """What was forecast: a record per new task, with an entry per old task."""
        return [
            {
                "task": t["task"],
                "old": [{"task": cell["task"], **cell["forecast"]} for cell in t["old"]],
                "new": t["new"]["forecast"],
                "cost_ratio": t["cost_ratio"],
            }
            for t in self.result.get("transitions", [])
            if t["new"]["forecast"] is not None
        ]

    @property
    def measured(self) -> list[dict[str, Any]]:
        """What then happened, in the form of `forecasts`."""
        return [
            {
                "task": t["task"],
                "old": [{"task": cell["task"], **cell["measured"]} for cell in t["old"]],
                "new": t["new"]["measured"],
            }
            for t in self.result.get("transitions", [])
            if t["new"]["measured"] is not None
        ]

    @property
    def spectra(self) -> dict[str, Tensor]:
        """Singular values, residuals and log-volumes of J_t per task, by name."""
        path = self.path / "spectra.safetensors"
        return load_file(path) if path.is_file() else {}

    def report(self, output: str | Path | None = None) -> Path:
        """Write the report anew.

        Args:
            output: The HTML file; None writes `report.html` into the run directory.

        Returns:
            Path of the report.
        """
        from capacity.report import render  # altair takes a second to import

        return render(self.path, None if output is None else Path(output))

    def _repr_html_(self) -> str:
        final = self.result.get("final") or {}
        rows = [
            (name.replace("_", " "), *estimate_row(Estimate.from_dict(record)))
            for name, record in final.items()
        ]
        title = f"{self.result.get('name', self.path.name)}: {self.status}"
        return table(title, [*rows, ("directory", str(self.path))])


def open_run(path: str | Path) -> Run:
    """Open a run that was written before.

    Args:
        path: The run directory.

    Returns:
        The run. A path that holds none is a ValueError.
    """
    return Run(RunDirectory.open(path).path)


def run(
    tasks: str | Path | Recipe | object,
    *,
    model: nn.Module | Callable[[], nn.Module] | None = None,
    loss: str | LossFunction = "cross_entropy",
    training: Training | None = None,
    measure: Measure | None = None,
    replicas: int | None = None,
    seed: int | None = None,
    name: str | None = None,
    out: str | Path | None = None,
    device: str | torch.device = "auto",
    quiet: bool = False,
) -> Run:
    """Learn a sequence of tasks; forecast, measure and report.

    Anything wrong with the request is a ValueError before any work starts. A KeyboardInterrupt
    leaves a readable run directory that says `interrupted`; any other exception becomes a
    `RunFailedError`, and the directory says `failed`.

    Args:
        tasks: A recipe's name, the path of a recipe, a `Recipe`; or tasks of your own: an Avalanche
            benchmark, a `TaskSequence`, or a list with, per task, an `(x, y)` pair of tensors, a
            pair of such pairs (train, test), a `Task`, a `Dataset` or a `DataLoader`.
        model: For tasks of your own: a module (every replica starts from its parameters and differs
            by data order), or a function without arguments that builds one (every replica gets
            its own initialisation). None takes the recipe's model.
        loss: For tasks of your own that do not bring one: `cross_entropy`, `mse`, or a function of
            (outputs, targets) that returns the mean.
        training: Overrides the recipe's training section.
        measure: Overrides the recipe's measure section.
        replicas: Overrides the recipe's number of replicas.
        seed: Overrides the recipe's seed.
        name: Overrides the recipe's name.
        out: The run directory; None makes a new one under `runs/`. A directory that already holds
            this recipe's finished run is returned as it is.
        device: auto, cpu, cuda or cuda:N.
        quiet: Show no progress.

    Returns:
        The run, whose status may be `diverged`.

    Example:
        >>> import capacity
        >>> made = capacity.run("split-digits")  # doctest: +SKIP
        >>> made.result["final"]["forgetting_last"]["value"]  # doctest: +SKIP
    """
    where = resolve_device(device)
    recipe, sequence = _resolve(tasks, model, loss)
    changes: dict[str, Any] = {
        "training": training,
        "measure": measure,
        "replicas": None if replicas is None else positive_int("replicas", replicas),
        "seed": seed,
        "name": name,
    }
    given = {key: value for key, value in changes.items() if value is not None}
    fields = recipe.model_dump() | {
        key: value.model_dump() if hasattr(value, "model_dump") else value
        for key, value in given.items()
    }
    recipe = config.build(fields, source="run")
    if sequence is None:
        sequence = build_tasks(recipe.tasks)

    new_model = _model_factory(recipe, model, sequence)
    directory = RunDirectory(Path(out) if out is not None else _fresh_directory(recipe.name))
    progress = Progress(quiet=quiet)
    if "custom" in {recipe.tasks.dataset, recipe.model.kind}:
        recipe = _with_fingerprint(recipe, sequence, new_model)
    # Everything that can be wrong with the request is wrong before the directory is touched.
    execution = Execution(recipe, sequence, new_model, directory, where, progress)
    if directory.claim(recipe):
        progress.line(f"{directory.path} already holds this run, finished; nothing to do")
        return Run(directory.path)
    directory.write_json("env.json", describe(where))
    directory.set_status("running")
    progress.line(f"{recipe.name}: {len(sequence)} tasks on {where}, writing to {directory.path}")
    _carry_out(execution, directory, progress)
    made = Run(directory.path)
    with directory.timed("report"):
        report = made.report()
    progress.line(f"report: {report}")
    return made


def _carry_out(execution: Execution, directory: RunDirectory, progress: Progress) -> None:
    try:
        state = execution.run()
    except KeyboardInterrupt:
        directory.set_status("interrupted", "Stopped by the user; what was measured is kept.")
        progress.line(f"interrupted; `capacity report {directory.path}` shows what was measured")
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        directory.set_status("failed", said)
        # Not the user's mistake, which would have died at the door as a ValueError.
        raise RunFailedError(f"{said} ({directory.path} keeps what was measured)") from error
    directory.set_status(state)


def _resolve(
    tasks: object, model: object, loss: str | LossFunction
) -> tuple[Recipe, TaskSequence | None]:
    if isinstance(tasks, Recipe):
        recipe: Recipe | None = tasks
    elif isinstance(tasks, str | Path):
        recipe = config.load(tasks)
    else:
        recipe = None
    if recipe is not None:
        if recipe.tasks.dataset == "custom":
            raise ValueError(
                "tasks.dataset = 'custom' has its tasks in Python only; pass them to capacity.run "
                "in place of the recipe, with its training= and measure="
            )
        if recipe.model.kind == "custom" and model is None:
            raise ValueError("model.kind = 'custom' has its model in Python only; pass model=")
        if model is not None:
            fields = recipe.model_dump() | {"model": Model(kind="custom").model_dump()}
            recipe = config.build(fields)
        return recipe, None
    sequence = as_sequence(tasks, loss=loss)
    kind = Model() if model is None else Model(kind="custom")
    return Recipe(name=sequence.name, tasks=TaskStream(dataset="custom"), model=kind), sequence


def _model_factory(
    recipe: Recipe, model: nn.Module | Callable[[], nn.Module] | None, tasks: TaskSequence
) -> Callable[[int], nn.Module]:
    if model is None:
        return lambda seed: build_model(recipe.model, tasks.input_shape, tasks.n_outputs, seed)
    if isinstance(model, nn.Module):
        return lambda _: model
    if not callable(model):
        raise ValueError(
            f"model is a {type(model).__name__}; pass a torch.nn.Module, or a function without "
            "arguments that builds one"
        )

    def build(seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return model()

    return build


def _with_fingerprint(
    recipe: Recipe, tasks: TaskSequence, new_model: Callable[[int], nn.Module]
) -> Recipe:
    """Put into the recipe what its fields cannot say, so that two recipes differ if these do."""
    digest = hashlib.sha256()
    for task in tasks.tasks:
        loss = getattr(task.loss, "__qualname__", task.loss)
        digest.update(f"{task.name} {task.outputs} {loss}".encode())
        for tensor in (task.train.x, task.train.y, task.test.x, task.test.y):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    for name, tensor in new_model(0).state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    section = recipe.tasks.model_copy(update={"fingerprint": digest.hexdigest()[:16]})
    return recipe.model_copy(update={"tasks": section})


def _fresh_directory(name: str) -> Path:
    """Name a directory that does not exist yet."""
    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
    stem = f"{safe}-{datetime.now():%Y%m%d-%H%M%S}"
    path, n = Path("runs") / stem, 1
    while path.exists():
        n += 1
        path = Path("runs") / f"{stem}-{n}"
    return path
