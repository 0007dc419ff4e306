"""Simpler predictors of forgetting, to hold the forecast against (theory, section 4)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import grad, vmap

from capacity.config import Training
from capacity.dynamics.evaluate import evaluate
from capacity.dynamics.flat import FlatModel
from capacity.estimate import Estimate, from_samples
from capacity.tasks.task import Task

_CHUNK = 1024


def new_task_loss(model: FlatModel, theta: Tensor, new: Task) -> Estimate:
    """B8: the new task's training loss before it is learned.

    Args:
        model: The network.
        theta: Parameters of the replicas (R, P).
        new: The new task.

    Returns:
        The mean over replicas.
    """
    return from_samples(evaluate(model, theta, new, new.train).loss.tolist())


def path_bound(model: FlatModel, theta: Tensor, new: Task, training: Training) -> Estimate:
    """B1: S |g_B|, the sum of the learning rates times the new task's gradient norm.

    Args:
        model: The network.
        theta: Parameters of the replicas (R, P).
        new: The new task.
        training: Its planned training.

    Returns:
        The mean over replicas.
    """
    total = torch.zeros_like(theta)
    gradients = vmap(grad(model.loss(new)), in_dims=(0, None, None))
    pairs = zip(new.train.x.split(_CHUNK), new.train.y.split(_CHUNK), strict=True)
    for x, y in pairs:
        total += gradients(theta, x, y) * (len(x) / len(new.train))
    time = sum(training.learning_rates(len(new.train)))
    return from_samples((time * total.double().norm(dim=-1)).tolist())
