"""What is learned in a forecast, and what its steps and readings cost in operations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from capacity.forecasting.budget import Prices, moving, operations
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.conditioner import conditioned
from capacity.optimizers.from_recipe import from_training
from capacity.optimizers.implicit import ImplicitTransport
from capacity.optimizers.optimizer import Optimizer, stated
from capacity.optimizers.update_map import UpdateMap
from capacity.strategies.contribution import Contribution
from capacity.strategies.replay import Replay
from capacity.strategies.step import StrategyStep
from capacity.tasks.losses import additive
from capacity.tasks.task import Task

_PROBES = (4, 16)
_PASSES_OF_TRAINING, _PASSES_OF_FORECAST = 6.0, 20.0
"""How often a step reads or writes every parameter beside the gradient's own work."""


@dataclass(frozen=True)
class Lesson:
    """What is learned, and which of the plan's networks learns it.

    Attributes:
        model: The network.
        new: The task that is learned.
        plan: How, with what a strategy adds.
        replica: Which of the plan's networks this is.
        replicas: How many it has.
    """

    model: FlatModel
    new: Task
    plan: Contribution
    replica: int = 0
    replicas: int = 1

    def step(self, batch: int) -> StrategyStep:
        """Make steps of so many samples of the new task.

        Args:
            batch: The samples.

        Returns:
            The steps.
        """
        plan, new = _narrowed(self.plan, self.new, batch), self.new
        if batch < min(self.plan.training.samples_per_step, len(new.train)):
            # The weights of a few samples cancel where those of a whole batch do not.
            new = additive(new, new.train)
        return StrategyStep(self.model, new, plan, self.replicas)

    def bound(self, update: UpdateMap) -> Optimizer:
        """Let an update map read what its conditioner needs.

        Args:
            update: The update map.

        Returns:
            It, on this network and task.
        """
        model = self.model
        return stated(update).bound(model.outputs, self.new, modes=model.two_modes)

    def draw(self, step: StrategyStep, index: Tensor) -> tuple[Tensor, Tensor]:
        """Complete a batch.

        Args:
            step: Whose.
            index: Rows of the new task's training split (b,).

        Returns:
            Inputs and rows of this network.
        """
        x, _, rows = step.draw(index.expand(self.replicas, -1))
        return x[self.replica], rows[self.replica]


def _narrowed(plan: Contribution, new: Task, batch: int) -> Contribution:
    """Draw from a memory in the proportion of the batches."""
    share = batch / min(plan.training.samples_per_step, len(new.train))

    def less(memory: Replay | None) -> Replay | None:
        if memory is None:
            return None
        return replace(memory, batch=min(max(1, round(memory.batch * share)), memory.size))

    return replace(plan, replay=less(plan.replay), reference=less(plan.reference))


def price_of_training(lesson: Lesson, theta: Tensor) -> tuple[float, float]:
    """Count a planned training.

    Args:
        lesson: What is learned.
        theta: Parameters (P,).

    Returns:
        Its operations, and what counting them took.
    """
    training, samples = lesson.plan.training, len(lesson.new.train)
    size = min(training.samples_per_step, samples)
    one = _price_of_step(lesson, theta, from_training(training, layout=lesson.model.layout), size)
    # An epoch sees every sample once: its last batch may be smaller than the one counted.
    step = one + moving(lesson.model.size, _PASSES_OF_TRAINING)
    return max(step * training.seen(samples) / size, 1.0), one


def _price_of_step(lesson: Lesson, theta: Tensor, update: UpdateMap, size: int) -> float:
    step = lesson.step(size)
    own = step.optimiser_of(lesson.bound(update), lesson.replica)
    conditioner = stated(own).conditioner
    x, rows = lesson.draw(step, torch.arange(size, device=theta.device))

    def take() -> None:
        with lesson.model.training(0):
            gradient, _ = step.gradient_of(lesson.replica, theta, x, rows)
            if isinstance(own, ImplicitTransport):
                gradient, _ = own.solved(
                    lambda end: step.gradient_of(lesson.replica, end, x, rows)[0],
                    theta, gradient, lesson.plan.training.lr,
                )  # fmt: skip
        own.step(own.init(theta), conditioned(conditioner, theta, x, gradient), 0.0, 1)

    return operations(take)


def prices_of(lesson: Lesson, theta: Tensor, spent: float) -> Prices:
    """Price the parts of a compressed training by steps of two sizes.

    Args:
        lesson: What is learned.
        theta: Parameters (P,).
        spent: Operations that finding out took before.

    Returns:
        The prices.
    """
    model, new = lesson.model, lesson.new
    update = from_training(lesson.plan.training, layout=model.layout)
    few, many = (min(size, len(new.train)) for size in _PROBES)
    low, high = (_price_of_step(lesson, theta, update, n) for n in (few, many))
    sample = (high - low) / (many - few) if many > few else low / few
    forward = operations(lambda: model.outputs(theta, new.test.x[:few]))
    test = forward / min(few, len(new.test))
    # A curriculum runs the network on every sample before the first step.
    ranking = 0.0 if lesson.plan.training.curriculum is None else test * len(new.train)
    return Prices(
        step=max(low - sample * few, 0.0) + moving(model.size, _PASSES_OF_FORECAST),
        sample=sample,
        test=test,
        spent=spent + low + high + forward + ranking,
    )
