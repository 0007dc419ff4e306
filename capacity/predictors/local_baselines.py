"""Baselines from slopes and curvatures at theta_A: B1 to B4, and B4's post-hoc ceiling.

D is the displacement of the closed-form flow (`kernels.displacement`); H_A and g_A are those of
the old task's mean test loss, g_B that of the new task's mean training loss, S the learning time.
"""

from __future__ import annotations

from torch import Tensor

from capacity.krylov.eigenspace import eigenpairs
from capacity.predictors.kernel_baselines import displacement
from capacity.predictors.predictor import Cell, Outcome, Value, same


def path_bound(cell: Cell) -> Outcome:
    """B1: S |g_B|, an index.

    Args:
        cell: The replica.

    Returns:
        The same for every old task.
    """
    return same(cell.time * float(cell.gradient.double().norm()), cell)


def path_bound_squared(cell: Cell) -> Outcome:
    """B1 squared: S^2 |g_B|^2, an index.

    Args:
        cell: The replica.

    Returns:
        The same for every old task.
    """
    return same((cell.time * float(cell.gradient.double().norm())) ** 2, cell)


def gradient_curvature(cell: Cell) -> Outcome:
    """B2: 1/2 S^2 g_B' H_A g_B, the rise of A's loss along one straight step from its minimum.

    Args:
        cell: The replica.

    Returns:
        A value per old task.
    """
    return [_both(0.5 * cell.time**2 * cell.bend(task, cell.gradient)) for task in cell.old]


def curvature_bound(cell: Cell) -> Outcome:
    """B3: 1/2 lambda_max(H_A) |D|^2, the most that a displacement of D's length costs A's minimum.

    Args:
        cell: The replica.

    Returns:
        A value per old task.
    """
    squared = float(displacement(cell).double().square().sum())
    made = []
    for j, task in enumerate(cell.old):
        found = eigenpairs(
            cell.curvature(task), cell.theta, generator=cell.generator(f"top {j}"), count=1
        )
        made.append(_both(0.5 * float(found.values[0]) * squared))
    return made


def second_order(cell: Cell) -> Outcome:
    """B4: g_A'D + 1/2 D' H_A D.

    Args:
        cell: The replica.

    Returns:
        A value per old task.
    """
    return _taylor(cell, displacement(cell))


def second_order_true(cell: Cell) -> Outcome:
    """B4 with the true displacement: how far a quadratic model of A's loss can go.

    Args:
        cell: The replica.

    Returns:
        A value per old task.
    """
    if cell.setting.after is None:
        return "A post-hoc ceiling needs the network after the new task."
    return _taylor(cell, cell.setting.after[cell.replica] - cell.theta)


def _taylor(cell: Cell, moved: Tensor) -> list[Value]:
    return [
        _both(
            float(cell.old_gradient(task).double() @ moved.double()) + 0.5 * cell.bend(task, moved)
        )
        for task in cell.old
    ]


def _both(number: float) -> Value:
    return Value(number, number)
