"""Which samples each step sees: the data order of every replica, fixed by the seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.base.random_streams import stream


@dataclass(frozen=True, kw_only=True)
class DataOrder:
    """A shuffled pass over the data per epoch, with its own order for each replica.

    Attributes:
        samples: Size n of the training split.
        batch_size: Samples per step; the last batch of an epoch may be smaller.
        epochs: Number of passes.
        replicas: Number of replicas R.
        seed: Root seed.
        path: Name of the stream below the seed; another name gives another, independent order.
    """

    samples: int
    batch_size: int
    epochs: int
    replicas: int
    seed: int
    path: tuple[str | int, ...] = ("order",)

    def epoch_batches(self, device: torch.device) -> Iterator[Iterator[Tensor]]:
        """Iterate over epochs, and in each over its batches.

        Args:
            device: Where the indices are wanted.

        Yields:
            Per epoch, an iterator over index tensors (R, b).
        """
        streams = [stream(self.seed, *self.path, replica) for replica in range(self.replicas)]
        for _ in range(self.epochs):
            order = torch.stack([torch.randperm(self.samples, generator=g) for g in streams])
            yield iter(order.to(device).split(self.batch_size, dim=1))
