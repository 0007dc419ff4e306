"""Gradients of all replicas: at once, or one by one where each has masks of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from capacity.base.differential import slope_of, slopes_of
from capacity.base.random_streams import stream_seed
from capacity.networks.flat_model import FlatModel
from capacity.tasks.task import Task
from capacity.training.data_order import DataOrder

Masks = Callable[[int], int]
"""Gives the seed of each replica's random masks in one step."""
Gradients = Callable[[Tensor, Tensor, Tensor, Masks], tuple[Tensor, Tensor]]
"""(theta (R, P), x (R, b, ...), y (R, b, ...), masks) to gradients (R, P) and losses (R,)."""


def mask_seed(order: DataOrder, step: int, replica: int) -> int:
    """Name the random masks of a step.

    Args:
        order: The data order of the training.
        step: The step, from 1.
        replica: Whose masks they are.

    Returns:
        Their seed.
    """
    return stream_seed(order.seed, *order.path, "mask", step, replica)


def gradients_of(model: FlatModel, task: Task, batch: int) -> Gradients:
    """Differentiate a task's loss for all replicas: at once, or one by one in training mode.

    Args:
        model: The network.
        task: The task.
        batch: Samples that the network sees together in training mode, where batch norm tells how
            many they are; the gradients of several such batches are averaged over their samples.

    Returns:
        The function.
    """
    if not model.one_by_one:
        each = slopes_of(model.loss(task), known=isinstance(task.loss, str))
        return lambda theta, x, y, _: each(theta, x, y)

    def one(replica: int, theta: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        slope = slope_of(model.of_replica(replica).loss(task))
        if len(x) <= batch:
            return slope(theta, x, y)
        gradient, loss = torch.zeros_like(theta), theta.new_zeros(())
        for some, targets in zip(x.split(batch), y.split(batch), strict=True):
            part, value = slope(theta, some, targets)
            gradient.add_(part, alpha=len(some) / len(x))
            loss = loss + value * (len(some) / len(x))
        return gradient, loss

    return partial(in_training_mode, model, one)


def in_training_mode(
    model: FlatModel,
    slope: Callable[[int, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
    theta: Tensor,
    x: Tensor,
    y: Tensor,
    masks: Masks,
) -> tuple[Tensor, Tensor]:
    """Differentiate replica by replica, each with random masks and running statistics of its own.

    Args:
        model: The network.
        slope: Gives gradient (P,) and loss of one replica, of its number, theta, x and y.
        theta: Parameters (R, P).
        x: Inputs (R, b, ...).
        y: Targets (R, b, ...).
        masks: Seed of each replica's random masks.

    Returns:
        Gradients (R, P) and losses (R,).
    """
    made = []
    for replica, row in enumerate(zip(theta, x, y, strict=True)):
        with model.of_replica(replica).training(masks(replica)):
            made.append(slope(replica, *row))
    return torch.stack([g for g, _ in made]), torch.stack([loss for _, loss in made])
