"""Training steps of a user's own, beside the optimisers that the package knows.

A step that needs nothing of the batch but its gradient is a `GradientStep`, or any other
`UpdateMap`; one that evaluates the loss by itself (sharpness-aware minimisation, gradients clipped
per sample) is a `BatchStep`. Both are pure functions; their derivatives are taken automatically.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Never

import torch
from torch import Tensor

from capacity.base.differential import vmap
from capacity.optimizers.dynamics import Dynamics
from capacity.optimizers.optimizer import Optimizer
from capacity.optimizers.update_map import Loss, State
from capacity.recipe.config import Training


@dataclass(frozen=True)
class GradientStep(Optimizer):
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

    def init(self, theta: Tensor) -> State:
        """Start with empty moments: (theta, 0, ...)."""
        return (theta, *(torch.zeros_like(theta) for _ in range(self.moments)))

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step; of several replicas each by itself, whatever the function adds up."""
        if gradient.dim() == 1:
            return self.function(state, gradient, lr, count)
        made: State = vmap(lambda *s: self.function(s[:-1], s[-1], lr, count))(*state, gradient)
        return made

    def from_training(  # type: ignore[override]
        self, training: Training, *, seed: int = 0, path: tuple[str | int, ...] = ()
    ) -> GradientStep:
        """Give itself: whoever registers a step has set its options."""
        del seed, path
        _check_bare(self.name, training)
        return self

    def dynamics(self, *, full: bool) -> Dynamics:
        """No free energy is known to be dissipated."""
        del full
        return Dynamics.OTHER


@dataclass(frozen=True)
class BatchStep(Optimizer):
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
    from_gradient = False

    def init(self, theta: Tensor) -> State:
        """Start with empty moments: (theta, 0, ...)."""
        return (theta, *(torch.zeros_like(theta) for _ in range(self.moments)))

    def from_training(  # type: ignore[override]
        self, training: Training, *, seed: int = 0, path: tuple[str | int, ...] = ()
    ) -> Never:
        """Refuse: a run feeds its optimiser with one gradient."""
        del training, seed, path
        raise _no_gradient(self.name)

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> Never:
        """Refuse: there is no one gradient."""
        del state, gradient, lr, count
        raise _no_gradient(self.name)

    def advance(
        self, loss: Loss, state: State, x: Tensor, y: Tensor, lr: float, count: int
    ) -> State:
        """Take one step on a batch."""
        return self.function(loss, state, x, y, lr, count)


def _check_bare(name: str, training: Training) -> None:
    """Refuse options that the step would not see."""
    for option in ("weight_decay", "options"):
        if getattr(training, option):
            raise ValueError(
                f"{option} = {getattr(training, option)!r} does not reach the step {name!r}, whose "
                "options are in its function"
            )


def _no_gradient(name: str) -> ValueError:
    return ValueError(
        f"the batch step {name!r} works out its gradients itself, and is fed with none here; it "
        "goes with capacity.TransportTracker(update=...) only, or write a capacity.GradientStep"
    )
