"""What experiments on networks share: digits, replicas of one network, a watched training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.networks.models import build_model
from capacity.recipe.config import Model, TaskStream, Training
from capacity.tasks import build_tasks
from capacity.tasks.task import Split, Task
from capacity.thermo.path import PathCost, PathObserver
from capacity.training.data_order import DataOrder
from capacity.training.steps import Observer
from capacity.training.train import train

MLP = Model(hidden=(64,))


@dataclass(frozen=True)
class Trained:
    """A watched training.

    Attributes:
        theta: Where it ended (R, P).
        cost: Of the path; None where no replica stayed finite.
        loss: Training loss at the end (R,).
        accuracy: On the test split, at the end (R,); NaN for regression.
        diverged: Number of replicas that did not stay finite.
    """

    theta: Tensor
    cost: PathCost | None
    loss: Tensor
    accuracy: Tensor
    diverged: int


def digits(*, samples: int | None = None) -> Task:
    """All ten digits as one task, labels as classes."""
    stream = TaskStream(dataset="digits", experiences=1, samples=samples)
    return build_tasks(stream)[0]


def replicas(model: Model, task: Task, count: int, outputs: int = 10) -> tuple[FlatModel, Tensor]:
    """The network, and independent initialisations of it (R, P)."""
    shape = tuple(task.train.x.shape[1:])
    nets = [FlatModel(build_model(model, shape, outputs, seed)) for seed in range(count)]
    return nets[0], torch.stack([net.initial() for net in nets])


def watched(
    model: FlatModel,
    theta: Tensor,
    task: Task,
    training: Training,
    *,
    order: DataOrder | None = None,
    full: bool = False,
    observers: Sequence[Observer] = (),
) -> Trained:
    """Train every replica and keep the books; replicas that diverge are left out, and counted."""
    size = len(task.train)
    count = len(theta)
    if order is None:
        order = DataOrder(
            samples=size,
            batch_size=training.batch_size,
            epochs=training.epochs,
            replicas=count,
            seed=0,
        )
    path = PathObserver()
    phase = train(model, theta, task, training, order, observers=[path, *observers])
    before, after = (evaluate(model, t, task, task.train).loss for t in (theta, phase.theta))
    if phase.diverged is not None:
        return Trained(phase.theta, None, after, after * torch.nan, len(phase.diverged.replicas))
    return Trained(
        phase.theta,
        path.cost(before, after, plain=training.optimizer == "sgd", full=full),
        after,
        evaluate(model, phase.theta, task, task.test).accuracy,
        0,
    )


def one_hot_task(task: Task, classes: int = 10) -> Task:
    """The same task as a regression on one-hot targets, with the mean half squared error."""

    def targets(split: Split) -> Split:
        return Split(split.x, one_hot(split.y, classes).to(split.x.dtype))

    return Task(name=task.name, train=targets(task.train), test=targets(task.test), loss="mse")


def first_samples(task: Task, count: int) -> Task:
    """Keep a part of the training split, spread evenly over it."""
    return Task(name=task.name, train=task.train.first(count), test=task.test, loss=task.loss)
