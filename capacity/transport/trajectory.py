"""The path that training took, kept so that products with its Jacobian can run over it again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad

from capacity.dynamics.updates import SGD, Momentum, State, UpdateMap
from capacity.transport.hessian_products import HessianProducts, Loss

DEFAULT_BUDGET = 1 << 30

_TOLERANCE = 0.2
"""Accepted error of a step, relative to what the gradient adds to it: above the rounding of a
mixed-precision forward pass, below a clipping or a missed step that matters."""

_FAINT = 0.1
"""Gradients fainter than this part of the largest so far are compared with that part instead: late
in training a gradient is a small difference of large terms, and in bfloat16 mostly rounding."""


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
    """The steps of one phase, from a fresh optimiser state.

    States are stored at every step while they fit the budget; beyond it, at every second, fourth,
    eighth ... step, and the ones between are recomputed from the one before when they are needed.
    Batches are stored always.

    Attributes:
        loss: The loss of the phase.
        update: Its update map, unless `record` was given another of the same kind for a step.
        products: Hessian products of the loss, shared by everything that runs over the trajectory.
        budget: Bytes for stored states.
        stride: Steps per stored state.
    """

    def __init__(self, loss: Loss, update: UpdateMap, *, budget: int = DEFAULT_BUDGET) -> None:
        self.loss, self.update, self.budget = loss, update, budget
        self.products = HessianProducts(loss)
        self.stride = 1
        self._states: dict[int, State] = {}
        self._batches: list[tuple[Tensor, Tensor, float, UpdateMap]] = []

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def size(self) -> int:
        """P.

        Raises:
            ValueError: If no step was recorded.
        """
        if not self._states:
            raise ValueError("trajectory has no step; record the training before asking for J_t")
        return self._states[0][0].numel()

    @property
    def like(self) -> Tensor:
        """Start of the phase, theta_0: its size, dtype and device are those of every tangent."""
        assert self.size
        return self._states[0][0]

    @property
    def bytes(self) -> int:
        """Memory held by the stored states and batches."""
        states = sum(part.nbytes for state in self._states.values() for part in state)
        return states + sum(x.nbytes + y.nbytes for x, y, *_ in self._batches)

    def record(
        self, state: State, x: Tensor, y: Tensor, lr: float, update: UpdateMap | None = None
    ) -> TrainingStep:
        """Append a step.

        Args:
            state: Optimiser state before the step; tensors (P,).
            x: Inputs of the batch.
            y: Targets of the batch.
            lr: Learning rate.
            update: Update map of this step, of the trajectory's kind; None takes the trajectory's.

        Returns:
            The step.

        Raises:
            ValueError: If theta changed its size.
        """
        if self._states and state[0].numel() != self.size:
            raise ValueError(
                f"theta has {state[0].numel()} parameters at step {len(self) + 1}, {self.size} at "
                "the first; J_t needs the same parameters throughout: start a new phase"
            )
        index = len(self._batches)
        # Clones: a batch or a state is often a view of a much larger tensor, or changes in place.
        self._batches.append((x.clone(), y.clone(), lr, update or self.update))
        if index % self.stride == 0:
            self._states[index] = tuple(part.detach().clone() for part in state)
            bytes_each = sum(part.nbytes for part in state)
            if len(self._states) * bytes_each > self.budget and len(self._states) > 2:
                self.stride *= 2
                self._states = {k: s for k, s in self._states.items() if k % self.stride == 0}
        return TrainingStep(state, x, y, lr, index + 1, update or self.update)

    def forwards(self) -> Iterator[TrainingStep]:
        """Walk the steps in order.

        Yields:
            Every step.
        """
        for start in range(0, len(self), self.stride):
            yield from self._segment(start)

    def backwards(self) -> Iterator[TrainingStep]:
        """Walk the steps from the last to the first.

        Yields:
            Every step.
        """
        for start in reversed(range(0, len(self), self.stride)):
            yield from reversed(list(self._segment(start)))

    def _segment(self, start: int) -> Iterator[TrainingStep]:
        state = self._states[start]
        stop = min(start + self.stride, len(self))
        for index in range(start, stop):
            x, y, lr, update = self._batches[index]
            yield TrainingStep(state, x, y, lr, index + 1, update)
            if index + 1 < stop:
                with torch.no_grad():
                    gradient = grad(self.loss)(state[0], x, y)
                    state = update.step(state, gradient, lr, index + 1)


class PathCheck:
    """Whether training took the steps that were observed: a path not taken has another J_t.

    One gradient per step. Clipping, accumulation, a penalty that is not in the loss, random layers,
    and steps on batches that were not observed all move the optimiser somewhere else.
    """

    def __init__(self, loss: Loss) -> None:
        self._loss = loss
        self._expected: list[tuple[int, Tensor, Tensor]] = []
        self._peaks: dict[int, Tensor] = {}
        self._count = 0

    @torch.no_grad()
    def expect(self, step: TrainingStep) -> None:
        """Work out where a step leads.

        Args:
            step: The step about to be taken.
        """
        gradient = grad(self._loss)(step.state[0], step.x, step.y)
        ahead = step.update.step(step.state, gradient, step.lr, step.count)
        still = step.update.step(step.state, torch.zeros_like(gradient), step.lr, step.count)
        self._count, self._expected = step.count, []
        for part in _smooth_parts(step):
            added = (ahead[part] - still[part]).norm()
            self._peaks[part] = torch.maximum(added, self._peaks.get(part, added))
            bound = _TOLERANCE * torch.maximum(added, _FAINT * self._peaks[part])
            # The state is read back rounded, whatever the gradient was.
            rounding = 4 * torch.finfo(gradient.dtype).eps * ahead[part].norm()
            self._expected.append((part, ahead[part], bound + rounding))

    def compare(self, state: State) -> None:
        """Check the state after the step that was expected.

        Args:
            state: Optimiser state now.

        Raises:
            ValueError: If it is not where the observed step leads.
        """
        for part, expected, bound in self._expected:
            # Not `error > bound`: training that has diverged is not a wrong observation.
            if bool((state[part] - expected).norm() > bound):
                raise ValueError(
                    f"step {self._count} was not the observed one: the optimizer did not move by "
                    "the gradient of loss on the batch given to observe, so J_t would be that of "
                    "another training. Observe every batch before its optimizer.step(), with the "
                    "loss that is stepped on; clipped or accumulated gradients, penalties outside "
                    "the loss and random layers are not tracked"
                )


def _smooth_parts(step: TrainingStep) -> range:
    """Choose the parts of the state to compare."""
    # An adaptive step divides by the gradient's own size: where the true gradient is 0 (the key
    # bias of an attention layer) theta moves by the sign of a rounding error. Its moments do not.
    direct = isinstance(step.update, SGD | Momentum)
    return range(1) if direct else range(1, len(step.state))
