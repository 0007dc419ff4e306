"""A curriculum: samples ordered by their loss under the network that a task finds."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from capacity.networks.flat_model import FlatModel
from capacity.products.output_space import task_outputs
from capacity.recipe.config import Training
from capacity.tasks.losses import FittedLoss, sample_losses
from capacity.tasks.task import Task
from capacity.training.data_order import DataOrder

_CHUNK = 1024
_NONE = 1e-9
"""Weight, beside that of a sample which counts, that rounding leaves of none."""


def ordered(
    order: DataOrder, model: FlatModel, theta: Tensor, task: Task, training: Training
) -> DataOrder:
    """Give the order that a plan's curriculum makes of another.

    Args:
        order: The order without it.
        model: The network.
        theta: Parameters as the task finds them (R, P).
        task: The task.
        training: The plan.

    Returns:
        The order; that which came where the plan has no curriculum.

    Raises:
        ValueError: If the task's data are a stream, which has one order.
    """
    plan = training.curriculum
    if plan is None:
        return order
    if order.in_order:
        raise ValueError(
            f"training.curriculum.first = {plan.first!r} needs samples by number, and task "
            f"{task.name!r} is a stream; leave curriculum out, or pass a Dataset with __getitem__"
        )
    rows = [_losses(model.of_replica(r), point, task) for r, point in enumerate(theta)]
    losses = torch.stack(rows)
    # NaN comes last: a sample without a loss is neither easy nor hard.
    ranking = (-losses if plan.first == "hard" else losses).argsort(dim=1, stable=True)
    return replace(order, curriculum=plan, ranking=ranking)


@torch.no_grad()
def _losses(model: FlatModel, theta: Tensor, task: Task) -> Tensor:
    """Loss of every training sample alone (n,), on the CPU; NaN where its weight is 0."""
    split, parts = task.train, []
    for rows in torch.arange(len(split), device=theta.device).split(_CHUNK):
        x, y = split.x[rows], split.y[rows]
        targets = y.double() if y.is_floating_point() else y
        parts.append(_alone(task, task_outputs(model, theta, task, x), targets).cpu())
    return torch.cat(parts)


def _alone(task: Task, outputs: Tensor, targets: Tensor) -> Tensor:
    """Losses without the weight of a sample's class, or of how many of its tokens count."""
    loss = task.loss
    if not isinstance(loss, FittedLoss) or not loss.weighted:
        return sample_losses(task, outputs, targets)
    sums, weights = loss.parts(outputs, targets)
    return torch.where(weights > _NONE, sums / weights, torch.nan)
