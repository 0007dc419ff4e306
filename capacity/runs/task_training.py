"""One task's training in a run: watched, kept every few minutes, and taken up again after a kill.

A trajectory is not written to disk: it would take P numbers per step. After a kill its steps are
taken again without measuring, a small part of what measuring them costs, and must end in the very
parameters that were kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from capacity.base.random_streams import stream
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.from_recipe import from_training
from capacity.optimizers.optimizer import stated
from capacity.optimizers.update_map import State
from capacity.recipe.config import Recipe
from capacity.runs.journal import Entry, Journal
from capacity.runs.observe import PhaseTransport
from capacity.runs.verdicts_along import Along, moments_of
from capacity.strategies.contribution import Contribution
from capacity.strategies.step import StrategyStep
from capacity.tasks.task import Task
from capacity.thermo.path import PathObserver
from capacity.training.data_order import DataOrder
from capacity.training.gradients import mask_seed
from capacity.training.steps import Observer, Step, Watcher
from capacity.training.train import Midway, Phase, train

Rows = list[dict[str, Any]]
"""Rows of metrics.jsonl."""

OnEpoch = Callable[[int, int, float, Tensor], None]
"""Called after an epoch with its number, the steps and the learning time so far, and theta."""


class NotRepeatedError(ValueError):
    """A training that was taken again did not lead where it had led."""


class Lesson:
    """The training of every replica on one task, with what watches it.

    Attributes:
        update: The update map of the recipe's optimiser.
        strategy: What a strategy does to the steps; None where nothing.
        path: Sums up the path's cost.
        transport: Follows J_t of replica 0; None where it is not measured.
        rows: The task's rows of metrics.jsonl so far.
    """

    def __init__(
        self,
        number: int,
        model: FlatModel,
        task: Task,
        plan: Contribution,
        order: DataOrder,
        theta: Tensor,
        *,
        recipe: Recipe,
        journal: Journal,
        watchers: dict[str, Watcher],
        checkpoint_minutes: float,
    ) -> None:
        self._number, self._model, self._task, self._plan = number, model, task, plan
        self._order, self._theta, self._journal = order, theta, journal
        self._every = 60 * checkpoint_minutes
        self.update = from_training(
            plan.training, seed=order.seed, path=order.path, layout=model.layout
        ).bound(model.outputs, task, modes=model.two_modes)
        self.strategy = None if plan.plain else StrategyStep(model, task, plan, recipe.replicas)
        self.path = PathObserver(stated(self.update), steepest=not plan.turns_steps)
        self.transport: PhaseTransport | None = None
        self._watchers: dict[str, Watcher] = {"path": self.path, **watchers}
        if recipe.measure.transport:
            self.transport = PhaseTransport(
                model,
                task,
                self.update,
                recipe.measure,
                stream(recipe.seed, "tangents", number, device=theta.device),
                self.strategy,
                lambda step: mask_seed(order, step, 0),
                plan.training.batch_size if self.strategy is None else None,
            )
            self._watchers["transport"] = self.transport
        self.rows: Rows = []

    @property
    def epochs_done(self) -> int | None:
        """Epochs that were finished before a kill; None where the training had not begun."""
        inside = self._journal.record(self._stage("inside"))
        return None if inside is None else int(inside["rows"][-1]["epoch"])

    def learn(self, along: Along, on_epoch: OnEpoch) -> Phase:
        """Train, from the start or from where a kill left the training.

        Args:
            along: Keeps moments of the training.
            on_epoch: Called after every epoch that was not finished before a kill; it appends the
                epoch's row to `rows`.

        Returns:
            The phase.
        """
        inside = self._journal.get(self._stage("inside"))
        keeper = _Keeper(self._every, lambda midway: self._keep(midway, along))
        if inside is None:
            return self._train([*self._watchers.values(), keeper], on_epoch)
        first = {name: t.clone() for name, t in self._model.statistics().items()}
        midway = self._restore(inside, along)
        if self.transport is None:
            keeper.time = midway.learning_time
            return self._train([*self._watchers.values(), keeper], on_epoch, midway)
        # The trajectory has to be walked again, and whatever is not the trajectory looks away.
        self._model.restore(first)
        arrival = _Arrival(midway, self._said())
        observers: list[Observer] = [self.transport, arrival]
        others: list[Observer] = [w for w in self._watchers.values() if w is not self.transport]
        observers += [_After(midway.steps, w) for w in [*others, keeper]]
        keeper.time = midway.learning_time

        def rest(epoch: int, steps: int, learned: float, theta: Tensor) -> None:
            if steps >= midway.steps:
                on_epoch(epoch, steps, learned, theta)

        return self._train(observers, rest)

    def put_away(self) -> None:
        """Keep what the phase's spectrum takes beside the trajectory."""
        if self.transport is not None:
            self._journal.put(self._stage("tracker"), {}, _prefixed("transport", self.transport))

    def watched(self) -> dict[str, Tensor]:
        """Give what the strategy's watcher saw, for `recall`.

        Returns:
            Tensors by name.
        """
        strategy = self._watchers.get("strategy")
        return {} if strategy is None else _prefixed("strategy", strategy)

    def statistics(self) -> dict[str, Tensor]:
        """Give the running statistics of the network, for `FlatModel.restore`.

        Returns:
            Copies by name; none where training moves none.
        """
        return {f"statistics.{key}": t.clone() for key, t in self._model.statistics().items()}

    def recall(self, learned: Entry, *, retrace: bool) -> None:
        """Take up a training that had ended.

        Args:
            learned: What was kept of it.
            retrace: Whether the trajectory is needed again.

        Raises:
            NotRepeatedError: If its steps lead elsewhere now.
        """
        device = self._theta.device
        if "strategy" in self._watchers:
            self._watchers["strategy"].restore(learned.part("strategy", device))
        if self.transport is None or not retrace:
            return
        tracker = self._journal.get(self._stage("tracker"))
        if tracker is None:
            self.transport.retrace_all()
        else:
            self.transport.restore(tracker.part("transport", device))
        phase = self._train([self.transport])
        if not torch.equal(phase.theta, learned.tensors["theta"].to(device)):
            raise NotRepeatedError(self._said())

    def forget(self, *names: str) -> None:
        """Drop records that nothing needs any more.

        Args:
            names: `inside` or `tracker`.
        """
        for name in names:
            self._journal.drop(self._stage(name))

    def _train(
        self, observers: list[Any], on_epoch: OnEpoch | None = None, begin: Midway | None = None
    ) -> Phase:
        return train(
            self._model,
            self._theta,
            self._task,
            self._plan.training,
            self._order,
            observers=observers,
            on_epoch=on_epoch,
            update=self.update,
            strategy=self.strategy,
            begin=begin,
        )

    def _keep(self, midway: Midway, along: Along) -> None:
        tensors = {f"state.{k}": part for k, part in enumerate(midway.state)}
        tensors |= along.tensors()
        tensors |= self.statistics()
        for name, watcher in self._watchers.items():
            tensors |= _prefixed(name, watcher)
        record = {
            "steps": midway.steps,
            "learning_time": midway.learning_time,
            "along": [moment.time for moment in along.moments],
            "rows": self.rows,
        }
        self._journal.put(self._stage("inside"), record, tensors)

    def _restore(self, inside: Entry, along: Along) -> Midway:
        device, record = self._theta.device, inside.record
        for name, watcher in self._watchers.items():
            watcher.restore(inside.part(name, device))
        self._model.restore(inside.part("statistics", device))
        self.rows = list(record["rows"])
        along.moments = moments_of(inside, device)
        state = inside.part("state", device)
        return Midway(
            state=tuple(state[str(k)] for k in range(len(state))),
            steps=record["steps"],
            learning_time=record["learning_time"],
        )

    def _stage(self, name: str) -> str:
        return f"task{self._number}.{name}"

    def _said(self) -> str:
        return (
            f"learning task {self._number} again did not lead to the parameters that were kept: "
            "this machine, its number of threads or its torch round otherwise; resume where the "
            "run began, or begin it anew in another directory"
        )


