"""Which samples each step sees: the data order of every replica, fixed by the seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from capacity.base.random_streams import stream
from capacity.recipe.config import Training
from capacity.recipe.curriculum import CurriculumOptions


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
        curriculum: Stages in which samples come in; None has them all from the first epoch on.
        ranking: Rows of every replica, first to be seen first (R, n); only with a curriculum.
    """

    samples: int
    batch_size: int
    epochs: int
    replicas: int
    seed: int
    path: tuple[str | int, ...] = ("order",)
    steps: int | None = None
    in_order: bool = False
    curriculum: CurriculumOptions | None = None
    ranking: Tensor | None = field(default=None, compare=False)

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
        for epoch in range(self.epochs):
            pools = self._pools(epoch / self.epochs)
            order = torch.stack([
                self._pass(pool, source) for pool, source in zip(pools, streams, strict=True)
            ])
            batches = order.to(device).split(self.batch_size, dim=1)
            if left is not None:
                batches = batches[:left]
                left -= len(batches)
            yield iter(batches)

    def _pools(self, passed: float) -> Sequence[Tensor]:
        if self.curriculum is None or self.ranking is None:
            return [torch.arange(self.samples)] * self.replicas
        return list(self.ranking[:, : pool_size(self.curriculum, passed, self.samples)])

    def _pass(self, pool: Tensor, source: torch.Generator) -> Tensor:
        return pool if self.in_order else passes_over(pool, self.samples, source)


def pool_size(curriculum: CurriculumOptions, passed: float, samples: int) -> int:
    """Say how many samples are drawn from.

    Args:
        curriculum: The stages.
        passed: Share of the training that is over.
        samples: Samples of the task.

    Returns:
        Their number, at least one.
    """
    return max(1, math.ceil(curriculum.seen(passed) * samples))


def passes_over(pool: Tensor, count: int, source: torch.Generator) -> Tensor:
    """Draw rows by shuffled passes over a pool.

    Args:
        pool: The rows to draw from.
        count: How many are wanted.
        source: Where the shuffles come from.

    Returns:
        Rows (count,), each of the pool as often as the others, or once more.
    """
    passes = -(-count // len(pool))
    order = [pool[torch.randperm(len(pool), generator=source)] for _ in range(passes)]
    return torch.cat(order)[:count]
