"""Curvature of a task as operators on rows: Hessian and generalised Gauss-Newton (GGN, Fisher)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.func import grad

from capacity.curvature.gauss_newton import GaussNewtonProducts
from capacity.curvature.lanczos import Operator
from capacity.dynamics.flat import FlatModel
from capacity.tasks.losses import additive
from capacity.tasks.task import Split, Task
from capacity.transport.hessian_products import HessianProducts

_CHUNK = 512


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
    products = HessianProducts(model.loss(additive(task, split)))
    return lambda rows: mean_over(split, chunk, lambda x, y: products(theta, x, y, rows))


def ggn(
    model: FlatModel, task: Task, theta: Tensor, split: Split, *, chunk: int = _CHUNK
) -> Operator:
    """Generalised Gauss-Newton matrix Phi' H_out Phi of a task's mean loss over a split.

    Phi = d outputs / d theta and H_out the Hessian of the loss in the outputs. For cross-entropy it
    is the Fisher information matrix; it is positive semi-definite for every convex loss. A product
    with K vectors costs less than K gradients (`benchmarks/compatibility/dense_check.py`).

    Args:
        model: The network.
        task: The task, for its loss.
        theta: Where (P,).
        split: The samples.
        chunk: Samples per product.

    Returns:
        V (K, P) -> G V (K, P).
    """
    products = GaussNewtonProducts(model.outputs, additive(task, split).loss_of)
    return lambda rows: mean_over(split, chunk, lambda x, y: products(theta, x, y, rows))


def loss_gradient(
    model: FlatModel, task: Task, theta: Tensor, split: Split, *, chunk: int = _CHUNK
) -> Tensor:
    """Gradient of a task's mean loss over a split.

    Args:
        model: The network.
        task: The task, for its loss.
        theta: Where (P,).
        split: The samples.
        chunk: Samples per gradient.

    Returns:
        The gradient (P,).
    """
    slope = grad(model.loss(additive(task, split)))
    return mean_over(split, chunk, lambda x, y: slope(theta, x, y))


def mean_over(split: Split, chunk: int, of_batch: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Average what batches give, each weighted by its samples.

    Args:
        split: The samples.
        chunk: Samples per batch.
        of_batch: (x, y) -> a mean over the batch, a new tensor at each call.

    Returns:
        The mean over the split.
    """
    total: Tensor | None = None
    for x, y in zip(split.x.split(chunk), split.y.split(chunk), strict=True):
        part = of_batch(x, y)
        part = part if len(x) == len(split) else part * (len(x) / len(split))
        total = part if total is None else total + part
    assert total is not None
    return total
