"""Steps under a strategy: the same pure functions train, and are differentiated for J_t."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value

from capacity.base.differential import slope_of, slopes_of, vmap
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.conditioner import Conditioner
from capacity.optimizers.implicit import ImplicitTransport
from capacity.optimizers.optimizer import Optimizer, stated
from capacity.optimizers.own_steps import BatchStep
from capacity.optimizers.update_map import Loss, State, UpdateMap
from capacity.strategies.contribution import Contribution, Curved, Projector
from capacity.strategies.projectors import without_conflict
from capacity.strategies.terms import Private, of_replica
from capacity.tasks.task import Task
from capacity.training.gradients import Masks, in_training_mode


@dataclass(frozen=True)
class Projected(Optimizer):
    """Another update map, fed with the gradient projected.

    Attributes:
        inner: The update map.
        projector: The projector.
        private: Its tensors: (R, ...) for states (R, P), one replica's for states (P,).
    """

    inner: UpdateMap
    projector: Projector
    private: Private

    @property
    def name(self) -> str:  # type: ignore[override]
        """The inner map's name, with what was added."""
        return f"{self.inner.name} on a projected gradient"

    def init(self, theta: Tensor) -> State:
        """Start as the inner map does."""
        return self.inner.init(theta)

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step."""
        apply = self.projector.apply if gradient.dim() == 1 else vmap(self.projector.apply)
        return self.inner.step(state, apply(gradient, self.private), lr, count)

    @property
    def conditioner(self) -> Conditioner | None:
        """The inner map's."""
        return stated(self.inner).conditioner


@dataclass(frozen=True)
class Masked(Optimizer):
    """Another update map that leaves some parameters where they are.

    Attributes:
        inner: The update map.
        trainable: Which parameters move (P,), boolean.
    """

    inner: UpdateMap
    trainable: Tensor

    @property
    def name(self) -> str:  # type: ignore[override]
        """The inner map's name, with what was added."""
        return f"{self.inner.name} with frozen parameters"

    def init(self, theta: Tensor) -> State:
        """Start as the inner map does."""
        return self.inner.init(theta)

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step."""
        # The gradient, for the moments and for clipping; theta, for weight decay and noise.
        kept = torch.where(self.trainable, gradient, torch.zeros_like(gradient))
        theta, *moments = self.inner.step(state, kept, lr, count)
        return (torch.where(self.trainable, theta, state[0]), *moments)

    @property
    def conditioner(self) -> Conditioner | None:
        """The inner map's."""
        return stated(self.inner).conditioner


