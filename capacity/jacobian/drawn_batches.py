"""Batches of somebody's own loop in training mode, with what their random masks are drawn from."""

from __future__ import annotations

import torch
from torch import Tensor

from capacity.base.randomness import RandomState
from capacity.jacobian.batch_store import BatchStore, Pair


class DrawnBatches:
    """Batches by number, each with the global random states of when it was observed.

    The loop draws its masks from these states when it calls the network, so from them the same
    masks are drawn again. A name of a batch is a tensor with its number.
    """

    def __init__(self) -> None:
        self._batches = BatchStore()
        self._states: list[RandomState] = []
        self._first = 0

    @property
    def bytes(self) -> int:
        """Memory held."""
        states = sum(s.cpu.nbytes + sum(g.nbytes for g in s.gpus) for s in self._states)
        return self._batches.bytes + states

    def append(self, x: Tensor, y: Tensor) -> Tensor:
        """Keep a batch, and the random states of now.

        Args:
            x: Inputs.
            y: Targets.

        Returns:
            Its name (1,).
        """
        self._batches.append(x, y)
        self._states.append(RandomState.now())
        return self.latest.to(x.device)

    @property
    def latest(self) -> Tensor:
        """The name of the batch that was kept last (1,)."""
        return torch.tensor([self._first + len(self._states) - 1])

    def __call__(self, name: Tensor) -> Pair:
        """Look a batch up.

        Args:
            name: Its name.

        Returns:
            Its inputs, and the name in place of its targets.
        """
        return self._batches[int(name) - self._first][0], name

    def drawn(self, name: Tensor) -> tuple[Tensor, RandomState]:
        """Look up what the loss of a batch takes.

        Args:
            name: Its name.

        Returns:
            Its targets, and the states that its masks are drawn from.
        """
        number = int(name) - self._first
        return self._batches[number][1], self._states[number]

    def forget(self) -> None:
        """Forget all batches; the numbers go on."""
        self._first += len(self._states)
        self._batches.clear()
        self._states = []
