"""Curvature of a task as operators on rows: Hessian and generalised Gauss-Newton (GGN, Fisher)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, vmap

from capacity.curvature.lanczos import Operator
from capacity.differential import pullback, pushforward
from capacity.dynamics.flat import FlatModel
from capacity.tasks.task import Split, Task
from capacity.transport.hessian_products import HessianProducts

_CHUNK = 128


def hessian(
    model: FlatModel, task: Task, theta: Tensor, split: Split, *, chunk: int = _CHUNK
) -> Operator:
    """Hessian of a task's mean loss over a split.

    Args:
        model: The network.
        task: The task, for its loss.
        theta: Where (P,).
        split: The samples.
        chunk: Samples per product.

    Returns:
        V (K, P) -> H V (K, P).
    """
    products = HessianProducts(model.loss(task))

    def apply(rows: Tensor) -> Tensor:
        return _mean(split, chunk, lambda x, y: products(theta, x, y, rows))

    return apply


def ggn(
    model: FlatModel, task: Task, theta: Tensor, split: Split, *, chunk: int = _CHUNK
) -> Operator:
    """Generalised Gauss-Newton matrix Phi' H_out Phi of a task's mean loss over a split.

    Phi = d outputs / d theta and H_out the Hessian of the loss in the outputs. For cross-entropy it
    is the Fisher information matrix; it is positive semi-definite for every convex loss.

    Args:
        model: The network.
        task: The task, for its loss.
        theta: Where (P,).
        split: The samples.
        chunk: Samples per product.

    Returns:
        V (K, P) -> G V (K, P).
    """

    def on_batch(x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        outputs, pull = pullback(lambda t: model.outputs(t, x), theta)
        pull_loss = grad(task.loss_of)

        def one(row: Tensor) -> Tensor:
            moved = pushforward(lambda t: model.outputs(t, x), (theta,), (row,))[1]
            return pull(pushforward(lambda f: pull_loss(f, y), (outputs,), (moved,))[1])[0]

        return vmap(one)(rows)

    @torch.no_grad()
    def apply(rows: Tensor) -> Tensor:
        return _mean(split, chunk, lambda x, y: on_batch(x, y, rows))

    return apply


def _mean(split: Split, chunk: int, product: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Average per-chunk means, each weighted by its samples."""
    total: Tensor | None = None
    for x, y in zip(split.x.split(chunk), split.y.split(chunk), strict=True):
        part = product(x, y) * (len(x) / len(split))
        total = part if total is None else total + part
    assert total is not None
    return total
