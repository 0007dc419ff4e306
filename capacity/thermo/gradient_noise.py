"""The noise of minibatch gradients: its covariance C, and where SGD settles in it.

A batch of b independent samples has a gradient with covariance C = S/b, S that of single samples.
A step of SGD so diffuses with D = lr C/2, and in a mode of curvature h it settles at the variance
lr C/(2 h - lr h^2) (theory.md#variational-step).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad

from capacity.base.checks import positive_int
from capacity.base.differential import vmap
from capacity.networks.flat_model import FlatModel
from capacity.records.estimate import Estimate, from_error
from capacity.tasks.losses import additive
from capacity.tasks.task import Split, Task

_SAMPLES = 512


@dataclass(frozen=True, kw_only=True, eq=False)
class GradientNoise:
    """Covariance C of a batch's gradient.

    Attributes:
        trace: tr C, from n samples, with the error of their spread.
        top: Largest eigenvalues of C (k,), float64, descending.
        directions: Their eigenvectors (k, P).
        share: Share of the trace that they hold.
    """

    trace: Estimate
    top: Tensor
    directions: Tensor
    share: float


@torch.no_grad()
def gradient_noise(
    model: FlatModel, theta: Tensor, task: Task, split: Split, *, batch: int, top: int = 5
) -> GradientNoise:
    """Estimate the covariance of a batch's gradient.

    Args:
        model: The network.
        theta: Parameters (P,).
        task: The task, for its loss.
        split: Where batches come from; at most the first 512 samples are looked at.
        batch: Samples per batch, drawn independently. Batches of one shuffled pass have less noise
            by the time that the pass ends.
        top: Eigenvalues to give; fewer where the samples span fewer directions.

    Returns:
        The covariance.

    Raises:
        ValueError: If there are fewer than two samples.
    """
    positive_int("batch", batch)
    positive_int("top", top)
    seen = split.first(_SAMPLES)
    if len(seen) < 2:
        raise ValueError(f"split has {len(seen)} sample; a covariance takes at least 2")
    loss = model.loss(additive(task, seen))

    def one(x: Tensor, y: Tensor) -> Tensor:
        made: Tensor = grad(loss)(theta, x[None], y[None])
        return made

    rows = vmap(one)(seen.x, seen.y)
    rows = rows - rows.mean(0)
    n = len(rows)
    squares = rows.double().square().sum(1) * (n / (n - 1) / batch)
    values, vectors = torch.linalg.eigh((rows @ rows.T).double() / ((n - 1) * batch))
    kept = min(top, n - 1, rows.shape[1])
    largest = values.flip(0)[:kept].clamp_min(0)
    pulled = vectors.flip(1)[:, :kept].T.to(rows) @ rows
    trace = float(squares.mean())
    return GradientNoise(
        trace=from_error(trace, float(squares.std()) / n**0.5, n=n, cost=float(n)),
        top=largest,
        directions=pulled / pulled.norm(dim=1, keepdim=True).clamp_min(1e-300),
        share=float(largest.sum()) / trace if trace else 0.0,
    )
