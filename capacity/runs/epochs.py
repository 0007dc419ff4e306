"""The edges of a training in a run: whether the network fits, and what every epoch leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from capacity.base.checks import fits_in_memory
from capacity.base.random_streams import stream_seed
from capacity.networks.evaluate import Score
from capacity.networks.flat_model import FlatModel
from capacity.networks.replicas import same_parameters
from capacity.recipe.config import Recipe
from capacity.records.estimate import from_samples, not_defined
from capacity.thermo.gram_matrices import layer_grams
from capacity.thermo.path import PathObserver
from capacity.thermo.wasserstein import distance

_PATH = (
    "action", "loss_drop", "displacement_sq", "w2_lower", "inefficiency_path", "loss_drop_ratio"
)  # fmt: skip


def epoch_row(
    task: int, epoch: int, step: int, time: float, lr: float, fit: Score, tests: list[Score]
) -> dict[str, Any]:
    """Write down the end of an epoch.

    Args:
        task: Number of the task that is learned.
        epoch: Number of the epoch; 0 is before the first step.
        step: Steps since the start of the run.
        time: Learning time since the start of the run.
        lr: Learning rate of the last step.
        fit: Scores on the task's training split.
        tests: Scores on the test split of every task.

    Returns:
        The row, as `result_schema.md` has it.
    """
    row: dict[str, Any] = {"task": task, "epoch": epoch, "step": step, "learning_time": time}
    row |= {"lr": lr, **_mean_and_error("train_loss", [fit.loss], single=True)}
    row |= _mean_and_error("test_accuracy", [s.accuracy for s in tests])
    return row | _mean_and_error("test_loss", [s.loss for s in tests])


def path_row(
    path: PathObserver | None,
    layout: Sequence[tuple[str, int]],
    theta: Tensor | None,
    before: Tensor,
    now: Tensor,
    *,
    plain: bool,
    full: bool,
    noisy: bool,
) -> dict[str, Any]:
    """Write down what the path of a task has cost up to the end of an epoch.

    Args:
        path: What has summed it up; None before the first step.
        layout: Names and sizes of theta's parts.
        theta: Parameters (R, P) now; None before the first step.
        before: Training loss of every replica (R,) before the first step.
        now: The same now.
        plain: As for `PathObserver.cost`.
        full: As for `PathObserver.cost`.
        noisy: As for `PathObserver.cost`.

    Returns:
        Means and standard errors over replicas, as `result_schema.md` has them; None where a
        quantity is not defined, the lower bound of W2^2 not told from 0, or the loss drop's ratio
        out of its regime.
    """
    if path is None or path.start is None or theta is None:
        return {f"{name}{end}": None for name in _PATH for end in ("", "_stderr")}
    cost = path.cost(before, now, plain=plain, full=full, noisy=noisy, own=False)
    found = {name: getattr(cost, name) for name in _PATH if name != "w2_lower"}
    lower = distance(layer_grams(path.start, theta, dict(layout))).bracket().lower
    found["w2_lower"] = lower
    # A row has no room for a status: what must not be read as its name says is not there.
    found = {name: e if e.resolved else not_defined(e.note) for name, e in found.items()}
    return {
        f"{name}{end}": value
        for name, e in found.items()
        for end, value in (("", e.value), ("_stderr", e.stderr if e.value is not None else None))
    }


def networks(recipe: Recipe, new_model: Callable[[int], nn.Module]) -> list[FlatModel]:
    """Build the networks that are trained side by side.

    Args:
        recipe: How many, and the seed behind theirs.
        new_model: Builds one from a seed.

    Returns:
        One per replica. More of them than fit into memory, and one that is another architecture
        than the first, are ValueErrors.
    """
    seeds = (stream_seed(recipe.seed, "init", r) for r in range(recipe.replicas))
    first = FlatModel(new_model(next(seeds)))
    fits_in_memory("replicas", recipe.replicas, recipe.replicas * first.size)
    others = enumerate(seeds, start=1)
    return [first, *(same_parameters(first, new_model(seed), r) for r, seed in others)]


def _mean_and_error(name: str, values: list[Tensor], *, single: bool = False) -> dict[str, Any]:
    made = [from_samples(v.tolist()) for v in values]
    mean, error = [e.value for e in made], [e.stderr for e in made]
    if single:
        return {name: mean[0], f"{name}_stderr": error[0]}
    return {name: mean, f"{name}_stderr": error}
