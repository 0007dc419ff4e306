"""What not forgetting costs: the cheapest way to a new task, free and keeping the old ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from capacity.criterion.preserving import (
    Preserving,
    default_tolerance,
    preserving_projector,
)
from capacity.networks.flat_model import FlatModel
from capacity.products.curvature_operators import ggn
from capacity.tasks.task import Task
from capacity.thermo.reachable import ReachableSet, reachable_task

REPLICAS = 3
"""Replicas that are priced: the curvature of every old task is taken at each of them."""
SAMPLES = 50
"""Samples of the new task that a solution has to fit."""
RESIDUE_LEFT = 0.1
"""Share of the squared residual that a solution may leave."""


def price_of_keeping(
    model: FlatModel, theta: Tensor, old: Sequence[Task], new: Task, *, duration: float
) -> list[ReachableSet]:
    """Price a new task, free and keeping each of the old ones.

    The old task's tolerance is the standard error of its test loss; directions are moved as far as
    the free solution is away.

    Args:
        model: The network.
        theta: Positions of the ensemble (N, P); the first finite ones are priced.
        old: The old tasks, on the model's device.
        new: The new task, likewise.
        duration: Learning time of the new task.

    Returns:
        One record per old task, with the transport cost and the extra dissipation.
    """
    device = new.train.x.device
    rows = torch.stack([row for row in theta if bool(torch.isfinite(row).all())][:REPLICAS])
    rows = rows.to(device)
    settings = {"duration": duration, "samples": SAMPLES, "residue_left": RESIDUE_LEFT}
    everything = Preserving(
        removed_basis=rows.new_zeros(0, rows.shape[1]),
        curvatures=rows.new_zeros(0),
        tolerance=1.0,
        displacement=1.0,
    )
    made: list[ReachableSet] = []
    if not old:
        return made
    free = reachable_task(model, rows, new, [everything] * len(rows), **settings)  # type: ignore[arg-type]
    far = free.free.distance.value or 1.0
    for task in old:
        keepers = [
            preserving_projector(
                ggn(model, task, row, task.train.first(10 * SAMPLES)),
                row,
                tolerance=default_tolerance(model, row, [task]),
                displacement=far,
                generator=torch.Generator(device).manual_seed(k),
            )
            for k, row in enumerate(rows)
        ]
        made.append(reachable_task(model, rows, new, keepers, **settings))  # type: ignore[arg-type]
    return made
