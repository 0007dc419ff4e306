"""A strategy's way through a sequence of tasks: what it remembers, from one to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from capacity.base.checks import one_of
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.from_recipe import from_training
from capacity.recipe import config
from capacity.recipe.config import Training
from capacity.strategies import REGISTRY
from capacity.strategies.contribution import Contribution
from capacity.strategies.step import StrategyStep
from capacity.strategies.strategy import Strategy
from capacity.strategies.terms import HERE, Source
from capacity.tasks.task import Task
from capacity.training.data_order import DataOrder
from capacity.training.steps import Watcher
from capacity.training.train import Phase, train


def from_options(options: config.Strategy) -> Strategy:
    """Give the strategy that a recipe asks for: its options are it, where its name leads to it.

    Args:
        options: The recipe's `training.strategy`.

    Returns:
        The strategy.
    """
    one_of("training.strategy.name", options.name, REGISTRY.names())
    assert isinstance(options, Strategy)
    return options


def metric_misses(options: config.Strategy, tasks: Sequence[Task], training: Training) -> bool:
    """Say whether steps are in a metric of the new task's outputs where others have a say in them.

    Along what moves those alone the metric is its damping, and a step lr/damping times theirs.

    Args:
        options: The strategy.
        tasks: The tasks, old and new.
        training: How each of them is learned.

    Returns:
        Whether a strategy follows old outputs, these are others, and the optimizer has a metric.
    """
    if len({task.outputs for task in tasks}) < 2 or not options.reads_old_outputs:
        return False
    return from_training(training).unclipped.conditions


class Mitigation:
    """Carries a strategy through a sequence of tasks, for R replicas.

    Args:
        options: The recipe's `training.strategy`.
        model: The network. A strategy that cannot work with it is a ValueError here.
        source: Names the strategy's random streams.
    """

    def __init__(self, options: config.Strategy, model: FlatModel, source: Source = HERE) -> None:
        self.strategy = from_options(options)
        self._model, self._source = model, source
        self._state: Any = None
        self._old: tuple[Task, ...] = ()
        self._watched: Watcher | None = None
        self.strategy.check(model)

    def check(self, tasks: Sequence[Task], training: Training) -> None:
        """Refuse tasks that the strategy cannot work with, by a ValueError.

        Args:
            tasks: Tasks that are to be learned.
            training: How each of them is.

        Raises:
            ValueError: Also if it turns steps whose ends are looked for.
        """
        for task in tasks:
            self.strategy.check_task(task)
        self._check_metric(tasks, training)
        implicit = training.belief and training.belief.implicit
        if implicit and self.strategy.turns_steps:
            raise ValueError(
                f"training.belief.implicit = {implicit} looks for steps that strategy "
                f"{self.strategy.name!r} would turn elsewhere; take a strategy that changes the "
                "loss, as 'ewc', 'replay' or 'vcl', or leave implicit out"
            )

    def _check_metric(self, tasks: Sequence[Task], training: Training) -> None:
        if metric_misses(self.strategy, tasks, training):
            raise ValueError(
                f"training.optimizer = {training.optimizer!r} steps in a metric of the outputs of "
                f"the new task, and strategy {self.strategy.name!r} also follows those of old "
                "tasks, which have heads of their own here; take 'ewc' or another penalty, one "
                "head for all tasks (tasks.heads: false), or another optimizer"
            )

    def plan(self, new: Task, training: Training) -> Contribution:
        """Say what the strategy adds to learning the next task; nothing at the first.

        Args:
            new: The next task.
            training: Its plan.

        Returns:
            The contribution.
        """
        self.strategy.check_task(new)
        self._check_metric((*self._old, new), training)
        if not self._old:
            return Contribution(training=training)
        return self.strategy.contribution(
            self._model, self._old, new, training, self._state, self._source
        )

    def observers(self) -> list[Watcher]:
        """Open what must see the steps of the next task.

        Returns:
            At most one observer.
        """
        self._watched = self.strategy.watch(self._state)
        return [] if self._watched is None else [self._watched]

    def learn(self, theta: Tensor, new: Task, training: Training, order: DataOrder) -> Phase:
        """Train the next task as the strategy has it, and remember it.

        Args:
            theta: Parameters (R, P) before it.
            new: The next task.
            training: Its plan.
            order: Which samples its steps see; the epochs are those of the strategy's plan.

        Returns:
            The phase; one that diverged is not remembered.
        """
        plan = self.plan(new, training)
        step = None if plan.plain else StrategyStep(self._model, new, plan, len(theta))
        phase = train(
            self._model,
            theta,
            new,
            plan.training,
            order.under(plan.training),
            observers=self.observers(),
            strategy=step,
        )
        if phase.diverged is None:
            self.learned(new, phase.theta)
        return phase

    def learned(self, task: Task, theta: Tensor) -> None:
        """Remember a task that was just learned.

        Args:
            task: The task.
            theta: Parameters (R, P) after it.
        """
        self.strategy.check_task(task)
        self._old = (*self._old, task)
        self._state = self.strategy.prepare(
            self._model, theta, self._old, self._state, self._source, self._watched
        )