class StrategyStep:
    """Steps on one new task under a strategy's contribution.

    A batch has b samples of the new task and m of the memory; its targets are row numbers: those of
    the new task's training split, and above them the slots of the memory (`replay`).

    Args:
        model: The network.
        task: The new task.
        contribution: What the strategy adds.
        replicas: R.
    """

    def __init__(
        self, model: FlatModel, task: Task, contribution: Contribution, replicas: int
    ) -> None:
        self.contribution = contribution
        self._model, self._task, self._replicas = model, task, replicas
        self._memory = contribution.replay or contribution.reference
        self._draws: Iterator[Tensor] | None = None
        parts = {
            "penalty": contribution.penalty,
            "distillation": contribution.distillation,
            "memory": self._memory,
        }
        self._private: dict[str, Private] = {
            name: part.private for name, part in parts.items() if part is not None
        }
        self._slope = slope_of if model.one_by_one else grad_and_value

    def draw(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Complete a batch of the new task by a memory batch.

        Args:
            index: Rows of the new task's training split (R, b).

        Returns:
            Inputs (R, b + m, ...), targets (R, b + m), and rows for `data`, which are the targets.
        """
        x = self._task.train.x[index]
        if self._memory is None:
            return x, index, index
        if self._draws is None:
            self._draws = self._memory.draws(self._replicas, index.device)
        slots = next(self._draws)
        rows = torch.cat([index, slots + len(self._task.train)], dim=1)
        return torch.cat([x, self._memory.gather(slots)], dim=1), rows, rows

    def gradients(
        self, theta: Tensor, x: Tensor, rows: Tensor, masks: Masks = lambda _: 0
    ) -> tuple[Tensor, Tensor]:
        """Give what the optimiser is fed with.

        Args:
            theta: Parameters (R, P).
            x: Inputs (R, b + m, ...).
            rows: Targets (R, b + m).
            masks: Seed of each replica's random masks, where the network draws any.

        Returns:
            Gradients (R, P), and the losses (R,) whose gradients they are, but for A-GEM.
        """
        if self._model.one_by_one:
            return in_training_mode(self._model, self.gradient_of, theta, x, rows, masks)
        known = isinstance(self._task.loss, str)
        each = partial(slopes_of, known=known)
        return self._direction(each, theta, x, rows, self._private)

    def gradient_of(
        self, replica: int, theta: Tensor, x: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Give what the optimiser of one replica is fed with.

        Args:
            replica: Which one.
            theta: Its parameters (P,).
            x: Inputs (b + m, ...).
            rows: Targets (b + m,).

        Returns:
            The gradient (P,), before any projector, and the loss.
        """
        return self._direction(self._slope, theta, x, rows, self._of(replica))

    def update(self, inner: UpdateMap) -> UpdateMap:
        """Put projector and mask in front of the optimiser, for all replicas together.

        Args:
            inner: The optimiser's update map.

        Returns:
            The update map of the step.
        """
        projector = self.contribution.projector
        return self._wrapped(
            self._held(inner, range(self._replicas)), {} if projector is None else projector.private
        )

    def loss_of(self, replica: int) -> Loss:
        """Give the loss that one replica differentiates.

        Args:
            replica: Which one.

        Returns:
            A pure function of (theta (P,), x (b + m, ...), rows (b + m,)).
        """
        private = self._of(replica)
        return lambda theta, x, rows: self._loss(theta, x, rows, private)

    def optimiser_of(self, inner: UpdateMap, replica: int) -> UpdateMap:
        """Put projector and mask in front of the optimiser of one replica.

        Args:
            inner: The optimiser's update map.
            replica: Which one.

        Returns:
            An update map, to be fed with `gradient_of`.
        """
        projector = self.contribution.projector
        return self._wrapped(
            self._held(inner, (replica,)),
            {} if projector is None else of_replica(projector.private, replica),
        )

    def update_of(
        self, inner: UpdateMap, replica: int, masks: Callable[[int], int] | None = None
    ) -> UpdateMap:
        """Give the step of one replica, for its Jacobian.

        Args:
            inner: The optimiser's update map.
            replica: Which one.
            masks: Gives the seed of a step's random masks where the network is in training mode;
                its batches then name their step behind their rows (`SeededLoss`).

        Returns:
            An update map; for A-GEM, whose step takes two gradients, a `BatchStep`.

        Raises:
            ValueError: If one gradient of A-GEM's two would have to be conditioned.
        """
        update = self.optimiser_of(inner, replica)
        if self.contribution.reference is None:
            return update
        if stated(update).conditioner is not None:
            raise ValueError(
                f"optimizer {inner.name!r} conditions one gradient, and this strategy makes a step "
                'of two, whose J_t is not known; take another, or Measure(level="forecast")'
            )
        private = self._of(replica)

        def whole(
            loss: Loss, state: State, x: Tensor, rows: Tensor, lr: float, count: int
        ) -> State:
            del loss  # the direction has it, beside the memory's
            if masks is None:
                direction, _ = self._direction(self._slope, state[0], x, rows, private)
                return update.step(state, direction, lr, count)
            with self._model.training(masks(count), moving=False):
                direction, _ = self._direction(grad_and_value, state[0], x, rows[:-1], private)
            return update.step(state, direction, lr, count)

        moments = len(update.init(torch.zeros(1))) - 1
        return BatchStep(whole, moments=moments, name=f"{inner.name} without conflict")

    def data_of(self, replica: int) -> tuple[Tensor, Tensor]:
        """Give what the rows of one replica lead to.

        Args:
            replica: Which one.

        Returns:
            Inputs (n + M, ...) and targets (n + M,), which are the row numbers.
        """
        x = self._task.train.x
        if self._memory is not None:
            x = torch.cat([x, self._memory.inputs[self._memory.private["row"][replica]]])
        return x, torch.arange(len(x), device=x.device)

    def _of(self, replica: int) -> dict[str, Private]:
        return {name: of_replica(part, replica) for name, part in self._private.items()}

    def _held(self, inner: UpdateMap, replicas: Iterable[int]) -> UpdateMap:
        """Put the curvature of the penalty into the metric that the optimiser steps in."""
        penalty, update = self.contribution.penalty, stated(inner)
        if penalty is None or not update.unclipped.conditions:
            return inner
        if not isinstance(penalty, Curved):
            raise ValueError(
                f"optimizer {update.name!r} steps in a metric that the penalty's curvature belongs "
                f"to, and {type(penalty).__name__} states none; give it a method "
                "second_derivative(private) as capacity.strategies.contribution.Curved describes "
                "it, or take another optimizer"
            )
        private = self._private["penalty"]
        return update.held([penalty.second_derivative(of_replica(private, r)) for r in replicas])

    def _wrapped(self, inner: UpdateMap, private: Private) -> UpdateMap:
        made = inner
        implicit = isinstance(stated(inner).unclipped, ImplicitTransport)
        if implicit and self.contribution.turns_steps:
            raise ValueError(
                f"optimizer {inner.name!r} looks for steps that this strategy turns elsewhere; "
                "state turns_steps = True in its class, and leave training.belief.implicit out"
            )
        if self.contribution.projector is not None:
            made = Projected(made, self.contribution.projector, private)
        if self.contribution.trainable is not None:
            made = Masked(made, self.contribution.trainable)
        return made

    def _outputs(self, point: Tensor, x: Tensor, private: dict[str, Private]) -> Tensor:
        """Run the network; a simulation runs its linearisation instead."""
        del private
        return self._model.outputs(point, x)

    def _theta(self, point: Tensor, private: dict[str, Private]) -> Tensor:
        """Give the parameters; a simulation moves their displacement instead."""
        del private
        return point

    def _direction(
        self,
        slope: Callable[..., Any],
        point: Tensor,
        x: Tensor,
        rows: Tensor,
        private: dict[str, Private],
    ) -> tuple[Tensor, Tensor]:
        """Differentiate at a point (P,), or at rows of points with `slopes_of`."""
        gradient, value = slope(self._loss)(point, x, rows, private)
        if self.contribution.reference is None:
            return gradient, value
        apart = without_conflict if point.dim() == 1 else vmap(without_conflict)
        return apart(gradient, slope(self._remembered)(point, x, rows, private)[0]), value

    def _remembered(
        self, point: Tensor, x: Tensor, rows: Tensor, private: dict[str, Private]
    ) -> Tensor:
        reference = self.contribution.reference
        assert reference is not None
        new = x.shape[0] - reference.batch
        slots = rows[new:] - len(self._task.train)

        def labels() -> Tensor:
            outputs = self._outputs(point, x[new:], private)
            return reference.labels(outputs, slots, private["memory"])

        return self._model.over_draws(labels)

    def _loss(self, point: Tensor, x: Tensor, rows: Tensor, private: dict[str, Private]) -> Tensor:
        added, task = self.contribution, self._task
        new = x.shape[0] - (0 if self._memory is None else self._memory.batch)
        both = x if added.replay is not None else x[:new]

        def of_outputs() -> Tensor:
            outputs = self._outputs(point, both, private)
            value = task.loss_of(outputs[:new], task.train.y[rows[:new]])
            if added.replay is not None:
                slots = rows[new:] - len(task.train)
                value = added.replay.combine(value, outputs[new:], slots, private["memory"])
            if added.distillation is not None:
                part = added.distillation.value(outputs[:new], x[:new], private["distillation"])
                value = value + part
            return value

        value = self._model.over_draws(of_outputs)
        if added.penalty is not None:
            held = added.penalty.value(self._theta(point, private), private["penalty"])
            value = value + held
        return value
