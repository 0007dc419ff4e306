"""Tasks of one network, whose batches are filled up to the longest sample of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from capacity.tasks.layouts import both_layouts, widened
from capacity.tasks.task import Task


def aligned(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """Lay the batches of some tasks out alike.

    Args:
        tasks: The tasks.

    Returns:
        The tasks, with one layout.

    Raises:
        ValueError: If batches are of different kinds, or only some tasks have losses of their own.
    """
    without = [task.name for task in tasks if task.losses is None]
    if without and len(without) < len(tasks):
        raise ValueError(
            f"task {without[0]!r} has no losses and others have; give every task losses=, a "
            "function of (model, batch)"
        )
    layout = tasks[0].layout if tasks else None
    for task in tasks[1:]:
        layout = both_layouts(f"task {task.name!r} and task {tasks[0].name!r}", layout, task.layout)
    return tuple(
        task
        if layout is None or task.layout is None or task.layout == layout
        else replace(
            task,
            train=widened(task.train, task.layout, layout),
            test=widened(task.test, task.layout, layout),
            layout=layout,
        )
        for task in tasks
    )
