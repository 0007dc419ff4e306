"""The gradient that an optimiser was fed, read back from its state before and after a step."""

from __future__ import annotations

import torch
from torch import Tensor

from capacity.optimizers.groups import Grouped
from capacity.optimizers.updates import SGD, Adam, Momentum, RMSprop, State

Reading = tuple[Tensor, Tensor]
"""A gradient (P,), and how much of each component rounding of the state may be (P,)."""


def implied_gradient(update: object, before: State, after: State, lr: float) -> Reading | None:
    """Read back the gradient behind a step, whatever loss it came from.

    Args:
        update: The step's map, without clipping.
        before: State before the step; tensors (P,).
        after: State after it, as the optimiser has it.
        lr: Learning rate.

    Returns:
        The gradient and its rounding; None where the step keeps no trace of it.
    """
    if isinstance(update, Grouped):
        made = [
            implied_gradient(inner, _part(before, index), _part(after, index), rate)
            for inner, rate, index in update.parts(lr)
        ]
        read = [part for part in made if part is not None]
        if len(read) < len(made):
            return None
        return update.join([g for g, _ in read]), update.join([r for _, r in read])
    theta, eps = before[0], torch.finfo(before[0].dtype).eps
    if isinstance(update, Momentum):
        old = update.mu * before[1]
        return _without_decay(after[1] - old, after[1].abs() + old.abs(), theta, update, eps)
    if isinstance(update, Adam):
        gain, old = 1 - update.beta1, update.beta1 * before[1]
        gradient, size = (after[1] - old) / gain, (after[1].abs() + old.abs()) / gain
        if update.decoupled:
            return gradient, eps * size
        return _without_decay(gradient, size, theta, update, eps)
    if isinstance(update, SGD | RMSprop) and lr > 0:
        over = (after[1].sqrt() + update.eps) / lr if isinstance(update, RMSprop) else 1 / lr
        return _without_decay(
            (theta - after[0]) * over, (theta.abs() + after[0].abs()) * over, theta, update, eps
        )
    return None


def _without_decay(
    gradient: Tensor,
    size: Tensor,
    theta: Tensor,
    update: SGD | Momentum | Adam | RMSprop,
    eps: float,
) -> Reading:
    decay = update.weight_decay * theta
    return gradient - decay, eps * (size + decay.abs())


def _part(state: State, index: Tensor) -> State:
    return tuple(part[index] for part in state)
