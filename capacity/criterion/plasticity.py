"""Whether a network can still learn: what the loss of plasticity is usually read from.

All are measured on samples of the task to come, at theta before it is learned:

- effective rank of the features that enter the last layer: exp of the entropy of sigma / sum sigma
  (Roy & Vetterli 2007), and the number of singular values that hold 99 % of their sum (srank;
  Kumar et al. 2021);
- dormant units (Sokar et al. 2023): the share of hidden units whose mean |activation|, over that of
  their layer, is at most 0.025;
- effective rank of the per-sample gradients: how many directions the first steps on the task have;
- norm of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad

from capacity.base.differential import vmap
from capacity.networks.flat_model import FlatModel
from capacity.networks.layer_inputs import layer_inputs
from capacity.records.estimate import Estimate, not_defined
from capacity.records.plain import Plain
from capacity.tasks.losses import additive
from capacity.tasks.task import Task

DORMANT_BELOW = 0.025
"""Threshold on a unit's score, as published."""

SRANK_SHARE = 0.99
"""Share of the singular values' sum behind srank, as published."""

_SAMPLES, _GRADIENTS = 256, 64


@dataclass(frozen=True, kw_only=True)
class Plasticity(Plain):
    """Measures of plasticity.

    Attributes:
        feature_rank: Effective rank of the features that enter the last layer.
        feature_srank: How many of their singular values hold 99 % of the sum.
        dormant: Share of dormant hidden units, in [0, 1].
        gradient_rank: Effective rank of the per-sample gradients.
        weight_norm: |theta|.
    """

    feature_rank: Estimate
    feature_srank: Estimate
    dormant: Estimate
    gradient_rank: Estimate
    weight_norm: Estimate


def plasticity(model: FlatModel, theta: Tensor, task: Task) -> Plasticity:
    """Measure plasticity on a task's training samples.

    Exact on the samples taken, whose number is `n`: at most 256, and 64 for the gradients.

    Args:
        model: The network.
        theta: Parameters (P,).
        task: The task to come.

    Returns:
        The measures; those of hidden units are `not_defined` in a network without a hidden layer.
    """
    seen = task.train.first(_SAMPLES)
    layers = list(layer_inputs(model, theta, seen.x).values())[1:]  # the first one sees the data
    rank, srank, dormant = (not_defined("The network has no hidden layer.") for _ in range(3))
    if layers:
        values = _singular_values(layers[-1].flatten(1).double())
        rank = Estimate(value=effective_rank(values), n=len(seen))
        share = values.cumsum(0) / values.sum().clamp(min=1e-300)
        srank = Estimate(value=float((share < SRANK_SHARE).sum() + 1), n=len(seen))
        dormant = Estimate(value=_dormant(layers), n=len(seen))
    few = task.train.first(_GRADIENTS)
    slope = grad(model.loss(additive(task, task.train)))
    with torch.no_grad():
        gradients = vmap(lambda x, y: slope(theta, x[None], y[None]))(few.x, few.y)
    return Plasticity(
        feature_rank=rank,
        feature_srank=srank,
        dormant=dormant,
        gradient_rank=Estimate(
            value=effective_rank(_singular_values(gradients.double())), n=len(few)
        ),
        weight_norm=Estimate(value=float(theta.double().norm())),
    )


def effective_rank(singular_values: Tensor) -> float:
    """Give exp of the entropy of sigma / sum sigma (Roy & Vetterli 2007).

    Args:
        singular_values: sigma (k,), not negative.

    Returns:
        From 1 (one value) to k (all equal); 0 where all are 0.
    """
    total = singular_values.sum()
    if not float(total) > 0:
        return 0.0
    shares = singular_values / total
    return float(torch.exp(torch.special.entr(shares).sum()))


def _singular_values(matrix: Tensor) -> Tensor:
    """Through the smaller Gram matrix: per-sample gradients are few and long."""
    gram = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
    return torch.linalg.eigvalsh(gram).clamp(min=0).flip(0).sqrt()


def _dormant(layers: list[Tensor]) -> float:
    """Share of units whose mean |activation| is small beside the mean of their layer."""
    dead, units = 0, 0
    for layer in layers:
        # Channels are the units of a convolution: (n, C, ...) is averaged over all but C.
        size = layer.abs().double().flatten(2).mean(-1) if layer.dim() > 2 else layer.abs().double()
        size = size.mean(0)
        score = size / size.mean().clamp(min=1e-300)
        dead, units = dead + int((score <= DORMANT_BELOW).sum()), units + len(size)
    return dead / units
