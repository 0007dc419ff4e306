"""Loss and accuracy of every replica on a split."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from capacity.base.differential import vmap
from capacity.networks.flat_model import FlatModel
from capacity.tasks.own_losses import SampleLoss
from capacity.tasks.streamed import Rows, read_rows
from capacity.tasks.task import Split, Task

_CHUNK = 1024


class Score(NamedTuple):
    """How well the replicas do on one split.

    Attributes:
        accuracy: Share of correct samples (R,), float64; NaN for regression.
        loss: Mean loss (R,), float64.
    """

    accuracy: Tensor
    loss: Tensor


@torch.no_grad()
def outputs(model: FlatModel, theta: Tensor, x: Tensor) -> Tensor:
    """Run every replica on the same inputs.

    Args:
        model: The network.
        theta: Parameters (R, P).
        x: Inputs (n, ...).

    Returns:
        Outputs (R, n, n_outputs).
    """
    parts = x.split(_CHUNK)
    if model.two_modes:  # each replica has running statistics of its own
        each = [
            torch.cat([model.of_replica(r).outputs(point, part) for part in parts])
            for r, point in enumerate(theta)
        ]
        return torch.stack(each)
    run = vmap(model.outputs, in_dims=(0, None))
    return torch.cat([run(theta, part) for part in parts], dim=1)


def score_outputs(task: Task, values: Tensor, targets: Tensor) -> Score:
    """Score outputs that are already there.

    Args:
        task: Says which outputs count, and the loss.
        values: Outputs (R, n, n_outputs).
        targets: Targets (n, ...).

    Returns:
        Accuracy and loss per replica.
    """
    # Float64 and a loop over replicas: the same numbers whatever R is, and any loss a user brings.
    values = values.double()
    if targets.is_floating_point():
        targets = targets.double()
    return Score(
        torch.stack([task.accuracy_of(v, targets) for v in values]),
        torch.stack([task.loss_of(v, targets) for v in values]),
    )


def evaluate(model: FlatModel, theta: Tensor, task: Task, split: Split) -> Score:
    """Score every replica on a split.

    Args:
        model: The network.
        theta: Parameters (R, P).
        task: Says which outputs count, and the loss.
        split: The samples.

    Returns:
        Accuracy and loss per replica.
    """
    if isinstance(split.y, Rows):
        return _in_parts(model, theta, task, split)
    return score_outputs(task, outputs(model, theta, split.x), split.y)


def _in_parts(model: FlatModel, theta: Tensor, task: Task, split: Split) -> Score:
    """Score streamed batches, which hold their targets, part by part."""
    found = []
    for part in split.x.split(_CHUNK):
        rows = read_rows(part)
        values = outputs(model, theta, rows).double()
        pairs = [_sums(task, v, rows) for v in values]
        found.append(torch.stack([torch.stack(pair) for pair in pairs]))
    sums = torch.stack(found).sum(0)  # (R, 4)
    return Score(sums[:, 2] / sums[:, 3], sums[:, 0] / sums[:, 1])


def _sums(task: Task, values: Tensor, rows: Tensor) -> list[Tensor]:
    assert isinstance(task.loss, SampleLoss)
    parts = [*task.loss.parts(values, rows)]
    nothing = values.new_full((1,), torch.nan)
    parts += task.score_parts(values, rows) if task.scored else (nothing, nothing)
    return [part.sum() for part in parts]
