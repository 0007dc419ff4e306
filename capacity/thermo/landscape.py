"""What an ensemble moves in: the loss of a task, or an analytic potential.

A landscape gives the batched energy of some replicas; gradients, and products with the Hessian,
are taken by whoever moves them. All energies include the coupled weight decay, if there is any:
it is part of the potential that the step descends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Protocol

import torch
from torch import Tensor

from capacity.base.differential import vmap
from capacity.base.random_streams import stream
from capacity.networks.flat_model import FlatModel
from capacity.products.traced_rows import TracedRows, row_gradients, row_products
from capacity.tasks.task import Task

Energies = Callable[[Tensor], Tensor]
"""theta (n, P) of some replicas to their energies (n,); differentiable."""

Gradients = Callable[[Tensor], tuple[Tensor, Tensor]]
"""theta (n, P) to the gradients of the energies (n, P) and the energies (n,)."""

Products = Callable[[Tensor, Tensor], Tensor]
"""theta (n, P) and vectors (n, P) to each energy's Hessian times its vector (n, P)."""

Layout = tuple[tuple[str, int], ...]
"""Names and sizes of the blocks of theta, in order."""


_INPUTS = 1 << 19
"""Numbers among the inputs of the replicas that are evaluated together."""


@dataclass(frozen=True)
class BatchEnergies:
    """The energies of replicas on their batches, with quick ways to their derivatives.

    Attributes:
        value: theta (n, P) to the energies (n,); differentiable.
        gradient: The gradients and the energies.
        product: Products with the Hessians.
    """

    value: Energies
    gradient: Gradients
    product: Products

    def __call__(self, theta: Tensor) -> Tensor:
        """Evaluate the energies (n,); differentiable."""
        return self.value(theta)


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

    The order of replica r is that of `capacity.training.data_order.DataOrder` with the same seed
    and path, whatever other replicas move with it.

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
        if self.full:
            yield from repeat(self._on(x, y), len(rates))
            return
        indices = self._batches(replicas, x.device)
        for _ in rates:
            index = next(indices)
            yield self._on(x[index], y[index])

    @torch.no_grad()
    def energies(self, theta: Tensor, time: float) -> Tensor:
        """Evaluate the full training loss, few replicas at a time."""
        del time
        x, y = self.task.train.x, self.task.train.y
        loss = vmap(self.model.loss(self.task), in_dims=(0, None, None))
        # What lies between the layers is some times as large as the inputs; a cache's worth.
        together = max(1, _INPUTS // max(x.numel(), 1))
        values = torch.cat([loss(rows, x, y) for rows in theta.split(together)])
        return self._with_decay(values, theta).double()

    @cached_property
    def _functions(self) -> tuple[Callable[..., Tensor], TracedRows, TracedRows]:
        loss, batch = self.model.loss(self.task), None if self.full else 0
        return (
            vmap(loss, in_dims=(0, batch, batch)),
            row_gradients(loss, shared=self.full),
            row_products(loss, shared=self.full),
        )

    def _on(self, x: Tensor, y: Tensor) -> BatchEnergies:
        """Give the energies on some samples, (n, b, ...) or the same (b, ...) for all replicas."""
        losses, gradients, products = self._functions

        def gradient(theta: Tensor) -> tuple[Tensor, Tensor]:
            made, values = gradients(theta, x, y)
            if self.decay:
                made = made + self.decay * theta
            return made, self._with_decay(values, theta)

        def product(theta: Tensor, v: Tensor) -> Tensor:
            (image,) = products(theta, x, y, v)
            return image + self.decay * v if self.decay else image

        return BatchEnergies(
            lambda theta: self._with_decay(losses(theta, x, y), theta), gradient, product
        )

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
