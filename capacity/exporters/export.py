"""`capacity export`: one run to one tracker."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capacity.base.checks import one_of
from capacity.base.distribution import install
from capacity.base.files import alive, sweep
from capacity.exporters.content import Content, content
from capacity.results.gather import read_checked
from capacity.runs.directory import RunDirectory

if TYPE_CHECKING:
    from capacity.plots import Drawing

TRACKERS = ("tensorboard", "mlflow", "wandb")
_PROJECT = "capacity"
_PARAMETER = 6000
_PROCESS = "capacity.export"
"""Tag of an MLflow run: the machine and the process that wrote it."""
_EVENTS, _FIGURES = "capacity-events", "capacity-figures"
"""Folders of an export that goes on; the next export sweeps those of one that was killed."""


def export(run: Any, *, to: str, out: str | Path | None = None) -> str:
    """Hand a run to an experiment tracker: its curves, its numbers per task, recipe and figures.

    Values go as Python floats; what has no value is left out. A run that did not finish goes too,
    with its state.

    Args:
        run: A run, or the path of its directory.
        to: tensorboard, mlflow or wandb; each is an extra, as
            `pip install 'continual-capacity[mlflow]'`.
        out: Where the files go. TensorBoard: the log directory, by default `tensorboard` in the run
            directory. MLflow: a folder for its SQLite store and artifacts; without it MLflow's own
            setting (MLFLOW_TRACKING_URI). W&B: a folder for an offline run, to be sent with
            `wandb sync`; without it W&B's own setting (WANDB_MODE).

    Returns:
        Where the run went, for people.

    Raises:
        ValueError: If there is no run, the tracker is not known or not installed, or `out` will
            not do.

    Example:
        >>> import capacity
        >>> capacity.export("runs/mine", to="tensorboard")  # doctest: +SKIP
    """
    tracker = one_of("to", to, TRACKERS)
    path = RunDirectory.open(getattr(run, "path", run)).path
    folder = None if out is None else Path(out)
    if folder is not None and folder.exists() and not folder.is_dir():
        raise ValueError(f"out = {str(folder)!r} is a file; name a folder")
    RunDirectory.open(path).verify()
    view = read_checked(path)
    # A missing package should not cost the time of drawing the figures.
    needed = "torch.utils.tensorboard" if tracker == "tensorboard" else tracker
    try:
        module = import_module(needed)
    except ImportError as error:
        raise ValueError(
            f"to = {to!r} needs a package that is not installed ({error}); install it with: "
            + install(tracker)
        ) from None
    made = content(path, view)
    send = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}[tracker]
    try:
        return send(module, made, folder)
    except OSError as error:
        raise ValueError(
            f"out = {str(folder)!r} cannot be written ({error.strerror}); name another folder"
        ) from None


def _tensorboard(module: Any, made: Content, folder: Path | None) -> str:
    folder = folder or made.path / "tensorboard"
    folder.mkdir(parents=True, exist_ok=True)
    # TensorBoard shows every file of events that it finds: half of one is not put there.
    with _folder(_EVENTS, folder) as part:
        _write_events(module, made, part)
        for path in sorted(part.iterdir()):
            os.replace(path, folder / path.name)
    return str(folder)


def _write_events(module: Any, made: Content, folder: Path) -> None:
    import numpy as np
    from PIL import Image  # which TensorBoard needs for pictures, too

    with module.SummaryWriter(str(folder)) as writer:
        for step, values in made.series.items():
            for name, value in values.items():
                writer.add_scalar(name, value, step)
        for task, values in made.tasks.items():
            for name, value in values.items():
                writer.add_scalar(name, value, task)
        for name, value in made.summary.items():
            writer.add_scalar(name, value, 0)
        lines = "\n".join(f"    {name}: {value}" for name, value in made.parameters.items())
        writer.add_text("recipe", lines)
        writer.add_text("state", made.state)
        with _pictures(made.figures) as pictures:
            for name, picture in pictures.items():
                pixels = np.asarray(Image.open(picture).convert("RGB"))
                writer.add_image(name, pixels, dataformats="HWC")


def _mlflow(module: Any, made: Content, folder: Path | None) -> str:
    if folder is None:
        client = module.MlflowClient()
        experiment = client.get_experiment_by_name(_PROJECT)
        number = experiment.experiment_id if experiment else client.create_experiment(_PROJECT)
        where = module.get_tracking_uri()
    else:
        folder.mkdir(parents=True, exist_ok=True)
        where = f"sqlite:///{folder.resolve() / 'mlflow.db'}"
        client = module.MlflowClient(tracking_uri=where)
        experiment = client.get_experiment_by_name(_PROJECT)
        number = (
            experiment.experiment_id
            if experiment
            else client.create_experiment(
                _PROJECT, artifact_location=(folder.resolve() / "artifacts").as_uri()
            )
        )
    _sweep_mlflow(client, number)
    tags = {"state": made.state, _PROCESS: f"{platform.node()} {os.getpid()}"}
    key = client.create_run(number, run_name=made.name, tags=tags).info.run_id
    for name, text in made.parameters.items():
        client.log_param(key, name, text[:_PARAMETER])
    for steps in (made.series, made.tasks):
        for step, values in steps.items():
            for name, value in values.items():
                client.log_metric(key, name, value, step=step)
    for name, value in made.summary.items():
        client.log_metric(key, name, value)
    with _pictures(made.figures) as pictures:
        for picture in pictures.values():
            client.log_artifact(key, str(picture), "figures")
    for name in ("result.json", "report.html"):
        if (made.path / name).is_file():
            client.log_artifact(key, str(made.path / name))
    client.set_terminated(key, "FINISHED" if made.state == "finished" else "FAILED")
    return f"{where}, run {key}"


def _sweep_mlflow(client: Any, experiment: str) -> None:
    """Delete the runs of this machine's exports that were killed; else they run for ever."""
    for run in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
        machine, _, number = run.data.tags.get(_PROCESS, "").rpartition(" ")
        if machine == platform.node() and number.isdecimal() and not alive(int(number)):
            client.delete_run(run.info.run_id)


