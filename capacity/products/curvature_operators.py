"""Curvature of a task as operators on rows: Hessian and generalised Gauss-Newton (GGN, Fisher)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from torch import Tensor
from torch.func import grad

from capacity.krylov.lanczos import Operator
from capacity.networks.flat_model import FlatModel
from capacity.products.gauss_newton import GaussNewtonProducts
from capacity.products.hessian_products import HessianProducts
from capacity.tasks.losses import FittedLoss, additive
from capacity.tasks.task import Split, Task

_CHUNK = 512
_KEPT = 1 << 17
"""Parameters, together, of the products that a network keeps: each has buffers for its tangents."""


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
    own = additive(task, split)
    products = hessian_products(model, own) if own is task else HessianProducts(model.loss(own))
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
    own = additive(task, split)

    def make() -> GaussNewtonProducts:
        return GaussNewtonProducts(model.outputs, own.loss_of)

    products = _shared(model, own, GaussNewtonProducts, make) if own is task else make()
    return lambda rows: mean_over(split, chunk, lambda x, y: products(theta, x, y, rows))


def hessian_products(model: FlatModel, task: Task) -> HessianProducts:
    """Give the Hessian products of a task's loss, one and the same for tasks with one loss.

    Args:
        model: The network.
        task: The task, for its loss of a batch as it is trained with.

    Returns:
        The products; on the CPU for the calling thread alone.
    """
    return _shared(model, task, HessianProducts, lambda: HessianProducts(model.loss(task)))


_Kept = TypeVar("_Kept", bound=HessianProducts)


def _shared(model: FlatModel, task: Task, kind: type[_Kept], make: Callable[[], _Kept]) -> _Kept:
    """Share traced graphs among tasks with one loss: tracing costs more than small products do."""
    # They belong to the network and go with it; they hold the task, so no other loss has its id.
    loss: object = task.loss if isinstance(task.loss, str) else id(task.loss)
    if isinstance(task.loss, FittedLoss) and not task.loss.weighted:
        loss = id(task.loss.function), task.loss.dtype, task.loss.shape
    # Those of one thread share buffers.
    key = (kind, loss, task.outputs, model.table, model.plain_kernels, threading.get_ident())
    kept: _Kept = model.traced.pop(key, None) or make()
    model.traced[key] = kept  # the latest last
    while len(model.traced) > max(1, _KEPT // model.size):
        del model.traced[next(iter(model.traced))]
    return kept


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
