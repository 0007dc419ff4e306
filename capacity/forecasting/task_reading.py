"""What becomes of a task, read off some samples of its test split."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.base.random_streams import stream
from capacity.networks.flat_model import FlatModel
from capacity.products.output_space import loss_on_outputs, task_outputs
from capacity.records.estimate import Estimate, Status, from_error, not_defined
from capacity.tasks.losses import linearised_ratio, sample_losses
from capacity.tasks.task import Split, Task

_WANDER_PART = 0.1
"""Share of a test split that is also read at the last step."""
_NEW_PART = 0.25
"""Share of the new task's test split that is also read before."""
OLD_PASSES, NEW_PASSES = 2 + _WANDER_PART, 1 + _NEW_PART
"""Forward passes per sample: old tasks before, at the end, a part at the last step; the new one at
the end, a part before."""

Score = Callable[[Tensor, Tensor], Tensor]
"""(outputs (n, C), targets (n, ...)) to one number per sample that counts."""

NOTE = (
    "The interval covers the finite test split and how far the end of the compressed training "
    "wanders, not its bias."
)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What becomes of one task.

    Attributes:
        drop: Accuracy before minus after.
        rise: Loss after minus before.
        accuracy: Accuracy afterwards.
        loss: Loss afterwards.
    """

    drop: Estimate
    rise: Estimate
    accuracy: Estimate
    loss: Estimate


def drawn(split: Split, count: int, seed: int, name: str) -> Split:
    """Draw samples of a test split.

    Args:
        split: The split.
        count: How many, at most.
        seed: Seed of the draw.
        name: Name of its task.

    Returns:
        The samples.
    """
    if count >= len(split):
        return split
    generator = stream(seed, "engine", "test", name)
    index = torch.randperm(len(split), generator=generator)[:count].to(split.x.device)
    return split.take(index)


def read_old(
    models: tuple[FlatModel, FlatModel],
    points: tuple[Tensor, Tensor, Tensor],
    task: Task,
    test: Split,
    beyond: str,
) -> Reading:
    """Read an old task.

    Args:
        models: The network before and at the end; they differ in their running statistics.
        points: Parameters (P,) before, at the end, and at the very last step.
        task: The task.
        test: Samples of its test split.
        beyond: A sentence to add to the notes.

    Returns:
        The reading.
    """
    (old, model), (before, end, last) = models, points
    part = test.x[: math.ceil(_WANDER_PART * len(test))]
    outputs = [task_outputs(model, end, task, test.x), task_outputs(old, before, task, test.x)]
    return _reading([*outputs, task_outputs(model, last, task, part)], task, test, beyond)


def read_new(
    models: tuple[FlatModel, FlatModel],
    points: tuple[Tensor, Tensor],
    task: Task,
    test: Split,
    beyond: str,
) -> tuple[Reading, float]:
    """Read the new task.

    Args:
        models: The network before and at the end.
        points: Parameters (P,) before and at the end.
        task: The task.
        test: Samples of its test split.
        beyond: A sentence to add to the notes.

    Returns:
        The reading, whose drop and rise are accuracy and loss themselves; and the loss before.
    """
    (old, model), (before, end) = models, points
    made = _reading([task_outputs(model, end, task, test.x)], task, test, beyond)
    some = test.x[: math.ceil(_NEW_PART * len(test))]
    outputs = task_outputs(old, before, task, some)
    return made, float(loss_on_outputs(task)(outputs, targets_of(test)[: len(some)]))


def targets_of(test: Split) -> Tensor:
    """Give targets in the precision that outputs are read in.

    Args:
        test: The samples.

    Returns:
        Targets (n, ...), float64 where they are floats.
    """
    return test.y.double() if test.y.is_floating_point() else test.y


def rightly(task: Task, f: Tensor, y: Tensor) -> Tensor:
    """Score every sample, so that the mean is the accuracy and the spread is that of the mean.

    Args:
        task: The task.
        f: Its outputs (n, C).
        y: Targets (n, ...).

    Returns:
        1 or 0 for every sample that counts; of labels per token, or a score with counts, the
        linearised ratio of every sequence. Float64.
    """
    right, counts = task.score_parts(f, y)
    if task.score is None:
        return right[counts > 0].double()
    return linearised_ratio(right.double(), counts.double())


def _reading(outputs: list[Tensor], task: Task, test: Split, beyond: str) -> Reading:
    """Read a task off its outputs: at the end; for an old one also before, and at the last step."""
    y = targets_of(test)
    note = f"{NOTE} {beyond}".rstrip()

    def said(value: float, samples: Tensor, wander: float) -> Estimate:
        spread = float(samples.std()) if len(samples) > 1 else math.nan
        error = math.hypot(spread / math.sqrt(len(samples)), wander)
        return (
            from_error(value, error, n=len(samples), status=Status.UNCALIBRATED, note=note)
            if math.isfinite(value) and math.isfinite(error)
            else Estimate(value=None, status=Status.DIVERGED, note=note)
        )

    def both(score: Score) -> tuple[Estimate, Estimate]:
        """The value at the end, and its change: there is one where the task was read before."""
        end = score(outputs[0], y)
        value = float(end.mean())
        if len(outputs) == 1:
            return said(value, end, 0.0), said(value, end, 0.0)
        _, before, last = outputs
        part = y[: len(last)]
        wander = abs(float(score(outputs[0][: len(last)], part).mean() - score(last, part).mean()))
        change = end - score(before, y)
        return said(value, end, wander), said(float(change.mean()), change, wander)

    end, rise = both(lambda f, y: sample_losses(task, f, y).double())
    if not task.scored:
        nothing = not_defined("Accuracy is not defined without a class per sample; read the loss.")
        return Reading(drop=nothing, rise=rise, accuracy=nothing, loss=end)
    accuracy, _ = both(lambda f, y: rightly(task, f, y))
    _, drop = both(lambda f, y: 1 - rightly(task, f, y))
    return Reading(drop=drop, rise=rise, accuracy=accuracy, loss=end)
