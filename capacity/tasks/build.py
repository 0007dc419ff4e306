"""From a recipe's `tasks` section to the tasks themselves."""

from __future__ import annotations

from dataclasses import replace

from capacity.recipe.config import TaskStream
from capacity.tasks.scenarios import angles
from capacity.tasks.sources import REGISTRY, DataSource
from capacity.tasks.task import Task, TaskSequence


def build_tasks(stream: TaskStream) -> TaskSequence:
    """Build the tasks of a recipe. The same section gives the same tasks.

    Args:
        stream: The recipe's `tasks` section.

    Returns:
        The sequence, named as the recipe's data set and scenario.

    Raises:
        ValueError: If the section asks for what does not exist, its data cannot be had, or it
            leaves the tasks to the Python API.
    """
    if stream.dataset == "custom":
        raise ValueError(
            "tasks.dataset = 'custom' means that the tasks come through the Python API: pass them "
            "as tasks=[(x, y), ...] or an Avalanche benchmark; accepted in a recipe: "
            + ", ".join(REGISTRY.names())
        )
    source = REGISTRY.load(stream.dataset)
    if not isinstance(source, DataSource):
        raise ValueError(
            f"tasks.dataset = {stream.dataset!r} was registered as a {type(source).__name__}; "
            "register a capacity.tasks.DataSource"
        )
    source.check(stream)
    built = source.build(stream)
    named = [
        replace(task, name=_title(source, stream, number, task))
        for number, task in enumerate(built.tasks)
    ]
    return replace(built, name=f"{stream.scenario} {stream.dataset}", tasks=tuple(named))


def _title(source: DataSource, stream: TaskStream, number: int, task: Task) -> str:
    # Say what sets a task apart from its neighbours.
    if stream.scenario == "rotated":
        return f"rotated {angles(stream)[number]:g} degrees"
    if stream.scenario == "permuted":
        return f"permutation {number}"
    if stream.scenario == "mixed":
        return source.mixed[number]
    if not task.classes:  # no classification: the source names its tasks
        return task.name
    first, last = task.classes[0], task.classes[-1]
    return f"class {first}" if first == last else f"classes {first}-{last}"
