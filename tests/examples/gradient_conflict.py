"""A predictor of one's own: how far the gradients of the old and the new task point apart."""

from __future__ import annotations

from capacity.predictors.predictor import Cell, Outcome, Predictor, Value
from capacity.predictors.registry import register


def conflict(cell: Cell) -> Outcome:
    """Minus the cosine of g_A and g_B, an index from -1 to 1 for every old task."""
    made = []
    for task in cell.old:
        g_a, g_b = cell.old_gradient(task).double(), cell.gradient.double()
        index = -float(g_a @ g_b / (g_a.norm() * g_b.norm()).clamp(min=1e-300))
        made.append(Value(index, index))
    return made


GRADIENT_CONFLICT = register(
    Predictor(
        name="gradient_conflict",
        title="conflict of the tasks' gradients",
        source="Yu et al. 2020 (arXiv 2001.06782)",
        of=conflict,
        in_runs=True,
    )
)
