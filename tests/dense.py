"""The slow, obvious truth: dense Jacobians and Hessians, for networks small enough to write out."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, hessian, jacfwd

from capacity.jacobian.trajectory import Trajectory
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.from_recipe import from_training
from capacity.optimizers.update_map import UpdateMap
from capacity.recipe.config import Training
from capacity.tasks.task import Split, Task
from capacity.training.data_order import DataOrder
from capacity.training.steps import Step
from capacity.training.train import train


@functools.cache
def _digits() -> tuple[Any, Any]:
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


def digits_task(labels: tuple[int, ...] = tuple(range(10)), count: int = 200) -> Task:
    pixels, targets = _digits()
    x = torch.tensor(pixels / 16, dtype=torch.get_default_dtype())
    y = torch.tensor(targets)
    keep = torch.isin(y, torch.tensor(labels)).nonzero().flatten()[:count]
    split = Split(x[keep], y[keep])
    return Task(name=str(labels), train=split, test=split)


def network(*widths: int) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


class Record:
    """An observer that keeps replica 0's trajectory."""

    def __init__(self, trajectory: Trajectory) -> None:
        self.trajectory = trajectory

    def observe(self, step: Step) -> None:
        state = tuple(part[0] for part in step.before)
        batch = step.batch
        self.trajectory.record(state, batch.x[0], batch.y[0], step.lr, index=batch.index[0])


def trained(
    model: FlatModel,
    task: Task,
    training: Training,
    *,
    seed: int = 0,
    update: UpdateMap | None = None,
    **options: int,
) -> Trajectory:
    """Train one replica from the module's parameters and return its trajectory."""
    update = from_training(training, layout=model.layout) if update is None else update
    data = task.train.x, task.train.y
    trajectory = Trajectory(model.loss(task), update, data=data, **options)
    order = DataOrder.planned(training, len(task.train), replicas=1, seed=seed)
    observers = [Record(trajectory)]
    start = model.initial()[None]
    train(model, start, task, training, order, observers=observers, update=update)
    return trajectory


def run_map(trajectory: Trajectory, theta: Tensor) -> Tensor:
    """The training map itself, re-run from another starting point."""
    state = trajectory.update.init(theta)
    for step in trajectory.forwards():
        gradient = grad(trajectory.loss)(state[0], step.x, step.y)
        state = trajectory.update.step(state, gradient, step.lr, step.count)
    return state[0]


def dense_jacobian(trajectory: Trajectory) -> Tensor:
    """d theta_t / d theta_0 by differentiating the whole loop, forward mode."""
    return jacfwd(lambda theta: run_map(trajectory, theta))(trajectory.like)


class MatrixMap:
    """A dense matrix with the products of a `TrainingJacobian`: fast, for long estimates."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.size = matrix, len(matrix)
        self.products = {"forward": 0, "adjoint": 0}

    @property
    def like(self) -> Tensor:
        return self.matrix[0]

    def forward(self, rows: Tensor) -> Tensor:
        self.products["forward"] += len(rows)
        return rows @ self.matrix.T

    def adjoint(self, rows: Tensor) -> Tensor:
        self.products["adjoint"] += len(rows)
        return rows @ self.matrix


def exact_log_volume(trajectory: Trajectory) -> float:
    """The sum of log|det(1 - lr H_k)| with dense Hessians."""
    total = 0.0
    for step in trajectory.forwards():
        h = hessian(trajectory.loss)(step.state[0], step.x, step.y)
        total += float(torch.linalg.slogdet(torch.eye(len(h)) - step.lr * h)[1])
    return total
