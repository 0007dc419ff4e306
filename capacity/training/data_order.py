"""Which samples each step sees: the data order of every replica, fixed by the seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from capacity.base.random_streams import stream
from capacity.recipe.config import Training


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
        steps: Batches in all, where the last epoch ends early; None takes whole epochs.
        in_order: Whether samples come in their own order, as those of a stream do.
    """

    samples: int
    batch_size: int
    epochs: int
    replicas: int
    seed: int
    path: tuple[str | int, ...] = ("order",)
    steps: int | None = None
    in_order: bool = False

    @classmethod
    def planned(
        cls,
        training: Training,
        samples: int,
        *,
        replicas: int,
        seed: int,
        path: tuple[str | int, ...] = ("order",),
        in_order: bool = False,
    ) -> DataOrder:
        """Order the data as a plan reads them.

        Args:
            training: The plan.
            samples: Size n of the training split.
            replicas: Number of replicas R.
            seed: Root seed.
            path: Name of the stream below the seed.
            in_order: Whether samples come in their own order.

        Returns:
            The order of its steps.
        """
        return cls(
            samples=samples,
            batch_size=training.samples_per_step,
            epochs=training.passes(samples),
            replicas=replicas,
            seed=seed,
            path=path,
            steps=training.max_steps,
            in_order=in_order,
        )

    def under(self, training: Training) -> DataOrder:
        """Give the same order for as long as another plan takes.

        Args:
            training: The plan.

        Returns:
            The order, with that plan's number of epochs or steps.
        """
        return replace(self, epochs=training.passes(self.samples), steps=training.max_steps)

    def epoch_batches(self, device: torch.device) -> Iterator[Iterator[Tensor]]:
        """Iterate over epochs, and in each over its batches.

        Args:
            device: Where the indices are wanted.

        Yields:
            Per epoch, an iterator over index tensors (R, b).
        """
        streams = [stream(self.seed, *self.path, replica) for replica in range(self.replicas)]
        left = self.steps
        for _ in range(self.epochs):
            order = torch.stack([self._pass(source) for source in streams])
            batches = order.to(device).split(self.batch_size, dim=1)
            if left is not None:
                batches = batches[:left]
                left -= len(batches)
            yield iter(batches)

    def _pass(self, source: torch.Generator) -> Tensor:
        if self.in_order:
            return torch.arange(self.samples)
        return torch.randperm(self.samples, generator=source)
