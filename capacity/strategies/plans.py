"""Strategies that change the plan: fewer trainable parameters, a lower rate, fewer epochs."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from capacity.base.checks import nearest
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from capacity.strategies.contribution import Contribution
from capacity.strategies.terms import Source
from capacity.tasks.task import Task
from capacity.training.steps import Observer, Watcher


@dataclass(frozen=True, kw_only=True)
class _Plan:
    def watch(self, state: Any) -> Watcher | None:
        """Nothing needs to see the steps."""
        del state
        return None

    def prepare(
        self,
        model: FlatModel,
        theta: Tensor,
        old: tuple[Task, ...],
        state: Any,
        source: Source,
        watched: Observer | None = None,
    ) -> None:
        """Nothing is remembered."""
        del model, theta, old, state, source, watched


@dataclass(frozen=True, kw_only=True)
class Freeze(_Plan):
    """Some parameters stay as they are from the second task on, whatever the optimiser does.

    Attributes:
        parameters: Names, or patterns of names as `fnmatch` has them.
    """

    parameters: tuple[str, ...]
    name: str = "freeze"

    def trainable(self, model: FlatModel) -> Tensor:
        """Mark the parameters that still move.

        Args:
            model: The network.

        Returns:
            A mask (P,), boolean.

        Raises:
            ValueError: If a pattern fits no parameter, or all parameters are frozen.
        """
        for pattern in self.parameters:
            if not any(fnmatchcase(name, pattern) for name in model.names):
                raise ValueError(
                    f"strategy.parameters = {list(self.parameters)}: no trainable parameter is "
                    f"called {pattern!r}{nearest(pattern, model.names)}; accepted: "
                    f"{', '.join(model.names)}, and patterns such as '0.*'"
                )
        parts = [
            torch.full((size,), not any(fnmatchcase(name, p) for p in self.parameters))
            for name, size in model.layout
        ]
        mask = torch.cat(parts)
        if not bool(mask.any()):
            raise ValueError(
                f"strategy.parameters = {list(self.parameters)} freezes every parameter; leave at "
                "least one to learn with"
            )
        return mask

    def contribution(
        self,
        model: FlatModel,
        old: tuple[Task, ...],
        new: Task,
        training: Training,
        state: Any,
        source: Source,
    ) -> Contribution:
        """Give the mask."""
        del old, state, source
        mask = self.trainable(model).to(new.train.x.device)
        return Contribution(training=training, trainable=mask)


@dataclass(frozen=True, kw_only=True)
class LowerRate(_Plan):
    """The learning rate of every task but the first is multiplied with a factor.

    Attributes:
        factor: The factor.
    """

    factor: float = 0.1
    name: str = "lower_lr"

    def contribution(
        self,
        model: FlatModel,
        old: tuple[Task, ...],
        new: Task,
        training: Training,
        state: Any,
        source: Source,
    ) -> Contribution:
        """Change the rate."""
        del model, old, new, state, source
        return Contribution(training=training.model_copy(update={"lr": training.lr * self.factor}))


@dataclass(frozen=True, kw_only=True)
class FewerEpochs(_Plan):
    """The epochs of every task but the first are multiplied with a factor, at least one.

    Attributes:
        factor: The factor.
    """

    factor: float = 0.2
    name: str = "fewer_epochs"

    def contribution(
        self,
        model: FlatModel,
        old: tuple[Task, ...],
        new: Task,
        training: Training,
        state: Any,
        source: Source,
    ) -> Contribution:
        """Change the number of epochs."""
        del model, old, new, state, source
        epochs = max(1, round(training.epochs * self.factor))
        return Contribution(training=training.model_copy(update={"epochs": epochs}))
