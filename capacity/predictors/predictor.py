"""What a predictor of forgetting is given, and what it returns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from capacity.base.random_streams import stream
from capacity.criterion.compatible_capacity import SquareMap
from capacity.criterion.preserving import Preserving
from capacity.forecasting.kernel_flow import learning_time
from capacity.krylov.lanczos import Operator
from capacity.networks.flat_model import FlatModel
from capacity.products.curvature_operators import hessian, loss_gradient
from capacity.recipe.config import Training
from capacity.records.estimate import Estimate, Status, from_samples, not_defined
from capacity.tasks.task import Task


class Pair(NamedTuple):
    """Forgetting that was measured on an earlier pair of tasks.

    Attributes:
        old: Name of the task that was forgotten.
        new: Name of the task that was learned.
        accuracy_drop: Accuracy before minus after.
        loss_increase: Loss after minus before.
    """

    old: str
    new: str
    accuracy_drop: float
    loss_increase: float


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Networks after the old tasks, the task to come and its plan.

    Attributes:
        model: The network.
        theta: Parameters of the replicas (R, P).
        old: The old tasks. Forgetting is that of their test splits.
        new: The new task, which learns from its training split.
        training: Its plan; a strategy in it is not seen by the predictors.
        samples: Most samples per task behind a kernel.
        seed: Seed of what predictors draw.
        history: Forgetting measured before, for B0.
        displacement: How far the last task moved theta, for R_A and m_B; None leaves them out.
        jacobian: J_t of the training so far, for R_A; None takes the identity.
        after: Parameters after the new task (R, P), for the post-hoc ceilings; None leaves them
            out.
    """

    model: FlatModel
    theta: Tensor
    old: tuple[Task, ...]
    new: Task
    training: Training
    samples: int = 100
    seed: int = 0
    history: tuple[Pair, ...] = ()
    displacement: float | None = None
    jacobian: SquareMap | None = None
    after: Tensor | None = None


class Cell:
    """One replica of a setting, with what several predictors share computed once.

    Attributes:
        moved: D (P,), once `kernels.displacement` has found it.
        preserving: P_A, once `controls` has found it.
    """

    def __init__(self, setting: Setting, replica: int) -> None:
        self.setting, self.replica = setting, replica
        self.model, self.new = setting.model, setting.new
        self.old, self.training = setting.old, setting.training
        self.theta = setting.theta[replica]
        self.moved: Tensor | None = None
        self.preserving: Preserving | None = None
        self._curvatures: dict[int, Operator] = {}

    @cached_property
    def time(self) -> float:
        """S, the sum of the learning rates; over 1 - mu for heavy ball, its continuous limit."""
        samples = len(self.new.train)
        time = learning_time(self.training, samples)
        return math.fsum(self.training.learning_rates(samples)) if time is None else time

    @cached_property
    def gradient(self) -> Tensor:
        """g_B: gradient of the new task's mean training loss (P,)."""
        return loss_gradient(self.model, self.new, self.theta, self.new.train)

    def old_gradient(self, task: Task) -> Tensor:
        """Give g_A, the gradient of an old task's mean test loss.

        Args:
            task: The old task.

        Returns:
            The gradient (P,).
        """
        return loss_gradient(self.model, task, self.theta, task.test)

    def bend(self, task: Task, moved: Tensor) -> float:
        """Give d' H_A d with the Hessian of an old task's mean test loss.

        Args:
            task: The old task.
            moved: d (P,).

        Returns:
            The number.
        """
        product = self.curvature(task)(moved[None])[0]
        return float(product.double() @ moved.double())

    def curvature(self, task: Task) -> Operator:
        """Give H_A as an operator.

        Args:
            task: The old task.

        Returns:
            V (K, P) -> H_A V (K, P).
        """
        found = self._curvatures.get(id(task))
        if found is None:
            found = hessian(self.model, task, self.theta, task.test)
            self._curvatures[id(task)] = found
        return found

    def generator(self, purpose: str) -> torch.Generator:
        """Open a random stream of this replica.

        Args:
            purpose: What it is for.

        Returns:
            A generator on theta's device.
        """
        path = ("predictors", purpose, self.replica)
        return stream(self.setting.seed, *path, device=self.theta.device)


class Value(NamedTuple):
    """What a predictor says of one old task and replica.

    Attributes:
        drop: Of accuracy, or an index that rises with it.
        rise: Of the loss, or an index that rises with it.
    """

    drop: float
    rise: float


Outcome = list[Value] | str
"""A value per old task, or why there is none."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a predictor says of one old task.

    Attributes:
        accuracy_drop: Forecast of the drop, or an index that should rise with it.
        loss_increase: Forecast of the rise, or an index that should rise with it.
        in_units: Which of the two are in the quantity's own unit. An index can be ranked; an error
            in its unit needs a line fitted on other cells.
    """

    accuracy_drop: Estimate
    loss_increase: Estimate
    in_units: frozenset[str]


def _none(_: Task) -> frozenset[str]:
    return frozenset()


def both(task: Task) -> frozenset[str]:
    """Accuracy and loss are in their units.

    Args:
        task: The old task.

    Returns:
        Both names.
    """
    del task
    return frozenset({"accuracy_drop", "loss_increase"})


def loss_alone(task: Task) -> frozenset[str]:
    """The loss is in its unit.

    Args:
        task: The old task.

    Returns:
        Its name.
    """
    del task
    return frozenset({"loss_increase"})


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """One predictor of forgetting.

    Attributes:
        name: Its key in the registry.
        code: Its number in theory.md#predictors, or empty.
        title: For people, in a few words.
        source: Where it comes from.
        of: The computation, for one replica.
        post_hoc: Whether it needs the network after the new task: a ceiling, no forecast.
        in_units: Says for an old task which of accuracy_drop and loss_increase have their unit.
        in_runs: Whether every run shows it beside its forecasts: it costs a gradient or two.
    """

    name: str
    code: str = ""
    title: str
    source: str
    of: Callable[[Cell], Outcome]
    post_hoc: bool = False
    in_units: Callable[[Task], frozenset[str]] = _none
    in_runs: bool = False

    def predict(self, cells: list[Cell]) -> tuple[Prediction, ...]:
        """Predict for every old task, over replicas.

        Args:
            cells: The replicas of one setting, at least one.

        Returns:
            A prediction per old task.
        """
        outcomes = [self.of(cell) for cell in cells]
        made = []
        for j, task in enumerate(cells[0].old):
            reasons = [said for said in outcomes if isinstance(said, str)]
            values = [said[j] for said in outcomes if not isinstance(said, str)]
            if reasons:
                drop = rise = not_defined(reasons[0])
            else:
                drop = self._over(values, "drop")
                rise = self._over(values, "rise")
            if not task.scored:
                drop = not_defined("Accuracy is not defined for regression; read the loss.")
            made.append(
                Prediction(accuracy_drop=drop, loss_increase=rise, in_units=self.in_units(task))
            )
        return tuple(made)

    @staticmethod
    def _over(values: list[Value], part: str) -> Estimate:
        return from_samples([getattr(v, part) for v in values], status=Status.UNCALIBRATED)


def same(number: float, cell: Cell) -> list[Value]:
    """Say one number of every old task, for accuracy and loss alike.

    Args:
        number: The index.
        cell: The replica.

    Returns:
        A value per old task.
    """
    return [Value(number, number) for _ in cell.old]
