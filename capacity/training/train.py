"""The training loop: R replicas of one network, moved together by one update map."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from capacity.base.interruption import check
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.conditioner import conditioned
from capacity.optimizers.from_recipe import from_training
from capacity.optimizers.implicit import ImplicitTransport
from capacity.optimizers.optimizer import stated
from capacity.optimizers.update_map import State, UpdateMap
from capacity.recipe.config import Training
from capacity.tasks.task import Task
from capacity.training.curriculum import ordered
from capacity.training.data_order import DataOrder
from capacity.training.gradients import gradients_of, mask_seed
from capacity.training.loop import Slope, steps
from capacity.training.steps import Batch, Observer


class MitigatedStep(Protocol):
    """Steps on a task with what a strategy adds to them."""

    def draw(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Complete a batch.

        Args:
            index: Rows of the new task (R, b).

        Returns:
            Inputs, targets and rows.
        """

    def gradients(
        self, theta: Tensor, x: Tensor, y: Tensor, masks: Callable[[int], int]
    ) -> tuple[Tensor, Tensor]:
        """Differentiate the loss of a batch.

        Args:
            theta: Parameters (R, P).
            x: Inputs of the batch.
            y: What `draw` gave with them.
            masks: Seed of each replica's random masks.

        Returns:
            Gradients (R, P) and losses (R,).
        """

    def update(self, update: UpdateMap) -> UpdateMap:
        """Let an update map step as the strategy has it.

        Args:
            update: The plan's update map.

        Returns:
            The map that is used.
        """


@dataclass(frozen=True, kw_only=True)
class Midway:
    """Where a training stood after one of its steps.

    Attributes:
        state: Optimiser state; tensors (R, P), theta first.
        steps: Steps taken.
        learning_time: The sum of their learning rates.
    """

    state: State
    steps: int
    learning_time: float


@dataclass(frozen=True)
class Divergence:
    """Where a training stopped being finite.

    Attributes:
        step: Step of the phase (from 1) whose loss, or whose result, was not finite.
        replicas: Indices of the replicas concerned.
    """

    step: int
    replicas: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """The outcome of learning one task.

    Attributes:
        theta: Parameters (R, P) at the end; where it diverged, before the step that did.
        steps: Steps taken.
        learning_time: T, the sum of the learning rates.
        diverged: Where it stopped being finite, or None.
    """

    theta: Tensor
    steps: int
    learning_time: float
    diverged: Divergence | None


def train(
    model: FlatModel,
    theta: Tensor,
    task: Task,
    training: Training,
    order: DataOrder,
    *,
    observers: Sequence[Observer] = (),
    on_epoch: Callable[[int, int, float, Tensor], None] | None = None,
    update: UpdateMap | None = None,
    strategy: MitigatedStep | None = None,
    begin: Midway | None = None,
) -> Phase:
    """Learn one task with every replica, from a fresh optimiser state.

    Observers see every step and cannot change it: a watched training is the same, bit for bit, as
    an unwatched one. A network that trains otherwise than it is evaluated takes its steps in
    training mode, with masks drawn from the order's seed, and its running statistics move along.

    Args:
        model: The network.
        theta: Parameters of the replicas (R, P) at the start.
        task: The task, on theta's device.
        training: Learning rates, epochs and batch size.
        order: Which samples each step of each replica sees.
        observers: Called after every step.
        on_epoch: Called after every epoch with (epoch from 1, steps so far, T so far, theta).
        update: Update map; None takes the one that `training` names, its noise named after `order`.
        strategy: What a strategy does to the steps on this task; None trains on the task alone.
        begin: Go on from here; the steps before are not taken again, and not seen. `on_epoch` is
            called first for the epoch that ends there, if one does.

    Returns:
        The phase. A non-finite loss ends it early, with `diverged` set.

    Raises:
        ValueError: If a belief is to be trained as a point, or a point as a belief.
    """
    if (training.belief is None) != (model.belief is None):
        raise ValueError(
            f"training.belief is {training.belief and training.belief.geometry!r}, and the model "
            f"is {'a point' if model.belief is None else 'a belief'}; train "
            "capacity.Belief(network) with a belief, and the network itself without"
        )
    order = ordered(order, model, theta, task, training)
    if update is None:
        update = from_training(training, seed=order.seed, path=order.path, layout=model.layout)
    update = stated(update).bound(model.outputs, task, modes=model.two_modes)
    if strategy is None:
        gradients, draw = gradients_of(model, task, training.batch_size), _drawing(task)
    else:
        gradients, draw, update = strategy.gradients, strategy.draw, strategy.update(update)
    own = stated(update)
    conditioner = own.conditioner
    rates = training.learning_rates(len(task.train))
    if begin is None:
        begin = Midway(state=update.init(theta), steps=0, learning_time=0.0)
    state, count, time = begin.state, begin.steps, begin.learning_time
    ahead, passed, taken = iter(rates[begin.steps :]), 0, begin.steps

    def slope_at(index: Tensor, step: int, theta: Tensor) -> Slope:
        x, y, rows = draw(index)
        masks = partial(mask_seed, order, step)
        gradient, loss = gradients(theta, x, y, masks)
        fed, residual = conditioned(conditioner, theta, x, gradient), None
        lr = next(ahead)
        if isinstance(own, ImplicitTransport):
            moved = {name: part.clone() for name, part in model.statistics().items()}
            fed, residual = own.solution(
                lambda point: gradients(point, x, y, masks)[0], theta, gradient, lr
            )
            model.restore(moved)  # a step moves running statistics once
        return Slope(gradient, loss, lr, Batch(x, y, rows), fed, residual)

    def slopes(batches: Iterable[Tensor]) -> Iterator[Callable[[Tensor], Slope]]:
        nonlocal passed, taken
        for index in batches:
            if passed == begin.steps:
                taken += 1
                yield partial(slope_at, index, taken)
                continue
            check()
            passed += 1
            if strategy is not None:
                draw(index)  # the memory's draws go on from step to step

    for epoch, batches in enumerate(order.epoch_batches(theta.device), start=1):
        for step in steps(update, state, slopes(batches), taken=count):
            # A finite theta has a finite norm in float64 only: sums of squares overflow earlier.
            finite = torch.isfinite(step.loss) & torch.isfinite(step.after[0]).all(-1)
            if model.belief is not None:  # a width of 0 is a point, of which there is no way back
                finite &= (step.after[0].chunk(2, dim=-1)[0] > 0).all(-1)
            if not bool(finite.all()):
                lost = tuple(torch.nonzero(~finite).flatten().tolist())
                return Phase(
                    theta=step.before[0],
                    steps=count,
                    learning_time=time,
                    diverged=Divergence(step.count, lost),
                )
            count, time, state = step.count, time + step.lr, step.after
            for observer in observers:
                observer.observe(step)
        if on_epoch is not None and passed == begin.steps:
            on_epoch(epoch, count, time, state[0])
    return Phase(theta=state[0], steps=count, learning_time=time, diverged=None)


def _drawing(task: Task) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Look batches up in the task's training split."""
    x_all, y_all = task.train.x, task.train.y
    return lambda index: (x_all[index], y_all[index], index)
