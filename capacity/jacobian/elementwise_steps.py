"""Steps that treat every parameter on its own: their derivative is a few diagonals.

Taken block by block: the diagonals are differentiated for many parameters at once, but never for
all of a large network, and combined with the tangents for as many as stay in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from capacity.jacobian.trajectory import TrainingStep
from capacity.optimizers.optimizer import Optimizer
from capacity.optimizers.update_map import UpdateMap

DIFFERENTIATED = 1 << 20
"""Parameters whose diagonals are held at once."""

_MIXED = 1 << 18
"""Numbers of one tensor (K, P) that are combined at once."""

_NARROW = 1 << 10
"""Least columns of them."""


def carry(
    update: Optimizer,
    step: TrainingStep,
    gradient: Tensor,
    rows: Sequence[Tensor],
    into: Sequence[Tensor],
    *,
    transposed: bool = False,
) -> None:
    """Carry tangents of (state, gradient) through the algebra of a step, or cotangents back.

    Args:
        update: The step's map; elementwise.
        step: The step.
        gradient: The batch's gradient (P,).
        rows: Tangents of each part of the state and of the gradient; or cotangents of each part of
            the next state (K, P).
        into: Where their images go; they may be the rows themselves.
        transposed: Carry cotangents back.
    """
    for inner, rate, block in update.blocks(step.lr, len(gradient), DIFFERENTIATED):
        parts = [part[block] for part in (*step.state, gradient)]
        table = _diagonals(inner, parts, rate, step.count)
        if transposed:
            table = list(zip(*table, strict=True))
        images = [image[:, block] for image in into]
        _mix(table, [row[:, block] for row in rows], images)
        if isinstance(block, Tensor):  # what it takes out is a copy
            for target, image in zip(into, images, strict=True):
                target[:, block] = image


def _diagonals(
    update: UpdateMap, parts: Sequence[Tensor], lr: float, count: int
) -> list[tuple[Tensor | None, ...]]:
    """Differentiate every part of the next state by every part of (state, gradient)."""
    with torch.enable_grad():
        inputs = [part.detach().requires_grad_() for part in parts]
        made = update.step(tuple(inputs[:-1]), inputs[-1], lr, count)
    ones = torch.ones_like(parts[0])
    return [
        torch.autograd.grad(part, inputs, ones, retain_graph=True, allow_unused=True)
        for part in made
    ]


def _mix(
    table: Sequence[Sequence[Tensor | None]], rows: Sequence[Tensor], into: Sequence[Tensor]
) -> None:
    """Put sum_j table[i][j] rows[j] into into[i]."""
    width = max(_NARROW, _MIXED // len(rows[0]))
    for start in range(0, rows[0].shape[1], width):
        block = slice(start, start + width)
        cut = [row[:, block] for row in rows]
        made = [_sum([d if d is None else d[block] for d in line], cut) for line in table]
        for target, part in zip(into, made, strict=True):
            target[:, block] = part


def _sum(diagonals: Sequence[Tensor | None], rows: Sequence[Tensor]) -> Tensor:
    """Add rows (K, P), each scaled by a diagonal (P,); None is 0."""
    total: Tensor | None = None
    for diagonal, row in zip(diagonals, rows, strict=True):
        if diagonal is not None:
            total = diagonal * row if total is None else torch.addcmul(total, diagonal, row)
    return torch.zeros_like(rows[0]) if total is None else total
