"""How much each parameter matters to a task that was learned: diagonals of EWC and MAS."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.func import grad

from capacity.base.differential import hessian, pullback, vmap
from capacity.networks.flat_model import FlatModel
from capacity.products.feature_rows import features
from capacity.products.output_space import metric_root, task_outputs
from capacity.products.row_sets import LayerFeatures
from capacity.strategies.terms import sample_mean
from capacity.tasks.losses import additive
from capacity.tasks.task import Split, Task

_ROWS = 4096
"""Most rows, a sample's outputs each, whose factors are held at a time."""


def empirical_fisher(model: FlatModel, theta: Tensor, task: Task, split: Split) -> Tensor:
    """Mean squared per-sample gradient of the loss at the task's own labels.

    Args:
        model: The network.
        theta: Parameters (R, P).
        task: The task, for its loss.
        split: The samples.

    Returns:
        The diagonal (R, P).
    """
    loss = model.loss(additive(task, split))

    def squared(t: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return grad(loss)(t, x[None], y[None]).square()

    return sample_mean(squared, theta, split, per_sample=1)


def true_fisher(model: FlatModel, theta: Tensor, task: Task, split: Split) -> Tensor:
    """Diagonal of the Gauss-Newton matrix Phi' H_out Phi, with all outputs, without sampling.

    For cross-entropy that is the Fisher information over the network's own predictions,
    E_{c ~ p} (d log p_c / d theta)^2; for the half-MSE, the same of a unit Gaussian.

    Args:
        model: The network.
        theta: Parameters (R, P).
        task: The task, for its loss.
        split: The samples.

    Returns:
        The diagonal (R, P).
    """
    bare = replace(additive(task, split), outputs=None)  # its loss, on the outputs that it reads
    quick = _fisher_of_layers(model, theta, task, bare, split)
    if quick is not None:
        return quick
    width = task.select(model.outputs(theta[0], split.x[:1])).shape[-1]

    def diagonal(t: Tensor, x: Tensor, y: Tensor) -> Tensor:
        outputs, pull = pullback(lambda p: task.select(model.outputs(p, x[None]))[0], t)
        curved = hessian(lambda f: bare.loss_of(f[None], y[None]))(outputs)
        rows = vmap(lambda e: pull(e)[0])(torch.eye(width, dtype=t.dtype, device=t.device))
        return (rows * (curved @ rows)).sum(0)

    return sample_mean(diagonal, theta, split, per_sample=2 * width).clamp(min=0)


def _fisher_of_layers(
    model: FlatModel, theta: Tensor, task: Task, bare: Task, split: Split
) -> Tensor | None:
    """Give the same where linear layers hold all parameters: their rows need not be written out."""
    shape = task_outputs(model, theta[0], task, split.x[:1]).shape
    if bare.loss not in ("cross_entropy", "mse") or len(shape) != 2:
        return None
    total, size = torch.zeros_like(theta), max(1, _ROWS // shape[1])
    for made, point in zip(total, theta, strict=True):
        for x, y in zip(split.x.split(size), split.y.split(size), strict=True):
            f = task_outputs(model, point, task, x)
            rows = features(model, point, task, x, metric_root(bare, f, y).transpose(1, 2))
            if not isinstance(rows, LayerFeatures):
                return None
            made += rows.squares()
    return total / len(split)


def output_sensitivity(model: FlatModel, theta: Tensor, task: Task, split: Split) -> Tensor:
    """MAS: the mean absolute per-sample gradient of |f|^2, f the outputs that the task reads.

    Args:
        model: The network.
        theta: Parameters (R, P).
        task: The task, for its outputs.
        split: The samples; their labels are not used.

    Returns:
        The importance (R, P).
    """

    def energy(t: Tensor, x: Tensor) -> Tensor:
        return task.select(model.outputs(t, x[None])).square().sum()

    def sensitivity(t: Tensor, x: Tensor, y: Tensor) -> Tensor:
        del y
        return grad(energy)(t, x).abs()

    return sample_mean(sensitivity, theta, split, per_sample=1)


IMPORTANCES = {"true": true_fisher, "empirical": empirical_fisher}
"""Diagonals of the Fisher information by name."""
