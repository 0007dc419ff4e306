"""Losses and scores of somebody's own, functions of (model, batch) that return one per sample.

A task whose loss is `losses(model, batch)` has batches that are not taken apart: inputs and targets
are the same rows. Where the function calls the model once, what the model returned are the outputs,
and the function is played again with a stand-in that returns them: so the loss is one of outputs
and batch, like any other. Where it is not so (the model computes a loss of its own, or is called
twice), sums and counts are themselves the outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from capacity.tasks.batches import BatchLayout
from capacity.tasks.losses import FittedLoss
from capacity.tasks.task import Split

Answer = Callable[[Tensor], Any]
"""Gives what the model returns around its outputs (n, ...)."""
_CHUNK = 1024
_WRITE = """
    def {name}(model, batch):
        outputs = model(batch["x"])
        return torch.nn.functional.cross_entropy(outputs, batch["y"], reduction="none")"""


class StandIn:
    """What is called in place of a model, and returns outputs that are there already.

    Args:
        answer: Gives what the model would return.
        outputs: The outputs (n, ...).
    """

    def __init__(self, answer: Answer, outputs: Tensor) -> None:
        self._answer, self._outputs = answer, outputs

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Answer.

        Returns:
            What the model would return.
        """
        return self._answer(self._outputs)


def sums_and_counts(where: str, name: str, made: Any, samples: int) -> tuple[Tensor, Tensor]:
    """Check what a function of (model, batch) returned.

    Args:
        where: Whose function it is, for the message.
        name: `losses` or `scores`.
        made: What it returned: values (n,), or a pair of sums and counts (n,).
        samples: Number n of samples in the batch.

    Returns:
        Sums (n,) of floating type, and counts (n,), 1 for each sample where there were none.

    Raises:
        ValueError: If it is neither.
    """
    pair = made if isinstance(made, tuple | list) else (made,)
    good = len(pair) in (1, 2) and all(
        isinstance(part, Tensor) and part.shape == (samples,) for part in pair
    )
    if not good:
        came = ", ".join(
            f"shape {tuple(part.shape)}" if isinstance(part, Tensor) else type(part).__name__
            for part in pair
        )
        raise ValueError(
            f"{where}: {name} returned {came or 'nothing'} for {samples} samples; return one value "
            f"per sample, or (sums, counts) per sample, as with {written(name)}"
        )
    sums = pair[0] if pair[0].is_floating_point() else pair[0].to(torch.get_default_dtype())
    counts = pair[1].to(sums.dtype) if len(pair) == 2 else torch.ones_like(sums.detach())
    return sums, counts.detach()


def written(name: str) -> str:
    """Give the lines that a function of (model, batch) takes.

    Args:
        name: `losses` or `scores`.

    Returns:
        The lines.
    """
    return _WRITE.format(name=name)


@dataclass(frozen=True)
class SampleLoss(FittedLoss):
    """A function of (model, batch), as one of outputs and batch; a loss, or a score.

    Attributes:
        layout: How a batch lies in its rows.
        answer: Gives what the model returns around its outputs. None: the outputs are what the
            function itself gave, sums and counts in two columns.
        column: The first of these columns.
        example: Outputs of one sample (C,).
        counted: Whether samples count differently.
        typical: Mean of the counts of some samples.
    """

    layout: BatchLayout | None = None
    answer: Answer | None = None
    column: int = 0
    example: Tensor | None = None
    counted: bool = False
    typical: float = 1.0

    def parts(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate the function sample by sample.

        Args:
            outputs: Outputs (n, C).
            targets: The rows of the batch (n, width).

        Returns:
            Sums (n,) and counts (n,), in the precision of the outputs.
        """
        if self.answer is None or self.layout is None:
            return outputs[:, self.column], outputs[:, self.column + 1].detach()
        kind = outputs.dtype
        if self.shape is not None:
            outputs = outputs.reshape(len(outputs), *self.shape)
        if self.dtype is not None:
            outputs = outputs.to(self.dtype)
        # The function may write into what it is given.
        model = StandIn(self.answer, outputs.clone())
        made = self.function(model, self.layout.unpack(targets.clone()))  # type: ignore[arg-type]
        sums, counts = sums_and_counts("task", self.__name__, made, len(outputs))
        return sums.to(kind), counts.to(kind)

    @property
    def weighted(self) -> bool:
        """Whether samples weigh differently in the mean."""
        return self.counted

    @property
    def separate(self) -> bool:
        """Whether the outputs are those of the network."""
        return self.answer is not None

    def contributions(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Give what every sample adds to the sum.

        Args:
            outputs: Outputs (n, C).
            targets: The rows of the batch (n, width).

        Returns:
            Sums (n,).
        """
        return self.parts(outputs, targets)[0]

    def mean_of_weights(self, split: Split) -> float:
        """Average the counts of a split.

        Args:
            split: The samples.

        Returns:
            Their mean; that of some samples where only the network tells them.
        """
        total = self.total(split)
        return self.typical if total is None else total / len(split)

    def total(self, split: Split) -> float | None:
        """Count what a split's mean is a mean over.

        Args:
            split: The samples.

        Returns:
            The sum of the counts; None where only the network tells them.
        """
        if not self.counted:
            return float(len(split))
        if self.answer is None or self.example is None:
            return None
        like = self.example
        parts = [
            self.parts(like.expand(len(rows), *like.shape).to(rows.device), rows)[1].sum()
            for rows in split.y.split(_CHUNK)
        ]
        return float(torch.stack(parts).sum())

    def _given(self, outputs: Tensor, targets: Tensor) -> Tensor:
        sums, counts = self.parts(outputs, targets)
        return sums.sum() / counts.sum()


@dataclass(frozen=True)
class SampleScore:
    """A score of somebody's own, as sums and counts of outputs and batch.

    Attributes:
        function: The function of (model, batch), as one of outputs and batch.
    """

    function: SampleLoss

    def __call__(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Score sample by sample.

        Args:
            outputs: Outputs (n, C).
            targets: The rows of the batch (n, width).

        Returns:
            Sums (n,) and counts (n,).
        """
        return self.function.parts(outputs, targets)

    def total(self, split: Split) -> float | None:
        """Count what a split's score is a mean over.

        Args:
            split: The samples.

        Returns:
            The sum of the counts; None where only the network tells them.
        """
        return self.function.total(split)
