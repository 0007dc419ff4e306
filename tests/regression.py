"""Linear regressions learned in turn, whose forgetting is known (theory.md#closed-forms)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from capacity.forecasting.kernel_flow import integrate
from capacity.networks.flat_model import FlatModel
from capacity.products.feature_rows import features
from capacity.products.output_sketches import every_output
from capacity.products.output_space import task_outputs
from capacity.tasks.task import Split, Task
from quadratics import linear


def regression_task(name: str, x: Tensor, y: Tensor) -> Task:
    """A task of the half squared error: rows x (n, p), targets y (n,)."""
    split = Split(x, y[:, None])
    return Task(name=name, train=split, test=split, loss="mse")


def plane_task(angle: float, size: int) -> Task:
    """One sample: a unit vector at an angle to the first axis, with target 1."""
    x = torch.zeros(1, size)
    x[0, 0], x[0, 1] = math.cos(angle), math.sin(angle)
    return regression_task(f"{angle:.2f}", x, torch.ones(1))


def converge(w: Tensor, task: Task, *, tolerance: float = 1e-7) -> Tensor:
    """Learn a task to convergence by the kernel flow of the model w'x.

    The fixed point does not hang on the tolerance; a loose one stays about that far from it.
    """
    model, x = FlatModel(linear(len(w))), task.train.x
    rows = features(model, w, task, x, every_output(len(x), 1, w))
    kernel = rows.gram(rows)
    # Ten times the slowest mode's time, at most e^-20 of its residual left.
    slowest = float(torch.linalg.eigvalsh(kernel)[0]) / len(x)
    f = task_outputs(model, w, task, x)
    flow = integrate(kernel, task, f, task.train.y, [20 / slowest], tolerance=tolerance)[0]
    return w + rows.adjoint(flow.dual.T)[0] / len(x)


def gaussian_features_error(solutions: Tensor, i: int, *, n: int, noise: float) -> float:
    """E |w_t - w_i*|^2 of minimum-norm learning from 0, n samples of p Gaussian features a task.

    r^t |w_i*|^2 + (1 - r) sum_j r^{t-j} |w_j* - w_i*|^2 + p s^2 (1 - r^t)/(p - n - 1), r = 1 - n/p.
    """
    t, p = solutions.shape
    r = 1 - n / p
    apart = (solutions - solutions[i]).square().sum(1)
    weights = torch.tensor([r ** (t - j) for j in range(1, t + 1)])
    return float(
        r**t * solutions[i].square().sum()
        + (1 - r) * (weights * apart).sum()
        + p * noise**2 * (1 - r**t) / (p - n - 1)
    )
