"""The path that training took, kept so that products with its Jacobian can run over it again."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.base.checks import positive_int
from capacity.jacobian.batch_store import BatchStore, Data
from capacity.optimizers.optimizer import stated
from capacity.optimizers.update_map import State, UpdateMap
from capacity.products.hessian_products import HessianProducts, Loss

Layout = Sequence[tuple[str, int]]
"""Names and sizes of theta's parameters, in order."""

DEFAULT_BUDGET = 1 << 30
"""Bytes."""


class LostTrajectory(ValueError):  # noqa: N818
    """A phase is asked for steps that its budget had no room for."""


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """One step of a trajectory.

    Attributes:
        state: Optimiser state before the step; tensors (P,), theta first.
        x: Inputs of the batch.
        y: Targets of the batch.
        lr: Learning rate.
        count: Steps taken in this phase, this one included.
        update: Update map of this step; a schedule may move its momentum.
    """

    state: State
    x: Tensor
    y: Tensor
    lr: float
    count: int
    update: UpdateMap


class Trajectory:
    """The steps of one phase, from a fresh optimiser state, kept within a memory budget.

    States are stored at every step while they fit; beyond that, at every second, fourth, eighth ...
    step, and the ones between are recomputed from the one before when they are needed: one gradient
    each, next to K Hessian products. Walking backwards holds recomputed states besides, at most as
    many as the budget has room for (at least 2), and recomputes some of them again. Batches are
    kept as copies, or as indices into a data set. Where not even the first state and the batches
    fit, nothing is kept any more: a warning says so, training can go on being followed, and walking
    over the steps is a ValueError.

    Attributes:
        loss: The loss of the phase.
        update: Its update map, unless `record` was given another of the same kind for a step.
        products: Hessian products of the loss, shared by everything that runs over the trajectory,
            and with other phases where they are handed in.
        budget: Bytes for stored states and batches.
        stride: Steps per stored state.
        layout: Names and sizes of theta's parameters in order, for messages; may be empty.
        lost: Why nothing is kept any more; empty where everything is.
    """

    def __init__(
        self,
        loss: Loss,
        update: UpdateMap,
        *,
        budget: int = DEFAULT_BUDGET,
        data: Data | None = None,
        layout: Layout = (),
        products: HessianProducts | None = None,
    ) -> None:
        self.loss, self.update, self.layout = loss, update, tuple(layout)
        self.budget = positive_int("budget", budget, minimum=0)
        self.products = products or HessianProducts(loss)
        self.stride = 1
        self._states: dict[int, State] = {}
        self._steps: list[tuple[float, UpdateMap]] = []
        self._count = 0
        self._batches = BatchStore(data)
        self._size = 0
        self._state_bytes = 0
        self.lost = ""

    def __len__(self) -> int:
        return self._count

    @property
    def size(self) -> int:
        """P.

        Raises:
            ValueError: If no step was recorded.
        """
        if not self._count:
            raise ValueError("trajectory has no step; record the training before asking for J_t")
        return self._size

    @property
    def like(self) -> Tensor:
        """Start of the phase, theta_0: its size, dtype and device are those of every tangent."""
        assert self.size
        self._require()
        return self._states[0][0]

    @property
    def bytes(self) -> int:
        """Memory held by the stored states and batches; a data set handed in is not counted."""
        return len(self._states) * self._state_bytes + self._batches.bytes

    def record(
        self,
        state: State,
        x: Tensor,
        y: Tensor,
        lr: float,
        update: UpdateMap | None = None,
        *,
        index: Tensor | None = None,
    ) -> TrainingStep:
        """Append a step.

        Args:
            state: Optimiser state before the step; tensors (P,).
            x: Inputs of the batch.
            y: Targets of the batch.
            lr: Learning rate.
            update: Update map of this step, of the trajectory's kind; None takes the trajectory's.
            index: The batch's rows in the trajectory's data (b,), kept in place of x and y.

        Returns:
            The step.

        Raises:
            ValueError: If theta changed its size, a moment is not of theta's, or `index` does not
                lead to the batch.
        """
        if self._count and state[0].numel() != self.size:
            raise ValueError(
                f"theta has {state[0].numel()} parameters at step {len(self) + 1}, {self.size} at "
                "the first; J_t needs the same parameters throughout: start a new phase"
            )
        if any(part.shape != state[0].shape for part in state):
            raise ValueError(
                f"state has parts of shapes {[tuple(part.shape) for part in state]} at step "
                f"{len(self) + 1}; every moment needs theta's shape"
            )
        position = len(self)
        if not self.lost:
            self._keep(position, state, x, y, index)
            self._steps.append((lr, update or self.update))
        self._count += 1
        return TrainingStep(state, x, y, lr, position + 1, update or self.update)

    def forwards(self) -> Iterator[TrainingStep]:
        """Walk the steps in order.

        Yields:
            Every step.
        """
        self._require()
        for start in range(0, len(self), self.stride):
            yield from self._walk(self._states[start], start, min(start + self.stride, len(self)))

    def backwards(self) -> Iterator[TrainingStep]:
        """Walk the steps from the last to the first.

        Yields:
            Every step.
        """
        self._require()
        slots = max(2, self.budget // max(self._state_bytes, 1))
        for start in reversed(range(0, len(self), self.stride)):
            stop = min(start + self.stride, len(self))
            yield from self._reversed(self._states[start], start, stop, slots)

    def _keep(
        self, position: int, state: State, x: Tensor, y: Tensor, index: Tensor | None
    ) -> None:
        self._batches.append(x, y, index)
        self._size, self._state_bytes = state[0].numel(), sum(part.nbytes for part in state)
        if position % self.stride == 0:
            self._states[position] = tuple(part.detach().clone() for part in state)
        while self.bytes > self.budget and len(self._states) > 1:
            self.stride *= 2
            self._states = {k: s for k, s in self._states.items() if k % self.stride == 0}
        if self.bytes > self.budget:
            self.lost = (
                f"the trajectory was not kept: its first state and the batches of {position + 1} "
                f"steps take {self.bytes:,} bytes, and budget = {self.budget:,}; give it a larger "
                "budget, or batches as indices into a fixed data set"
            )
            self._states, self._steps, self._batches = {}, [], BatchStore()
            if self.budget:  # with a budget of 0 nothing else was asked for
                warnings.warn(
                    f"{self.lost}. Tangents and log-volume are followed on; products with J_t "
                    "from its start and its spectrum are not possible",
                    stacklevel=2,
                )

    def _require(self) -> None:
        if self.lost:
            raise LostTrajectory(f"{self.lost}, and record the training again")

    def _walk(self, state: State, start: int, stop: int) -> Iterator[TrainingStep]:
        for position in range(start, stop):
            step = self._step(state, position)
            yield step
            if position + 1 < stop:
                state = self._after(step)

    def _reversed(self, state: State, start: int, stop: int, slots: int) -> Iterator[TrainingStep]:
        """Walk part of the steps backwards from the state at its start, holding `slots` more."""
        length = stop - start
        if length <= slots + 1:
            yield from reversed(list(self._walk(state, start, stop)))
            return
        # Binomial checkpointing: with s states held, C(s + r, s) steps are reversed by advancing
        # over none of them more than r times, and no schedule does better.
        repeats = next(r for r in itertools.count(1) if math.comb(slots + r, slots) >= length)
        middle = start + min(math.comb(slots + repeats - 1, slots), length - 1)
        ahead = state
        for position in range(start, middle):
            ahead = self._after(self._step(ahead, position))
        yield from self._reversed(ahead, middle, stop, slots - 1)
        del ahead
        yield from self._reversed(state, start, middle, slots)

    def _step(self, state: State, position: int) -> TrainingStep:
        x, y = self._batches[position]
        lr, update = self._steps[position]
        return TrainingStep(state, x, y, lr, position + 1, update)

    @torch.no_grad()
    def _after(self, step: TrainingStep) -> State:
        return stated(step.update).advance(
            self.loss, step.state, step.x, step.y, step.lr, step.count
        )
