"""Samples: one split of a task, checked, hashed and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.base.checks import finite_tensor
from capacity.records.notebook import InNotebook
from capacity.tasks.streamed import Rows

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Maps outputs (n, C) and targets (n, ...) to the mean loss, a scalar."""
_HASHED = 1024
"""Samples that are hashed at once."""
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Words of each number of bytes."""


@dataclass(frozen=True)
class Split(InNotebook):
    """Inputs and targets of one split of a task.

    Attributes:
        x: Inputs (n, ...).
        y: Targets: class indices (n,) of integer type, or values (n, ...) for regression.
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device) -> Split:
        """Copy to a device.

        Args:
            device: Where to.

        Returns:
            The split there.
        """
        x = self.x.to(device)
        return Split(x, x if self.whole else self.y.to(device))

    @property
    def whole(self) -> bool:
        """Whether inputs and targets are the same rows: batches that were not taken apart."""
        return self.y is self.x

    def take(self, rows: Tensor) -> Split:
        """Choose samples.

        Args:
            rows: Their numbers (n,).

        Returns:
            A split of these.
        """
        x = self.x.chosen(rows) if isinstance(self.x, Rows) else self.x[rows]
        return Split(x, x if self.whole else self.y[rows])

    def first(self, count: int) -> Split:
        """Take at most `count` samples, spread evenly over the split.

        Args:
            count: Most samples to keep.

        Returns:
            A split of min(n, count) samples in their order.
        """
        if len(self) <= count:
            return self
        index = torch.linspace(0, len(self) - 1, count, device=self.x.device, dtype=torch.float32)
        return self.take(index.round().long())


def check_split(where: str, split: Split, loss: str | LossFunction) -> None:
    """Check the samples of a task.

    Args:
        where: Name of the split, for the message.
        split: The samples.
        loss: Loss of the task.

    Raises:
        ValueError: If they are empty, not finite, do not pair up, or do not fit the loss.
    """
    for part, values in (("inputs", split.x), ("targets", split.y)):
        if not isinstance(values, Rows):  # those are looked at when they are read
            finite_tensor(f"{where} {part}", values)
    if len(split.x) != len(split.y):
        raise ValueError(
            f"{where}: {len(split.x)} inputs but {len(split.y)} targets; they must pair up"
        )
    if loss == "cross_entropy" and not (is_labels(split.y) or is_label_table(split.y)):
        raise ValueError(
            f"{where} targets have dtype {split.y.dtype} and shape {tuple(split.y.shape)}; "
            "cross_entropy takes class indices: an integer tensor (n,), or (n, ...) with a label "
            "per token or pixel; for other targets (soft labels) pass a loss of your own, as "
            "loss=lambda outputs, targets: ..."
        )


def is_labels(targets: Tensor) -> bool:
    """Tell whether targets are class indices: integers, one per sample.

    Args:
        targets: Targets (n, ...).

    Returns:
        Whether they are.
    """
    return targets.dim() == 1 and not (targets.is_floating_point() or targets.is_complex())


def is_label_table(targets: Tensor) -> bool:
    """Tell whether targets are several class indices per sample: one per token or pixel.

    Args:
        targets: Targets (n, ...).

    Returns:
        Whether they are.
    """
    whole = not (targets.is_floating_point() or targets.is_complex())
    return whole and targets.dim() > 1 and targets[0].numel() > 1


def count_shared(part: Split, whole: Split) -> int:
    """Count the samples of one split that another one holds, too.

    Args:
        part: The samples in question.
        whole: Where they are looked for.

    Returns:
        How many of `part` are in `whole`, with the same input and the same target.
    """
    if part is whole or (part.x is whole.x and part.y is whole.y):
        return len(part)
    if isinstance(part.x, Rows) or isinstance(whole.x, Rows):  # by number, which reads nothing
        both = isinstance(part.x, Rows) and isinstance(whole.x, Rows)
        return part.x.shared(whole.x) if both else 0  # type: ignore[attr-defined]
    pairs = ((part.x, whole.x), (part.y, whole.y))
    if any(a.shape[1:] != b.shape[1:] or a.dtype != b.dtype for a, b in pairs):
        return 0
    there = keys_of(whole).to(part.x.device)
    return int(torch.isin(keys_of(part), there).sum())


def keys_of(split: Split) -> Tensor:
    """Hash samples, each to one number: sums of words that wrap around are exact.

    Args:
        split: The samples.

    Returns:
        Keys (n,), int64, alike for samples with the same input and the same target.
    """
    generator = torch.Generator().manual_seed(0)
    keys = torch.zeros(len(split), dtype=torch.int64, device=split.x.device)
    for values in (split.x, split.y):
        rows = values.detach().reshape(len(values), -1)
        word = _WORDS[min(rows.element_size(), 8)]
        width = rows[:1].contiguous().view(word).shape[1]
        factors = torch.randint(1 << 62, (width,), generator=generator).to(keys.device) | 1
        for start in range(0, len(rows), _HASHED):
            words = rows[start : start + _HASHED].contiguous().view(word).long()
            # Round floats are multiples of large powers of two: their high bits go below, too.
            words = words ^ (words >> 32)
            words = words ^ (words >> 16)
            keys[start : start + _HASHED] += (words * factors).sum(1)
    return keys


def n_classes(splits: Sequence[Split]) -> int:
    """Count the classes that a shared head needs for some splits.

    Args:
        splits: Classification splits.

    Returns:
        The largest label plus one.
    """
    return 1 + max(int(split.y.max()) for split in splits)
