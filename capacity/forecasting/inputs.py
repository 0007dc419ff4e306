"""The door of a forecast: whether network, tasks and losses fit together, before any work."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from capacity.networks.door import fit
from capacity.networks.flat_model import FlatModel
from capacity.tasks.alignment import aligned
from capacity.tasks.streamed import Rows
from capacity.tasks.task import Task


def check_network(
    flat: FlatModel,
    theta: Tensor,
    old: Sequence[Task],
    new: Task,
    *,
    twice: bool,
    two_modes: bool = False,
) -> tuple[Task, ...]:
    """Check that a network can be forecast on some tasks.

    Args:
        flat: The network.
        theta: Its parameters (P,).
        old: The old tasks.
        new: The new task.
        twice: Whether second derivatives of the network are needed.
        two_modes: Whether it may train otherwise than it is evaluated (dropout, batch norm).

    Returns:
        The old tasks and the new one, their losses as `fit` has seen them work.

    Raises:
        ValueError: If `fit` refuses network, tasks or losses, or the new task is an old one; the
            message names the parameter or the task.
    """
    *old, new = aligned((*old, new))
    shape = tuple(new.train.x.shape[1:])
    for task in old:
        if tuple(task.train.x.shape[1:]) != shape:
            raise ValueError(
                f"old: task {task.name!r} has inputs of shape {tuple(task.train.x.shape[1:])}, the "
                f"new task {shape}; one model needs one shape"
            )
    made = fit(flat, theta, (*old, new), twice=twice, two_modes=two_modes)
    for task in old:
        if _same(task, new):
            raise ValueError(
                f"new: its training samples and targets are those of old task {task.name!r}, so "
                "the network has learned it already and there is nothing to forecast; pass the "
                "task that comes next"
            )
    return made


def _same(one: Task, other: Task) -> bool:
    if isinstance(one.train.x, Rows) or isinstance(other.train.x, Rows):
        return one.outputs == other.outputs and one.train.x is other.train.x
    parts = ((one.train.x, other.train.x), (one.train.y, other.train.y))
    return one.outputs == other.outputs and all(
        a.device == b.device and a.dtype == b.dtype and torch.equal(a, b) for a, b in parts
    )
