"""Tasks of one network, whose batches are filled up to the longest sample of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch.nn import functional

from capacity.tasks.batches import BatchLayout
from capacity.tasks.task import Split, Task

_IGNORED = -100
"""Label of what no loss of torch's and Hugging Face's counts."""


def aligned(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """Lay the batches of some tasks out alike.

    Args:
        tasks: The tasks.

    Returns:
        The tasks, with one layout. Batches of different kinds are a ValueError that names the task.
    """
    layout = tasks[0].layout if tasks else None
    for task in tasks[1:]:
        layout = _both(f"task {task.name!r} and task {tasks[0].name!r}", layout, task.layout)
    return tuple(
        task
        if layout is None or task.layout is None or task.layout == layout
        else replace(
            task,
            train=_widened(task.train, task.layout, layout),
            test=_widened(task.test, task.layout, layout),
            layout=layout,
        )
        for task in tasks
    )


def same_layout(
    argument: str, splits: Sequence[Split], layouts: Sequence[BatchLayout | None]
) -> tuple[tuple[Split, ...], BatchLayout | None]:
    """Lay splits out alike: batches of shorter samples are filled up to the longest.

    Args:
        argument: Whose splits these are, for the message.
        splits: The splits.
        layouts: The layout of each.

    Returns:
        The splits, and the layout that all of them have. Batches of different kinds are a
        ValueError.
    """
    wide = layouts[0]
    for layout in layouts[1:]:
        wide = _both(argument, wide, layout)
    pairs = zip(splits, layouts, strict=True)
    return tuple(
        split if wide is None or own is None or own == wide else _widened(split, own, wide)
        for split, own in pairs
    ), wide


def _both(argument: str, one: BatchLayout | None, other: BatchLayout | None) -> BatchLayout | None:
    if one is None and other is None:
        return None
    wide = one.wider(other) if one is not None and other is not None else None
    if wide is None:
        said = [layout.described if layout is not None else "one tensor" for layout in (one, other)]
        raise ValueError(
            f"{argument}: batches are of different kinds, {said[0]} and {said[1]}; give all the "
            "same entries"
        )
    return wide


def _widened(split: Split, own: BatchLayout, wide: BatchLayout) -> Split:
    y = split.y
    if y.dim() == 2 and not y.is_floating_point():  # a label per token, or several per sample
        for before, after in zip(own.fields, wide.fields, strict=True):
            if len(before.shape) == 1 and before.width == y.shape[1] < after.width:
                more = after.width - before.width
                y = functional.pad(y, (more, 0) if after.left else (0, more), value=_IGNORED)
                break
    return Split(wide.pack(own.unpack(split.x)), y)
