"""Directions that are free because they change nothing: rescalings of hidden units.

A unit between two layers, behind a positively homogeneous activation (ReLU, or none), can have what
goes in scaled by c and what goes out by 1/c: one continuous symmetry per unit, whose generator is
(w_in, b_in, -w_out). Permutations of units are symmetries, too, but discrete: no direction belongs
to them. Rescalings lie in every P_A, so R_A counts them, and nothing can be learned along them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from capacity.base.differential import pushforward
from capacity.networks.flat_model import FlatModel
from capacity.products.output_space import task_outputs
from capacity.tasks.task import Task

_SAMPLES = 64
_ROUNDING = 1e3
"""Machine epsilons that rounding may leave of outputs that cancel."""


@torch.no_grad()
def rescalings(model: FlatModel, theta: Tensor, tasks: Sequence[Task]) -> int:
    """Count the directions that rescale a hidden unit and leave every task's outputs alone.

    Each pair of layers that follow one another is taken for connected by homogeneous units, and
    kept only where the derivative of the outputs along a random combination of its generators is 0
    to rounding on samples of every task: the chance that others cancel is nil.

    Args:
        model: The network.
        theta: Parameters (P,).
        tasks: Those whose outputs must stay.

    Returns:
        Their number, at least: what layers share otherwise (attention, full linear groups) is not
        looked for.
    """
    parts = model.unflatten(theta)
    layers = [
        (f"{name}.weight" if name else "weight", layer)
        for name, layer in model.layers().items()
        if (f"{name}.weight" if name else "weight") in parts
    ]
    draw = torch.Generator().manual_seed(0)
    found = 0
    for (before, _), (after, layer) in pairwise(layers):
        units, out = len(parts[before]), parts[after]
        if out.dim() < 2 or out.shape[1] % units or getattr(layer, "groups", 1) != 1:
            continue
        signs = torch.randint(0, 2, (units,), generator=draw).to(theta) * 2 - 1
        into, whole = _generators(model, theta, before, after, signs)
        if _vanishes(model, theta, tasks, into, whole):
            found += units
    return found


def _generators(
    model: FlatModel, theta: Tensor, before: str, after: str, signs: Tensor
) -> tuple[Tensor, Tensor]:
    """Give the half of the combined generators that goes in, and all of it (P,)."""
    half = torch.zeros_like(theta)
    parts, moved = model.unflatten(theta), model.unflatten(half)
    for name in (before, before.removesuffix("weight") + "bias"):
        if name in parts:
            part = parts[name]
            moved[name].copy_(part * signs.view(-1, *(1,) * (part.dim() - 1)))
    into = half.clone()
    part = parts[after]
    # Behind a flattening every channel has several columns, one after the other.
    columns = signs.repeat_interleave(part.shape[1] // len(signs))
    moved[after].sub_(part * columns.view(1, -1, *(1,) * (part.dim() - 2)))
    return into, half


def _vanishes(
    model: FlatModel, theta: Tensor, tasks: Sequence[Task], into: Tensor, whole: Tensor
) -> bool:
    seen = False
    for task in tasks:
        x = task.train.first(_SAMPLES).x

        def outputs(point: Tensor, task: Task = task, x: Tensor = x) -> Tensor:
            return task_outputs(model, point, task, x)

        part, rest = (pushforward(outputs, (theta,), (v,))[1].norm() for v in (into, whole))
        if rest > _ROUNDING * torch.finfo(theta.dtype).eps * part:
            return False
        seen = seen or bool(part > 0)
    return seen
