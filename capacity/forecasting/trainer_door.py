"""Forecasts for a `transformers.Trainer`: what it would train, read off without changing it."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from capacity.networks.copies import copied, unwrapped
from capacity.recipe.config import Training
from capacity.tasks.task import LossFunction, Task
from capacity.tasks.tensors import named_tasks
from capacity.tasks.trainers import loss_of_trainer, task_of_trainer


class Planned(NamedTuple):
    """What a trainer is about to do.

    Attributes:
        model: A copy of its model, in training mode, as the trainer will train it.
        old: The old tasks.
        new: The new task.
        training: Its plan.
    """

    model: nn.Module
    old: list[Task]
    new: Task
    training: Training


def planned(
    trainer: Any,
    *,
    old: object,
    new: object = None,
    training: Training | None = None,
    loss: str | LossFunction | None = None,
) -> Planned:
    """Read a trainer.

    Args:
        trainer: The trainer; neither it nor its model is changed.
        old: Data sets of the old tasks by name, a list of them, or a single one; each is a data set
            as the trainer takes it, a pair (train, test) of such, or a `Task`.
        new: The new data; None takes the trainer's own `train_dataset`, and its `eval_dataset`
            where that is one data set, as the test split.
        training: The plan; None reads it off the trainer.
        loss: The loss; None finds out which loss of its logits the model computes.

    Returns:
        What it will do. A trainer whose data, loss or plan cannot be read is a ValueError.
    """
    module = copied(unwrapped(trainer.model))
    if loss is None:
        loss = loss_of_trainer(trainer, module.eval())
    if new is None:
        whole = trainer.eval_dataset
        single = whole is not None and not isinstance(whole, dict)
        new = (trainer.train_dataset, whole) if single else trainer.train_dataset
    return Planned(
        module.train(),
        [
            task_of_trainer(trainer, data, name=name, loss=loss)
            for name, data in named_tasks(old).items()
        ],
        task_of_trainer(trainer, new, name="new", loss=loss),
        Training.from_trainer(trainer) if training is None else training,
    )
