"""Strategies that change the plan: not at all, frozen parameters, a lower rate, fewer epochs."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, Strict, model_validator

from capacity.base.checks import nearest
from capacity.recipe.strategy import PLAIN
from capacity.strategies.contribution import Contribution
from capacity.strategies.strategy import Price, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from capacity.networks.flat_model import FlatModel
    from capacity.recipe.config import Training
    from capacity.strategies.terms import Source
    from capacity.tasks.task import Task


class _Plan(Strategy):
    """Nothing is remembered."""

    def price(self, gradient: float, old: int, outputs: int) -> Price:
        """Nothing is remembered."""
        del gradient, old, outputs
        return Price()


class Naive(_Plan):
    """Plain training: nothing is done."""

    name = PLAIN
    title = "plain training"
    mitigates = False

    def contribution(
        self,
        model: FlatModel,
        old: tuple[Task, ...],
        new: Task,
        training: Training,
        state: Any,
        source: Source,
    ) -> Contribution:
        """Leave the plan as it is."""
        del model, old, new, state, source
        return Contribution(training=training)


class Freeze(_Plan):
    """Some parameters stay as they are from the second task on, whatever the optimiser does.

    Attributes:
        parameters: Names, or patterns of names as `fnmatch` has them.
    """

    name = "freeze"
    turns_steps = True
    parameters: Annotated[tuple[str, ...], Strict(False), Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _something_to_freeze(cls, options: dict[str, Any]) -> dict[str, Any]:
        if "parameters" not in options:
            raise ValueError(
                "name = 'freeze' needs the parameters to freeze, as parameters = ['1.*']"
            )
        return options

    def check(self, model: FlatModel) -> None:
        """Refuse patterns that fit nothing, or everything."""
        self.trainable(model)

    def trainable(self, model: FlatModel) -> Tensor:
        """Mark the parameters that still move.

        Args:
            model: The network.

        Returns:
            A mask (P,), boolean.

        Raises:
            ValueError: If a pattern fits no parameter, or all parameters are frozen.
        """
        import torch

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


class LowerRate(_Plan):
    """The learning rate of every task but the first is multiplied with a factor.

    Attributes:
        factor: The factor.
    """

    name = "lower_lr"
    title = "lower learning rate"
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1

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


class FewerEpochs(_Plan):
    """The epochs of every task but the first are multiplied with a factor, at least one.

    Attributes:
        factor: The factor.
    """

    name = "fewer_epochs"
    title = "fewer epochs"
    factor: Annotated[float, Field(gt=0, le=1)] = 0.2

    def steps_worth(self, batch: int, old: int) -> float:
        """Take a share of the steps."""
        del batch, old
        return self.factor

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
        return Contribution(training=training.shortened(self.factor))
