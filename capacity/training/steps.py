"""What is seen of a training step, and by whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from capacity.optimizers.update_map import State


@dataclass(frozen=True, slots=True)
class Batch:
    """What a step was taken on. Tensors are shared: never write to them.

    Attributes:
        x: Inputs (R, b, ...).
        y: Targets (R, b, ...); under a strategy the rows of its batch.
        index: Its rows in the training split (R, b), or in the strategy's data.
    """

    x: Tensor
    y: Tensor
    index: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What an observer sees of one training step. Tensors are shared: never write to them.

    Attributes:
        count: Steps taken in this phase, this one included.
        lr: Learning rate of the step.
        before: Optimiser state before the step; tensors (R, P), theta first.
        after: Optimiser state after it.
        gradient: Gradient of the batch loss at `before` (R, P).
        loss: Batch loss at `before` (R,).
        batch: What it was taken on; None where the loss has no data, or nobody looks at them.
        residual: Of an implicit step (R,); None where steps are explicit.
    """

    count: int
    lr: float
    before: State
    after: State
    gradient: Tensor
    loss: Tensor
    batch: Batch | None = None
    residual: Tensor | None = None

    @property
    def x(self) -> Tensor:
        """Inputs of the batch."""
        return self._seen.x

    @property
    def y(self) -> Tensor:
        """Targets of the batch."""
        return self._seen.y

    @property
    def index(self) -> Tensor | None:
        """Rows of the batch."""
        return self._seen.index

    @property
    def _seen(self) -> Batch:
        assert self.batch is not None, "this training has no data that an observer could see"
        return self.batch


class Observer(Protocol):
    """Something that watches training without touching it."""

    def observe(self, step: Step) -> None:
        """See one step.

        Args:
            step: The step, after it was taken.
        """


class Watcher(Observer, Protocol):
    """An observer that can be put away in the middle of a training, and taken out again."""

    def state(self) -> dict[str, Tensor]:
        """Give what `restore` needs to go on from here.

        Returns:
            Tensors by name, shared with the observer.
        """

    def restore(self, kept: dict[str, Tensor]) -> None:
        """Go on, bit for bit, where `state` was taken.

        Args:
            kept: What `state` gave, on the training's device; the observer is a new one.
        """
