"""How one set of data becomes a sequence of tasks: by its classes, or by rotations."""

from __future__ import annotations

import numpy as np

from capacity.recipe.config import TaskStream


def class_groups(stream: TaskStream, classes: int) -> list[range]:
    """Deal classes out to the tasks of a split, in ascending order.

    Args:
        stream: A recipe's `tasks` section.
        classes: Number of classes of the data set.

    Returns:
        The classes of each task.

    Raises:
        ValueError: If they do not divide evenly.
    """
    if classes % stream.experiences:
        divisors = [n for n in range(1, classes + 1) if classes % n == 0]
        raise ValueError(
            f"tasks.experiences = {stream.experiences} does not divide the {classes} classes of "
            f"{stream.dataset}; accepted: {', '.join(map(str, divisors))}"
        )
    size = classes // stream.experiences
    return [range(start, start + size) for start in range(0, classes, size)]


def angles(stream: TaskStream) -> list[float]:
    """List the rotations of the tasks, in equal steps from 0 to `max_angle`.

    Args:
        stream: A recipe's `tasks` section.

    Returns:
        Degrees, counter-clockwise, one per task; a single task is not rotated.
    """
    return np.linspace(0.0, stream.max_angle, stream.experiences).tolist()