def _prefixed(name: str, watcher: Watcher) -> dict[str, Tensor]:
    return {f"{name}.{key}": tensor for key, tensor in watcher.state().items()}


class _Keeper:
    """Has the training kept every so often; stands behind all other observers."""

    def __init__(self, every: float, keep: Callable[[Midway], None]) -> None:
        self._every, self._keep = every, keep
        self._last = time.monotonic()
        self.time = 0.0

    def observe(self, step: Step) -> None:
        # The same sum in the same order as in the training loop.
        self.time += step.lr
        if time.monotonic() - self._last < self._every:
            return
        self._keep(Midway(state=step.after, steps=step.count, learning_time=self.time))
        self._last = time.monotonic()


class _After:
    """Lets another observer see only the steps after one."""

    def __init__(self, steps: int, observer: Observer) -> None:
        self._steps, self._observer = steps, observer

    def observe(self, step: Step) -> None:
        if step.count > self._steps:
            self._observer.observe(step)


class _Arrival:
    """Checks that the steps lead where they led before."""

    def __init__(self, midway: Midway, said: str) -> None:
        self._midway, self._said = midway, said

    def observe(self, step: Step) -> None:
        if step.count == self._midway.steps and not _equal(step.after, self._midway.state):
            raise NotRepeatedError(self._said)


def _equal(one: State, other: State) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
