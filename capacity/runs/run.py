"""`capacity.run`: from a recipe, or a user's own tasks and model, to a finished run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from capacity.base.ambient import in_own_precision
from capacity.base.checks import boolean, nonnegative_float, path_of, positive_int, resolve_device
from capacity.base.randomness import kept_random_state
from capacity.networks.belief import believed
from capacity.networks.models import build_model
from capacity.recipe import config
from capacity.recipe.config import Measure, Model, Recipe, TaskStream, Training
from capacity.recipe.strategy import PLAIN
from capacity.results.summary_file import read_whole
from capacity.runs.directory import RunDirectory
from capacity.runs.environment import describe
from capacity.runs.execute import Execution
from capacity.runs.probes import fingerprint_of
from capacity.runs.progress import Progress
from capacity.runs.report_door import ReportSoFar
from capacity.runs.run_on_disk import Run as Run
from capacity.runs.run_on_disk import open_run as open_run
from capacity.runs.task_training import NotRepeatedError
from capacity.runs.unfinished import (
    fresh_directory,
    how_to_resume,
    left_unfinished,
    shell_call,
)
from capacity.strategies.mitigation import metric_misses
from capacity.strategies.rehearsal import ExperienceReplay
from capacity.tasks.build import build_tasks
from capacity.tasks.loaders import with_loader_batches
from capacity.tasks.scoring import scoring_words, task_record
from capacity.tasks.streams import as_sequence
from capacity.tasks.task import LossFunction, TaskSequence

_MACHINE = (OSError, MemoryError, torch.OutOfMemoryError, torch.AcceleratorError)
"""Errors of the machine, the last one of a device that is gone."""


class RunFailedError(RuntimeError):
    """A run stopped by an error that is not the user's; its directory says `failed`.

    Attributes:
        passing: Whether the machine was the cause, as a full disk or a device that is gone, and the
            same call may go on later.
    """

    def __init__(self, said: str, *, passing: bool = False) -> None:
        super().__init__(said)
        self.passing = passing


@in_own_precision
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
    checkpoint_minutes: float = 5.0,
    threads: int | None = None,
    processes: int = 1,
    report: bool = True,
) -> Run:
    """Learn a sequence of tasks; forecast, measure and report.

    Anything wrong with the request is a ValueError before any work starts. A KeyboardInterrupt
    leaves a readable run directory that says `interrupted`; any other exception becomes a
    `RunFailedError`, and the directory says `failed`.

    Args:
        tasks: A recipe's name, the path of a recipe, a `Recipe`; or tasks of your own: an Avalanche
            benchmark, a `TaskSequence`, or a list with, per task, an `(x, y)` pair of tensors, a
            pair of such pairs (train, test), a `Task`, a `Dataset` or a `DataLoader`. What comes
            without a test split is split by `hold_out`.
        model: For tasks of your own: a module (every replica starts from its parameters and differs
            by data order), or a function without arguments that builds one (every replica gets
            its own initialisation). None takes the recipe's model.
        loss: For tasks of your own that do not bring one: `cross_entropy`, `mse`, or a function of
            (outputs, targets) that returns the mean.
        training: Overrides the recipe's training section.
        measure: Overrides the recipe's measure section; tasks of your own are measured at level
            `forecast` without it, with replay forecast beside plain training.
        replicas: Overrides the recipe's number of replicas.
        seed: Overrides the recipe's seed.
        name: Overrides the recipe's name.
        out: The run directory; None makes a new one under `runs/`. A directory that already holds
            this recipe's finished run is returned as it is; one that was cut off, even by a kill,
            goes on and ends with the same result, bit for bit.
        device: auto, cpu, cuda or cuda:N.
        quiet: Show no progress.
        checkpoint_minutes: How often a training is kept between the ends of tasks; 0 after every
            step.
        threads: Threads of the arithmetic; None takes one for a network of less than 131,072
            parameters on the CPU, which more threads make slower, and else torch's own number. A
            run that goes on keeps the number that it began with.
        processes: 2 measures R_A, m_B and verdicts in a process beside the training, where a small
            network runs on one thread and the system has another core. The result is the same.
        report: Whether to write `report.html`, which takes longer than a small run; `capacity
            report DIR` writes it at any time.

    Returns:
        The run, whose status may be `diverged`.

    Example:
        >>> import capacity
        >>> made = capacity.run("split-digits")  # doctest: +SKIP
        >>> made.result["final"]["forgetting_last"]["value"]  # doctest: +SKIP
    """
    where = resolve_device(device)
    minutes = nonnegative_float("checkpoint_minutes", checkpoint_minutes)
    threads = None if threads is None else positive_int("threads", threads)
    positive_int("processes", processes)
    boolean("report", report)
    recipe, sequence = _resolve(tasks, model, loss)
    if sequence is not None and (training is None or isinstance(training, Training)):
        training = with_loader_batches(training, sequence.tasks)
        if measure is None:
            measure = _usual(sequence, training or recipe.training)
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

    point = _model_factory(recipe, model, sequence)
    classifies = all(task.classifies for task in sequence.tasks)

    def new_model(seed: int) -> nn.Module:
        made: nn.Module = believed(point(seed), recipe.training, classifies=classifies)
        return made

    progress = Progress(quiet=quiet)
    if "custom" in {recipe.tasks.dataset, recipe.model.kind}:
        # What the fields cannot say, so that two recipes differ if these do.
        taken = fingerprint_of(sequence, new_model)
        section = recipe.tasks.model_copy(update={"fingerprint": taken})
        recipe = recipe.model_copy(update={"tasks": section})
    earlier = None if out is not None else left_unfinished(recipe)
    directory = RunDirectory(fresh_directory(recipe.name) if out is None else path_of("out", out))
    recipe = directory.as_kept(recipe)
    # Everything that can be wrong with the request is wrong before the directory is touched.
    execution = Execution(
        recipe, sequence, new_model, directory, where, progress,
        checkpoint_minutes=minutes, threads=threads, processes=processes,
        report=ReportSoFar(directory) if report else None,
    )  # fmt: skip
    made = Run(directory.path)
    if directory.claim(recipe):
        unsure = "" if directory.verified else " (unverified: its files carry no digests)"
        progress.line(
            f"{directory.path} already holds this run, {made.status}{unsure}; nothing to do"
        )
        return made
    try:
        if not directory.finished:  # else only its report is missing
            done = execution.prepare()
            environment = describe(where) | directory.command()
            try:
                directory.take_up()
                directory.set_status("running", files={"env.json": environment})
            except OSError as error:  # a full disk, before any work
                raise directory.unwritable(error) from None
            doing = f"going on after {done} stages in" if done else "writing to"
            progress.line(
                f"{recipe.name}: {len(sequence)} tasks on {where}, {doing} {directory.path}"
            )
            scored = scoring_words([task_record(task) for task in sequence.tasks])
            if scored:
                progress.line(scored)
            if earlier is not None:
                said = how_to_resume(recipe, earlier)
                progress.line(f"an earlier run of this recipe was cut off; {said} with it")
            _carry_out(execution, recipe, directory, progress)
        directory.settle()
        if not report or _reported(made, progress):
            directory.journal(recipe).clear()
            with suppress(ValueError):  # a damaged file, which whoever reads it is told
                read_whole(directory.path)  # leaves the summary
    finally:
        directory.release()
    return made


@in_own_precision
def resume(
    path: str | Path,
    *,
    device: str | torch.device = "auto",
    quiet: bool = False,
    checkpoint_minutes: float = 5.0,
) -> Run:
    """Go on with a run that was cut off: by Ctrl-C, an error, a kill or a power cut.

    The run ends with the same `result.json`, bit for bit, as one that was never cut off, on the
    same kind of machine. `run(..., out=path)` does the same, for tasks or models of your own, too.

    Args:
        path: The run directory.
        device: auto, cpu, cuda or cuda:N.
        quiet: Show no progress.
        checkpoint_minutes: As in `run`.

    Returns:
        The run; one that was finished is returned as it is.

    Raises:
        ValueError: If there is no run, its tasks or its model only Python has, its records are
            damaged, or another process works on it.

    Example:
        >>> import capacity
        >>> made = capacity.resume("runs/split-digits-20260801-120000")  # doctest: +SKIP
    """
    recipe = RunDirectory.open(path).recipe()
    if "custom" in {recipe.tasks.dataset, recipe.model.kind}:
        raise ValueError(
            f"run = {str(path)!r} has tasks or a model that only Python has; call capacity.run as "
            "before, with out= this directory"
        )
    return run(recipe, out=path, device=device, quiet=quiet, checkpoint_minutes=checkpoint_minutes)


def _carry_out(
    execution: Execution, recipe: Recipe, directory: RunDirectory, progress: Progress
) -> None:
    try:
        state = execution.run()
    except KeyboardInterrupt:
        directory.set_status("interrupted", "Stopped by the user; what was measured is kept.")
        progress.line(
            f"interrupted; `{shell_call('capacity', 'report', directory.path)}` shows what was "
            f"measured, {how_to_resume(recipe, directory.path)}"
        )
        raise
    except NotRepeatedError as error:
        directory.set_status("interrupted", str(error))
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        with suppress(OSError):  # a full disk may be what ended the run
            directory.set_status("failed", said)
        # Not the user's mistake, which would have died at the door as a ValueError.
        passing = isinstance(error, _MACHINE)
        further = how_to_resume(recipe, directory.path)
        if not passing:  # what a machine lacked may be there next time; a cause in code stays
            further = f"the same call would fail again; once the cause is mended, {further}"
        raise RunFailedError(
            f"{said} ({directory.path} keeps what was measured; {further})", passing=passing
        ) from error
    said = ""
    if directory.removed:
        said = (
            "The directory was removed while the run went on; it was made anew, without the "
            "checkpoints of before."
        )
        progress.line(f"{directory.path}: {said}")
    directory.set_status(state, said)


def _reported(made: Run, progress: Progress) -> bool:
    """Write the report; a run whose report fails is finished all the same."""
    from capacity.report.renderer import RenderingError

    try:
        path = made.report()
    except (ValueError, RenderingError) as error:
        with suppress(OSError):  # the one that was made while the run went on
            (made.path / "report.html").unlink()
        again = shell_call("capacity", "report", made.path)
        said = f"the run is finished, but its report could not be written: {error}"
        progress.line(f"{said}; try again with `{again}`", trouble=True)
        return False
    progress.line(f"report: {path}")
    return True


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


def _usual(sequence: TaskSequence, training: Training) -> Measure:
    """Say what is measured of tasks of one's own: replay beside plain training, if it can be."""
    # Replay works with every network; its one memory holds targets of one kind.
    targets = [task.train.y for task in sequence.tasks]
    kinds = {(y.dtype, y.shape[1:]) for y in targets if isinstance(y, torch.Tensor)}
    alone = len(sequence) > 1 and len(kinds) == 1 and training.strategy.name == PLAIN
    alone = alone and not metric_misses(ExperienceReplay(), sequence.tasks, training)
    return Measure.model_validate({"strategies": ["replay"] if alone else []})


def _model_factory(
    recipe: Recipe, model: nn.Module | Callable[[], nn.Module] | None, tasks: TaskSequence
) -> Callable[[int], nn.Module]:
    if model is None:
        return lambda seed: build_model(recipe.model, tasks.input_shape, tasks.n_outputs, seed)
    if isinstance(model, nn.Module):
        return lambda _: model
    if not callable(model) or not _takes_nothing(model):
        raise ValueError(
            f"model is a {type(model).__name__}; pass a torch.nn.Module, or a function without "
            "arguments that builds one"
        )

    def build(seed: int) -> nn.Module:
        with kept_random_state(seed):
            made = model()
        if not isinstance(made, nn.Module):
            raise ValueError(f"model builds a {type(made).__name__}; build a torch.nn.Module")
        return made

    return build


def _takes_nothing(function: Callable[..., object]) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return False
    except ValueError:  # one of C's, which does not say
        return True
    return True
