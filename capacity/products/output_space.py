"""A task's loss as a function of the network's outputs: residuals and the metric H_out.

Function space is where capacity is bounded by data, not by P (theory.md#function-space). At outputs
f the loss of a sample has the gradient -r, its residual, and the Hessian H_out, the metric that
says which changes of f the loss notices: r = onehot(y) - softmax(f) and H_out = diag(p) - p p' for
cross-entropy, r = y - f and H_out = 1 for the half squared error.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import grad
from torch.nn import functional

from capacity.base.differential import hessian, vmap
from capacity.networks.flat_model import FlatModel
from capacity.tasks.task import LossFunction, Task

_CHUNK = 1024


@torch.no_grad()
def task_outputs(model: FlatModel, theta: Tensor, task: Task, x: Tensor) -> Tensor:
    """Run the network on a task's inputs.

    Args:
        model: The network.
        theta: Parameters (P,).
        task: Says which outputs count.
        x: Inputs (n, ...).

    Returns:
        The task's outputs f (n, C), float64.
    """
    parts = [task.select(model.outputs(theta, part)) for part in x.split(_CHUNK)]
    return torch.cat(parts).double()


def loss_on_outputs(task: Task) -> LossFunction:
    """Give a task's loss as a function of the outputs that it reads.

    Args:
        task: The task.

    Returns:
        A function of (f (n, C), y (n, ...)) that returns the mean loss.
    """
    return task.loss_function


def residual(task: Task, f: Tensor, y: Tensor) -> Tensor:
    """Residual r = -d loss / d f of every sample.

    Args:
        task: The task.
        f: Its outputs (n, C).
        y: Targets (n, ...).

    Returns:
        r (n, C).
    """
    # A flow asks for this hundreds of times: the named losses spare the differentiation.
    if task.loss == "cross_entropy":
        # Over the first dimension softmax is several times faster where outputs are few.
        return functional.one_hot(y, f.shape[1]) - f.T.softmax(0).T
    if task.loss == "mse":
        return y.reshape(f.shape) - f
    return -len(f) * grad(loss_on_outputs(task))(f, y)


def metric(task: Task, f: Tensor, y: Tensor) -> Tensor:
    """Hessian H_out of every sample's loss in its outputs.

    Args:
        task: The task.
        f: Its outputs (n, C).
        y: Targets (n, ...).

    Returns:
        H_out (n, C, C).
    """
    if task.loss == "cross_entropy":
        p = f.softmax(-1)
        return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    if task.loss == "mse":
        return torch.eye(f.shape[1]).to(f).expand(len(f), -1, -1)
    loss = loss_on_outputs(task)
    return vmap(hessian(lambda one, target: loss(one[None], target[None])))(f, y)


def metric_root(task: Task, f: Tensor, y: Tensor) -> Tensor:
    """Square root S of the metric: S S' = H_out, negative curvature left out.

    Args:
        task: The task.
        f: Its outputs (n, C).
        y: Targets (n, ...).

    Returns:
        S (n, C, C).
    """
    values, vectors = torch.linalg.eigh(metric(task, f, y))
    return vectors * values.clamp(min=0).sqrt()[:, None, :]
