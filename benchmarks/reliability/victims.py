"""Runs in processes that can be killed: children of a server that has imported everything once.

Importing torch takes longer than one of these runs; a child of the server (`warm`) has it for
nothing, and a SIGKILL of it is as real as that of any process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.process import BaseProcess
from pathlib import Path

from capacity.recipe import config
from capacity.recipe.config import Recipe

_SMALL = [
    "tasks.samples=64",
    "tasks.experiences=2",
    "model.hidden=[8]",
    "training.epochs=6",
    "training.batch_size=8",
    "measure.tangents=4",
    "measure.top_values=2",
    "measure.sweeps=3",
    "measure.capacity_probes=2",
    "measure.capacity_nodes=3",
    "measure.curvature_samples=32",
    "measure.closure_points=2",
]
_WITHOUT_VERDICTS = ["measure.verdicts=false", "measure.sensitivity_eps=[]"]

RECIPES: dict[str, list[str]] = {
    "strategy": [
        *_SMALL,
        *_WITHOUT_VERDICTS,
        "training.strategy={name: replay, memory: 20, memory_batch: 8}",
        "measure.strategies=[naive, {name: ewc, samples: 32}]",
    ],
    "momentum": [
        *_SMALL,
        *_WITHOUT_VERDICTS,
        "training.optimizer=momentum",
        "training.lr=0.05",
        "measure.composed_spectrum=true",
        "measure.log_volume_columns=0",
        "measure.strategies=[lwf, gpm]",
    ],
    "verdicts": _SMALL,
}
"""What three small recipes change in `tiny-digits`: replay, and momentum with the spectrum over all
tasks, both with other strategies forecast beside theirs; verdicts with their closures."""


def recipe_of(name: str) -> Recipe:
    """Build one of the small recipes.

    Args:
        name: A key of `RECIPES`.

    Returns:
        The recipe.
    """
    return config.load("tiny-digits", [f"name={name}", *RECIPES[name]])


def without_reports() -> None:
    """Let the runs of this process write no page, neither on the way nor when they end.

    What draws its charts takes seconds to start, does not survive a fork, and writes nothing that a
    run goes on from.
    """
    from capacity.runs.report_door import ReportSoFar
    from capacity.runs.run import Run

    ReportSoFar.__call__ = lambda _, **__: False  # type: ignore[method-assign]
    Run.report = lambda self, _=None: self.path / "report.html"  # type: ignore[method-assign]


def server() -> multiprocessing.context.ForkServerContext:
    """Open the server; its children compute with one thread.

    Returns:
        A context whose processes start within milliseconds.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # The server looks for its modules before it is told of this process's path.
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["reliability.warm"])
    return context


def start(
    context: multiprocessing.context.ForkServerContext,
    recipe: Recipe,
    out: Path,
    *,
    minutes: float,
    writes: int | None = None,
    name: str = "",
    traced: bool = True,
) -> BaseProcess:
    """Start, or go on with, a run.

    Args:
        context: What `server` gave.
        recipe: The recipe.
        out: The run directory.
        minutes: Between checkpoints inside a task.
        writes: Which write of `name` (from 1) ends in a SIGKILL, just before the file is renamed;
            None lets the run live.
        name: Part of that file's path.
        traced: Whether Hessian products go through graphs, whose tracing takes most of such a run.

    Returns:
        The process.
    """
    arguments = (recipe.to_yaml(), str(out), minutes, writes, name, traced)
    process = context.Process(target=_run, args=arguments, daemon=True)
    process.start()
    return process


def _run(
    recipe: str, out: str, minutes: float, writes: int | None, name: str, traced: bool
) -> None:
    import torch
    import yaml

    from capacity.products.hessian_products import HessianProducts
    from capacity.runs.run import run

    torch.set_num_threads(1)
    without_reports()
    if not traced:
        HessianProducts._trace = lambda self, *_: self._untraced()  # type: ignore[method-assign]
    if writes is not None:
        _die_at(writes, name)
    run(
        config.build(yaml.safe_load(recipe)),
        out=out,
        device="cpu",
        quiet=True,
        checkpoint_minutes=minutes,
    )


def _die_at(writes: int, name: str) -> None:
    replace, left = os.replace, [writes]

    def rename(source: str, target: str) -> None:
        if name in str(target):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = rename  # type: ignore[assignment]
