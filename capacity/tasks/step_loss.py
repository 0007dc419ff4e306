"""The loss of somebody's training step, which runs a network of its own and returns the mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from capacity.tasks.batches import BatchLayout

Replay = Callable[[Tensor, Any], Tensor]
"""Maps outputs (n, ...) of the step's network and a batch to what the step returns."""


@dataclass(frozen=True)
class StepLoss:
    """A training step as the loss of its network's outputs.

    Attributes:
        name: Name of the step, for messages.
        step: Maps the model and a batch to the mean loss.
        network: Name of the part of the model whose outputs the loss is one of; "" is the whole.
        replay: The step with those outputs already there.
        layout: How a batch lies in its rows; the door says it.
    """

    name: str
    step: Callable[[Any, Any], Any]
    network: str
    replay: Replay
    layout: BatchLayout | None = None

    @property
    def __name__(self) -> str:
        """Name of the step, for messages."""
        return self.name

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Evaluate the loss of a batch.

        Args:
            outputs: Outputs of the network (n, ...).
            targets: The rows of the batch (n, width).

        Returns:
            What the step returns.
        """
        assert self.layout is not None
        return self.replay(outputs, self.layout.unpack(targets))
