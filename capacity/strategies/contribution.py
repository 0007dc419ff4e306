"""What a strategy adds to learning one new task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from capacity.optimizers.conditioner import Curvature
    from capacity.recipe.config import Training
    from capacity.strategies.replay import Replay
    from capacity.strategies.terms import Private


class Penalty(Protocol):
    """A function of theta that is added to the loss."""

    @property
    def private(self) -> Private:
        """What every replica has of its own (R, ...)."""

    def value(self, theta: Tensor, private: Private) -> Tensor:
        """Evaluate it for one replica.

        Args:
            theta: Parameters (P,).
            private: The replica's own tensors.

        Returns:
            A scalar in the loss's unit.
        """


@runtime_checkable
class Curved(Protocol):
    """A penalty whose second derivative is the same everywhere, and known."""

    def second_derivative(self, private: Private) -> Curvature:
        """Give it for one replica, which optimisers that step in a metric take into it.

        Args:
            private: The replica's own tensors.

        Returns:
            A symmetric matrix, at least 0.
        """


class Distillation(Protocol):
    """A function of the new task's inputs that is added to the loss."""

    @property
    def private(self) -> Private:
        """What every replica has of its own (R, ...)."""

    def value(self, outputs: Tensor, x: Tensor, private: Private) -> Tensor:
        """Evaluate it for one replica.

        Args:
            outputs: The network's outputs now (b, n_outputs).
            x: The inputs that led to them (b, ...).
            private: The replica's own tensors.

        Returns:
            A scalar in the loss's unit.
        """


class Projector(Protocol):
    """A symmetric idempotent map of the gradient that does not depend on theta."""

    @property
    def private(self) -> Private:
        """What every replica has of its own (R, ...)."""

    def apply(self, gradient: Tensor, private: Private) -> Tensor:
        """Project the gradient of one replica.

        Args:
            gradient: The gradient (P,).
            private: The replica's own tensors.

        Returns:
            The part of it that may be taken (P,).
        """


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """What a strategy adds to learning one new task; None where it adds nothing.

    Attributes:
        training: The plan of the new task, with the strategy's change of it if there is one.
        penalty: A function of theta in the loss.
        distillation: A function of the new inputs in the loss.
        replay: Memory samples in the loss.
        reference: Memory samples whose gradient the new gradient must not oppose (A-GEM).
        projector: A projector of the gradient.
        trainable: Which parameters move (P,), boolean.
    """

    training: Training
    penalty: Penalty | None = None
    distillation: Distillation | None = None
    replay: Replay | None = None
    reference: Replay | None = None
    projector: Projector | None = None
    trainable: Tensor | None = None

    @property
    def turns_steps(self) -> bool:
        """Whether more is done with a gradient than a step along it."""
        parts = (self.reference, self.projector, self.trainable)
        return any(part is not None for part in parts)

    @property
    def plain(self) -> bool:
        """Whether a step is that of the new task alone, with the plan's optimiser."""
        return all(
            part is None
            for part in (
                self.penalty,
                self.distillation,
                self.replay,
                self.reference,
                self.projector,
                self.trainable,
            )
        )
