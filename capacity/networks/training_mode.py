"""Layers that train otherwise than they are evaluated: dropout, batch norm and their like.

A network whose layers are in training mode takes its steps in that mode, with random masks drawn
from a seed that belongs to the batch, and with running statistics that move along; its scores are
taken in evaluation mode, as a training loop of one's own takes them after `model.eval()`. Whether
that makes a difference is seen by running it, not by a list of types.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

_STATEFUL = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
_RANDOM = (nn.modules.dropout._DropoutNd, nn.RReLU)
_INNER_DROPOUT = (nn.MultiheadAttention, nn.RNNBase)


class TrainingMode:
    """Which layers of a module train in training mode, and the switch between the two.

    Args:
        module: The module, its layers in the modes in which it will be trained.
    """

    def __init__(self, module: nn.Module) -> None:
        self._parts = [part for part in module.modules() if part.training]

    def __bool__(self) -> bool:
        """Tell whether any layer is in training mode."""
        return bool(self._parts)

    def switch(self, training: bool) -> None:
        """Put the layers that came in training mode into training or evaluation mode.

        Args:
            training: Whether into training mode.
        """
        for part in self._parts:
            part.training = training

    @contextmanager
    def switched(self, training: bool) -> Iterator[None]:
        """Switch for a while.

        Args:
            training: Whether into training mode.

        Yields:
            Nothing.
        """
        before = [part.training for part in self._parts]
        self.switch(training)
        try:
            yield
        finally:
            for part, mode in zip(self._parts, before, strict=True):
                part.training = mode

    @property
    def named(self) -> str:
        """A layer that makes the difference, for people."""
        kinds = (*_STATEFUL, *_RANDOM, *_INNER_DROPOUT)
        known = [type(part).__name__ for part in self._parts if isinstance(part, kinds)]
        return f"a layer of the model ({next(iter(known), 'in training mode')})"


def check_one_mode(module: nn.Module) -> None:
    """Refuse layers whose training mode is known to be another network than their evaluation.

    Args:
        module: The module.

    Raises:
        ValueError: If it is so; the layer is named.
    """
    for name, part in module.named_modules():
        where = f"model layer {name or '(root)'!r} ({type(part).__name__})"
        if isinstance(part, _STATEFUL) and part.training and part.track_running_stats:
            raise ValueError(
                f"{where} updates running statistics while it trains, so a step is no function "
                "of theta alone; call .eval() on the layer to fix its statistics, or use "
                "GroupNorm or LayerNorm"
            )
        if isinstance(part, _RANDOM) and part.training and getattr(part, "p", 1.0) > 0:
            raise ValueError(
                f"{where} draws a new random mask at each call, so a step is no function of "
                "theta alone; set its p to 0 or call .eval() on the layer"
            )
        if isinstance(part, _INNER_DROPOUT) and part.training and part.dropout > 0:
            raise ValueError(
                f"{where} has dropout = {part.dropout:g} inside, a new random mask at each "
                "call, so a step is no function of theta alone; build it with dropout=0 or "
                "call .eval() on the layer"
            )
