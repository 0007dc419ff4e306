"""Baselines from slopes and curvatures at theta_A: B1 to B4, and B4's post-hoc ceiling.

D is the displacement of the closed-form flow (`kernels.displacement`); H_A and g_A are those of
the old task's mean test loss, g_B that of the new task's mean training loss, S the learning time.
"""

from __future__ import annotations

from torch import Tensor

from capacity.krylov.eigenspace import eigenpairs
from capacity.predictors.kernel_baselines import displacement
from capacity.predictors.predictor import Cell, Outcome, Predictor, Value, loss_alone, same


def path_bound(cell: Cell) -> Outcome:
    """B1: S |g_B|, an index.

    Args:
        cell: The replica.

    Returns:
        The same for every old task.
    """
    if not cell.model.transforms:
        return "The network has no gradient under torch's function transforms."
    return same(cell.time * float(cell.gradient.double().norm()), cell)


PATH_BOUND = Predictor(
    name="path_bound",
    code="B1",
    title="sum of learning rates x |g_B|",
    source="first order in the learning time",
    of=path_bound,
    in_runs=True,
)


def path_bound_squared(cell: Cell) -> Outcome:
    """B1 squared: S^2 |g_B|^2, an index.

    Args:
        cell: The replica.

    Returns:
        The same for every old task.
    """
    return same((cell.time * float(cell.gradient.double().norm())) ** 2, cell)


PATH_BOUND_SQUARED = Predictor(
    name="path_bound_squared",
    code="B1",
    title="(sum of learning rates x |g_B|)^2",
    source="first order in the learning time",
    of=path_bound_squared,
)


def gradient_curvature(cell: Cell) -> Outcome:
    """B2: 1/2 S^2 g_B' H_A g_B, the rise of A's loss along one straight step from its minimum.

    Args:
        cell: The replica.

    Returns:
        A value per old task.
    """
    return [_both(0.5 * cell.time**2 * cell.bend(task, cell.gradient)) for task in cell.old]


GRADIENT_CURVATURE = Predictor(
    name="gradient_curvature",
    code="B2",
    title="curvature of A along B's gradient",
    source="second order in the learning time, A at its minimum",
    of=gradient_curvature,
    in_units=loss_alone,
)


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


CURVATURE_BOUND = Predictor(
    name="curvature_bound",
    code="B3",
    title="largest curvature of A x squared displacement",
    source="bound of a quadratic at its minimum; displacement of the linearised flow",
    of=curvature_bound,
    in_units=loss_alone,
)


def second_order(cell: Cell) -> Outcome:
    """B4: g_A'D + 1/2 D' H_A D.

    Args:
        cell: The replica.

    Returns:
        A value per old task.
    """
    return _taylor(cell, displacement(cell))


SECOND_ORDER = Predictor(
    name="second_order",
    code="B4",
    title="second-order expansion of A's loss",
    source="Taylor expansion at the displacement of the linearised flow",
    of=second_order,
    in_units=loss_alone,
)


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


SECOND_ORDER_TRUE = Predictor(
    name="second_order_true",
    code="B4",
    title="ceiling: second order at the true displacement",
    source="Taylor expansion",
    of=second_order_true,
    post_hoc=True,
    in_units=loss_alone,
)


def _taylor(cell: Cell, moved: Tensor) -> list[Value]:
    return [
        _both(
            float(cell.old_gradient(task).double() @ moved.double()) + 0.5 * cell.bend(task, moved)
        )
        for task in cell.old
    ]


def _both(number: float) -> Value:
    return Value(number, number)
