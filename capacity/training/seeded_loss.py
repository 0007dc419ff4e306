"""Steps in training mode as pure functions: random masks and batch statistics belong to the batch.

A layer like dropout draws, and one like batch norm looks at the whole batch and moves running
statistics. Given the seed of the draw, both are functions of theta and the batch alone: the masks
are drawn again from the seed, the same in the primal, the tangent and the adjoint, and the
statistics, which the step does not read, stay where they are. A batch so names its rows and, behind
them, its step, of which the seed is a function.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from capacity.networks.flat_model import FlatModel
from capacity.products.hessian_products import DRAWN, HessianProducts
from capacity.tasks.task import Task

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(theta (P,), x (b, ...), rows (b,)) to a scalar."""


class SeededLoss:
    """The loss of a batch in training mode, a pure function of (theta, x, rows and step).

    Args:
        loss: The loss of a batch, whose targets are row numbers.
        model: The network.
        masks: Gives the seed of a step's random masks.
        batch: Samples that the network sees together; the loss of several such batches is the mean
            over their samples. None shows it all of them.
    """

    def __init__(
        self, loss: Loss, model: FlatModel, masks: Callable[[int], int], batch: int | None = None
    ) -> None:
        self._loss, self._model, self._masks, self._batch = loss, model, masks, batch

    def __call__(self, theta: Tensor, x: Tensor, marked: Tensor) -> Tensor:
        """Evaluate the loss.

        Args:
            theta: Parameters (P,).
            x: Inputs (b, ...).
            marked: Row numbers, and behind them the number of the step (b + 1,).

        Returns:
            A scalar.
        """
        rows, size = marked[:-1], self._batch or len(x)
        with self._model.training(self._masks(int(marked[-1])), moving=False):
            parts = [
                self._loss(theta, some, own) * (len(own) / len(rows))
                for some, own in zip(x.split(size), rows.split(size), strict=True)
            ]
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum()

    def products(self) -> HessianProducts:
        """Give its Hessian products.

        Returns:
            The products; untraced, since a trace would keep the masks of one step.
        """
        return HessianProducts(self, untraced=DRAWN)


def by_rows(model: FlatModel, task: Task) -> Loss:
    """Let a task's loss look its targets up.

    Args:
        model: The network.
        task: The task.

    Returns:
        The loss of a batch, whose targets are rows of the training split.
    """
    loss = model.loss(task)
    return lambda theta, x, rows: loss(theta, x, task.train.y[rows])


def marked(rows: Tensor, step: int) -> Tensor:
    """Name a batch.

    Args:
        rows: Its rows (b,).
        step: The number of its step.

    Returns:
        Rows and step (b + 1,).
    """
    return torch.cat([rows, rows.new_tensor([step])])


def lookup(x: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Look named batches up.

    Args:
        x: Inputs that the rows lead to (n, ...).

    Returns:
        A function of a batch's name that gives its inputs, and the name.
    """
    return lambda name: (x[name[:-1]], name)
