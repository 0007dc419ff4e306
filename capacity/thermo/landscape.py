"""What an ensemble moves in: the loss of a task, or an analytic potential.

A landscape gives the batched energy of some replicas; gradients, and products with the Hessian,
are taken by whoever moves them. All energies include the coupled weight decay, if there is any:
it is part of the potential that the step descends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Protocol

import torch
from torch import Tensor
from torch.func import vmap

from capacity.dynamics.flat import FlatModel
from capacity.dynamics.seeds import stream
from capacity.tasks.task import Task

Energies = Callable[[Tensor], Tensor]
"""theta (n, P) of some replicas to their energies (n,); differentiable."""

Layout = tuple[tuple[str, int], ...]
"""Names and sizes of the blocks of theta, in order."""


class Landscape(Protocol):
    """An energy for every replica.

    Attributes:
        full: Whether every step sees the whole energy, so that no minibatch noise is in its path.
        moving: Whether the energy depends on time.
    """

    @property
    def full(self) -> bool:
        """Whether every step sees the whole energy."""

    @property
    def moving(self) -> bool:
        """Whether the energy depends on time."""

    def layout(self, size: int) -> Layout:
        """Split theta into blocks.

        Args:
            size: P.

        Returns:
            Names and sizes of the blocks, in order.
        """

    def steps(self, replicas: Sequence[int], rates: Sequence[float]) -> Iterator[Energies]:
        """Iterate over the energies that the steps descend.

        Args:
            replicas: The replicas that move together.
            rates: dt of every step.

        Yields:
            The energies of each step.
        """

    def energies(self, theta: Tensor, time: float) -> Tensor:
        """Evaluate the whole energy.

        Args:
            theta: Parameters of some replicas (n, P).
            time: Learning time.

        Returns:
            Energies (n,), not differentiable.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskLandscape:
    """The training loss of a task, seen batch by batch in every replica's own order.

    The order of replica r is that of `capacity.dynamics.batches.DataOrder` with the same seed and
    path, whatever other replicas move with it.

    Attributes:
        model: The network.
        task: The task, on the device of the replicas.
        batch_size: Samples per step; all of them or more is full-batch training.
        seed: Root seed of the orders.
        path: Name of the orders' stream below the seed.
        decay: Coupled weight decay; adds decay |theta|^2/2 to the energy.
    """

    model: FlatModel
    task: Task
    batch_size: int
    seed: int = 0
    path: tuple[str | int, ...] = ("order",)
    decay: float = 0.0
    moving: bool = False

    @property
    def full(self) -> bool:
        """Whether a batch holds all samples."""
        return self.batch_size >= len(self.task.train)

    def layout(self, size: int) -> Layout:
        """Name the parameters of the network."""
        del size
        return self.model.layout

    def steps(self, replicas: Sequence[int], rates: Sequence[float]) -> Iterator[Energies]:
        """Iterate over batches, an epoch after the other, for as many steps as there are rates."""
        x, y = self.task.train.x, self.task.train.y
        loss = self.model.loss(self.task)
        if self.full:
            whole = vmap(loss, in_dims=(0, None, None))
            yield from repeat(lambda theta: self._with_decay(whole(theta, x, y), theta), len(rates))
            return
        own = vmap(loss)

        def seen(index: Tensor) -> Energies:
            rows, targets = x[index], y[index]
            return lambda theta: self._with_decay(own(theta, rows, targets), theta)

        indices = self._batches(replicas, x.device)
        for _ in rates:
            yield seen(next(indices))

    @torch.no_grad()
    def energies(self, theta: Tensor, time: float) -> Tensor:
        """Evaluate the full training loss, one replica after the other."""
        del time
        x, y = self.task.train.x, self.task.train.y
        loss = self.model.loss(self.task)
        values = torch.stack([loss(row, x, y) for row in theta])
        return self._with_decay(values, theta).double()

    def _batches(self, replicas: Sequence[int], device: torch.device) -> Iterator[Tensor]:
        streams = [stream(self.seed, *self.path, replica) for replica in replicas]
        while True:
            order = torch.stack([
                torch.randperm(len(self.task.train), generator=g) for g in streams
            ])
            yield from order.to(device).split(self.batch_size, dim=1)

    def _with_decay(self, values: Tensor, theta: Tensor) -> Tensor:
        if not self.decay:
            return values
        return values + 0.5 * self.decay * theta.square().sum(-1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Potential:
    """An analytic energy of theta, possibly one that moves in time.

    A moving energy stands still during a step, as it is at the step's middle, and moves between two
    steps; the work of those moves is accounted for.

    Attributes:
        energy: (theta (P,), time) -> scalar; with `batched`, (theta (n, P), time) -> (n,).
        moving: Whether the energy depends on time.
        batched: Whether `energy` takes all replicas at once.
        blocks: Names and sizes of the blocks of theta; None is one block.
    """

    energy: Callable[[Tensor, float], Tensor]
    moving: bool = False
    batched: bool = False
    blocks: Layout | None = None
    full: bool = True

    def layout(self, size: int) -> Layout:
        """Name the blocks of theta."""
        if self.blocks is None:
            return (("theta", size),)
        if sum(n for _, n in self.blocks) != size:
            raise ValueError(
                f"blocks = {self.blocks!r} add up to {sum(n for _, n in self.blocks)}, but theta "
                f"has P = {size}; give every coordinate to one block"
            )
        return self.blocks

    def steps(self, replicas: Sequence[int], rates: Sequence[float]) -> Iterator[Energies]:
        """Iterate over the energies at the middle of every step."""
        del replicas
        time = 0.0
        for rate in rates:
            middle = time + 0.5 * rate

            def frozen(theta: Tensor, middle: float = middle) -> Tensor:
                return self._at(theta, middle)

            yield frozen
            time += rate

    @torch.no_grad()
    def energies(self, theta: Tensor, time: float) -> Tensor:
        """Evaluate the energy at a time."""
        return self._at(theta, time).double()

    def _at(self, theta: Tensor, time: float) -> Tensor:
        if self.batched:
            return self.energy(theta, time)
        return vmap(lambda row: self.energy(row, time))(theta)
