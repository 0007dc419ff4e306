"""What became of earlier tasks, measured on copies of a model that somebody else trains."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from capacity.forecasting.record import Forgetting
from capacity.networks.door import fit
from capacity.networks.evaluate import Score, evaluate
from capacity.networks.flat_model import FlatModel
from capacity.records.estimate import Estimate, not_defined
from capacity.tasks.task import Task


def scores_of(model: nn.Module, tasks: Sequence[Task]) -> list[Score]:
    """Score a copy of a model in evaluation mode.

    Args:
        model: The model, which is not changed.
        tasks: The tasks.

    Returns:
        Accuracy and loss on every task's test split.
    """
    flat = FlatModel(model)
    flat.modes.switch(training=False)
    theta = flat.initial()
    there = [task.to(theta.device) for task in tasks]
    fitted = fit(flat, theta, there, twice=False, two_modes=True)
    return [evaluate(flat, theta[None], task, task.test) for task in fitted]


def change(task: Task, before: Score, after: Score) -> Forgetting:
    """Say what was measured of one task.

    Args:
        task: The task.
        before: Its scores before the training.
        after: Its scores after it.

    Returns:
        Drop in accuracy and rise in loss.
    """
    return Forgetting(
        accuracy_drop=_measured(before.accuracy - after.accuracy, task),
        loss_increase=_measured(after.loss - before.loss, task),
    )


def _measured(values: Tensor, task: Task) -> Estimate:
    value = float(values[0])
    if math.isnan(value):
        return not_defined("Not defined for this task, or the training diverged.")
    return Estimate(value=value, n=len(task.test), note=f"Measured on {len(task.test)} samples.")