def _wandb(module: Any, made: Content, folder: Path | None) -> str:
    if folder is None:
        return _send_wandb(module, made)
    place = folder / "wandb"
    place.mkdir(parents=True, exist_ok=True)
    # `wandb sync` takes every folder of a run that it finds: half of one is not put there.
    with _folder(_EVENTS, folder) as part:
        _send_wandb(module, made, mode="offline", dir=str(part))
        (kept,) = (part / "wandb").glob("offline-run-*")
        os.replace(kept, place / kept.name)
    return str(place / kept.name)


def _send_wandb(module: Any, made: Content, **options: Any) -> str:
    run = module.init(
        project=_PROJECT, name=made.name, config=made.parameters, tags=[made.state], **options
    )
    # Two clocks in one run: optimiser steps, and tasks counted from 1.
    run.define_metric("step")
    run.define_metric("task/number")
    scores = [f"{part}_{kind}/*" for part in ("test", "training") for kind in ("accuracy", "loss")]
    for name in ("train/*", *scores):
        run.define_metric(name, step_metric="step")
    run.define_metric("task/*", step_metric="task/number")
    for step, values in made.series.items():
        run.log({"step": step, **values})
    for task, values in made.tasks.items():
        run.log({"task/number": task, **values})
    run.summary.update(made.summary)
    with _pictures(made.figures) as pictures:
        if pictures:
            run.log({f"figures/{k}": module.Image(str(path)) for k, path in pictures.items()})
    place = str(run.url or run.dir)
    run.finish(exit_code=0 if made.state == "finished" else 1)
    return place


@contextmanager
def _pictures(figures: Mapping[str, Drawing]) -> Iterator[dict[str, Path]]:
    """Write figures as pictures for as long as a tracker reads them."""
    with _folder(_FIGURES, Path(tempfile.gettempdir())) as folder:
        pictures = {name: folder / f"{name}.png" for name in figures}
        for name, figure in figures.items():
            figure.save(pictures[name])
        yield pictures


@contextmanager
def _folder(name: str, place: Path) -> Iterator[Path]:
    """Make a folder that is gone afterwards, and remove those that killed processes left."""
    sweep(place, name)
    folder = Path(tempfile.mkdtemp(f".{os.getpid()}.tmp", f".{name}.", place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
