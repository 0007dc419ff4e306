"""From splits with task labels to a sequence: which outputs of the model each task reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple

import torch

from capacity.base.checks import positive_int
from capacity.tasks.alignment import aligned
from capacity.tasks.batches import BatchLayout
from capacity.tasks.task import (
    LOSSES,
    LossFunction,
    Split,
    Task,
    TaskSequence,
    is_labels,
    n_classes,
)


class Piece(NamedTuple):
    """One task before its outputs are known.

    Attributes:
        train: Training split, targets as the data set has them.
        test: Held-out split, likewise.
        label: Task label; tasks of one label share their outputs.
    """

    train: Split
    test: Split
    label: int = 0


def assemble(
    name: str,
    pieces: Sequence[Piece],
    loss: str | LossFunction,
    *,
    layout: BatchLayout | None = None,
) -> TaskSequence:
    """Give each task its outputs: one head for all, or a block of outputs per task label.

    One task label: all tasks share a head, and target c means output c. More than one: each label
    has its own contiguous block, one output per class seen under that label (in train or test), in
    the order of the class ids; targets then count within the block. That is the same for class ids
    that start from zero in each experience and for ids that go on through the sequence.

    Args:
        name: Name of the sequence.
        pieces: The tasks in their order, each with one input shape.
        loss: Loss of every task.
        layout: How batches of several tensors lie in the inputs of all tasks.

    Returns:
        The sequence.
    """
    made = _assembled(name, pieces, loss)
    if layout is None:
        return made
    return replace(made, tasks=tuple(replace(task, layout=layout) for task in made.tasks))


def _assembled(name: str, pieces: Sequence[Piece], loss: str | LossFunction) -> TaskSequence:
    labels = sorted({piece.label for piece in pieces})
    if len(labels) < 2:
        return sequence(name, [(piece.train, piece.test) for piece in pieces], loss)

    seen = {label: _classes(p for p in pieces if p.label == label) for label in labels}
    widths = [
        len(seen[label]) or max(_width(p.train) for p in pieces if p.label == label)
        for label in labels
    ]
    place = blocks(dict(zip(labels, widths, strict=True)))
    tasks = []
    for number, piece in enumerate(pieces):
        ids = seen[piece.label]
        tasks.append(
            Task(
                name=f"task {number}",
                train=renumber(piece.train, ids),
                test=renumber(piece.test, ids),
                outputs=place[piece.label],
                loss=loss,
                classes=tuple(_classes([piece])),
            )
        )
    return TaskSequence(name=name, tasks=tuple(tasks), n_outputs=sum(widths))


def sequence(
    name: str,
    tasks: Sequence[Task | tuple[Split, Split]],
    loss: str | LossFunction,
    n_outputs: int | None = None,
) -> TaskSequence:
    """Put tasks behind one another on a model whose outputs they share.

    Args:
        name: Name of the sequence.
        tasks: Tasks as they are, or (train, test) for a task that reads all outputs.
        loss: Loss of the tasks made here.
        n_outputs: Width of the model's output; None takes the least that the tasks need.

    Returns:
        The sequence.

    Raises:
        ValueError: If `n_outputs` is no count, or regression targets differ in width.
    """
    whole = tuple(
        task
        if isinstance(task, Task)
        else Task(
            name=f"task {number}",
            train=task[0],
            test=task[1],
            loss=loss,
            classes=tuple(_classes([Piece(*task)])),
        )
        for number, task in enumerate(tasks)
    )
    whole = aligned(whole)
    if n_outputs is None:
        n_outputs = max((_outputs_of(task) for task in whole), default=1)
    positive_int("n_outputs", n_outputs)
    for task in whole:
        width = _width(task.train)
        read = n_outputs if task.outputs is None else len(task.outputs)
        if task.loss == "mse" and width != read:
            raise ValueError(
                f"task {task.name!r} has targets of {width} numbers, but reads {read} outputs; "
                "under mse they must agree: give all tasks targets of one width"
            )
    return TaskSequence(name=name, tasks=whole, n_outputs=n_outputs)


def check_loss(loss: object) -> None:
    """Check a loss at the door, before any data is read.

    Args:
        loss: What came.

    Raises:
        ValueError: If it is neither a known name nor a function.
    """
    if callable(loss) or (isinstance(loss, str) and loss in LOSSES):
        return
    raise ValueError(
        f"loss = {loss!r} is not known; accepted: {', '.join(LOSSES)}, or a function of "
        "(outputs, targets)"
    )


def blocks(widths: Mapping[int, int]) -> dict[int, tuple[int, ...]]:
    """Deal outputs out to task labels: each has a contiguous block, in the order of the labels.

    Args:
        widths: Outputs of each label.

    Returns:
        Indices of the outputs by label.
    """
    ends = dict(zip(sorted(widths), accumulate(widths[k] for k in sorted(widths)), strict=True))
    return {label: tuple(range(end - widths[label], end)) for label, end in ends.items()}


def renumber(split: Split, ids: list[int]) -> Split:
    """Count targets within a block of outputs.

    Args:
        split: Targets as the data set has them.
        ids: Class ids of the block, ascending; empty leaves the targets.

    Returns:
        The split, each target the position of its class id.
    """
    if not ids:
        return split
    return Split(split.x, torch.searchsorted(torch.tensor(ids), split.y))


def _classes(pieces: Iterable[Piece]) -> list[int]:
    # List the class ids of some pieces; empty for regression.
    splits = [split for piece in pieces for split in (piece.train, piece.test)]
    if not all(is_labels(split.y) for split in splits):
        return []
    return torch.cat([split.y.flatten() for split in splits]).unique().tolist()


def _width(split: Split) -> int:
    return split.y[0].numel() if len(split) else 1


def _outputs_of(task: Task) -> int:
    if task.outputs is not None:
        return max(task.outputs) + 1
    whole = not task.train.y.is_floating_point() and task.loss != "mse"
    if task.classifies or whole:  # whole numbers under a loss of one's own: labels per token, say
        return n_classes([task.train, task.test])
    return _width(task.train)
