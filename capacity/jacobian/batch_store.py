"""The batches of a phase, kept without copying what is there already."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]
"""Inputs and targets of a batch."""

Data = Pair | Callable[[Tensor], Pair]
"""Inputs (n, ...) and targets (n, ...) of a fixed data set, or a function of a batch's name."""


class BatchStore:
    """Batches in order: indices into a data set, names of batches in it, or copies.

    A data set that was handed in is not copied.
    """

    def __init__(self, data: Data | None = None) -> None:
        if isinstance(data, tuple) and len(data[0]) != len(data[1]):
            raise ValueError(
                f"data has {len(data[0])} inputs and {len(data[1])} targets; they go in pairs"
            )
        self._data = data
        self._kept: list[Pair | Tensor] = []
        self._held = 0

    @property
    def bytes(self) -> int:
        """Memory held; a data set that was handed in counts where it was made on the way."""
        return self._held + int(getattr(self._data, "bytes", 0))

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, position: int) -> Pair:
        kept = self._kept[position]
        if isinstance(kept, tuple):
            return kept
        assert self._data is not None
        index = kept.long()
        if callable(self._data):
            return self._data(index)
        return self._data[0][index], self._data[1][index]

    def append(self, x: Tensor, y: Tensor, index: Tensor | None = None) -> None:
        """Keep a batch.

        Args:
            x: Inputs.
            y: Targets.
            index: Their rows in the data set (b,), or the batch's name; None copies them.

        Raises:
            ValueError: If there is no data set to look rows up in, or the first batch is not what
                it has there.
        """
        if index is None:
            self._kept.append(self._copy(x, y))
            return
        if self._data is None:
            raise ValueError("index was given, but the trajectory has no data to look it up in")
        # Rows of a data set that was augmented or shuffled meanwhile are another batch. One look at
        # the start of a phase finds that; the same look at every step would cost a pass over it.
        self._kept.append(index.to(torch.int32, copy=True))
        self._held += self._kept[-1].nbytes  # type: ignore[union-attr]
        if len(self._kept) == 1 and not _equal(self[0], (x, y)):
            self.clear()
            raise ValueError(
                "index does not lead to the batch in data; leave index out for batches that are "
                "augmented or made on the fly, which are copied then"
            )

    def clear(self) -> None:
        """Forget all batches."""
        self._kept, self._held = [], 0

    def _copy(self, x: Tensor, y: Tensor) -> Pair:
        before = self._kept[-1] if self._kept else None
        if isinstance(before, tuple) and _equal(before, (x, y)):
            return before  # full-batch training has one batch, however many steps it takes
        # Clones: a batch is often a view of a much larger tensor, or changes in place.
        self._held += x.nbytes + y.nbytes
        return x.clone(), y.clone()


def _equal(one: Pair, other: Pair) -> bool:
    return all(
        a.shape == b.shape and a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
        for a, b in zip(one, other, strict=True)
    )
