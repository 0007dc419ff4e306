"""Training steps of a user's own, beside the optimisers that the package knows.

A step that needs nothing of the batch but its gradient is a `GradientStep`, or any other
`UpdateMap`; one that evaluates the loss by itself (sharpness-aware minimisation, gradients clipped
per sample) is a `BatchStep`. Both are pure functions; their derivatives are taken automatically.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad

from capacity.optimizers.updates import State, UpdateMap

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(theta (P,), x, y) -> mean loss, a scalar."""


@dataclass(frozen=True)
class GradientStep:
    """A step of your own that is a function of the batch's gradient.

    Attributes:
        function: (state, gradient, lr, count) -> next state. The state is a tuple of tensors (P,):
            theta first, then your moments; `count` is 1 at the first step. Pure and differentiable.
        moments: Number of moments; they start at 0.
        name: For people.

    Example:
        >>> import capacity, torch
        >>> def lion(state, g, lr, count):
        ...     theta, m = state
        ...     direction = torch.tanh(100 * (0.9 * m + 0.1 * g))
        ...     return theta - lr * direction, 0.99 * m + 0.01 * g
        >>> step = capacity.GradientStep(lion, moments=1, name="soft lion")
    """

    function: Callable[[State, Tensor, float, int], State]
    moments: int = 0
    name: str = "own step"
    plain: bool = False

    def init(self, theta: Tensor) -> State:
        """Start with empty moments: (theta, 0, ...)."""
        return (theta, *(torch.zeros_like(theta) for _ in range(self.moments)))

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step."""
        return self.function(state, gradient, lr, count)


@dataclass(frozen=True)
class BatchStep:
    """A step of your own that looks at the batch by itself, not through one gradient.

    Attributes:
        function: (loss, state, x, y, lr, count) -> next state. `loss(theta, x, y)` is the loss that
            is tracked, as a function of the flat theta (P,), fit for `torch.func`; the rest is as
            for `GradientStep`. Pure and differentiable, twice through the loss.
        moments: Number of moments; they start at 0.
        name: For people.

    Example:
        >>> import capacity
        >>> from torch.func import grad
        >>> def sharpness_aware(loss, state, x, y, lr, count):
        ...     g = grad(loss)(state[0], x, y)
        ...     return (state[0] - lr * grad(loss)(state[0] + 0.05 * g / g.norm(), x, y),)
        >>> step = capacity.BatchStep(sharpness_aware, name="SAM")
    """

    function: Callable[[Loss, State, Tensor, Tensor, float, int], State]
    moments: int = 0
    name: str = "own step"
    plain: bool = False

    def init(self, theta: Tensor) -> State:
        """Start with empty moments: (theta, 0, ...)."""
        return (theta, *(torch.zeros_like(theta) for _ in range(self.moments)))


AnyStep = UpdateMap | BatchStep
"""What a trajectory can be made of."""


def advance(
    update: AnyStep, loss: Loss, state: State, x: Tensor, y: Tensor, lr: float, count: int
) -> State:
    """Take one step on a batch, whatever kind of step it is.

    Args:
        update: The step's map.
        loss: Loss as a function of (theta, x, y).
        state: Optimiser state before the step; tensors (P,), theta first.
        x: Inputs of the batch.
        y: Targets of the batch.
        lr: Learning rate.
        count: Steps taken in this phase, this one included.

    Returns:
        The next state.
    """
    if isinstance(update, BatchStep):
        return update.function(loss, state, x, y, lr, count)
    return update.step(state, grad(loss)(state[0], x, y), lr, count)
