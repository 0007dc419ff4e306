"""Task sequences from Avalanche benchmarks, and from anything that is a sequence of tasks.

Avalanche takes seconds to import and writes a configuration file, so nothing here imports it:
whoever hands over a benchmark has it loaded already, and benchmarks are told by what they have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from capacity.tasks.assemble import Piece, assemble, check_loss
from capacity.tasks.experiences import task_labels
from capacity.tasks.reading import has_task_labels, read_items
from capacity.tasks.sampling import subsample_index
from capacity.tasks.splits import split_of
from capacity.tasks.task import LossFunction, Split, TaskSequence
from capacity.tasks.tensors import from_tensors


def from_avalanche(
    benchmark: Any,
    *,
    name: str = "avalanche",
    loss: str | LossFunction = "cross_entropy",
    samples: int | None = None,
    seed: int = 0,
) -> TaskSequence:
    """Read an Avalanche benchmark into memory.

    Both streams are read with their evaluation transform. Random augmentation is not applied: a
    training step would otherwise be no function of (theta, batch) alone, and a transport map or a
    forecast would belong to images that no later pass sees again.

    One task label in the training stream: all tasks share one head over all classes. More: each
    label has its own contiguous block of outputs (task-incremental), and targets count within it,
    whether the class ids start from zero in each experience or go on through the stream.

    The streams pair up by position. A test stream of one experience serves every task with its
    samples of the task's own classes and task label (with all of them in a regression).

    Args:
        benchmark: Has `train_stream` and `test_stream`.
        name: Name of the sequence.
        loss: Loss of every task.
        samples: At most this many training samples per task, the classes in proportion; None
            takes all.
        seed: Seed of that choice.

    Returns:
        The sequence, tasks in the order of the training stream.

    Raises:
        ValueError: If it is no benchmark, the streams do not pair up, an experience mixes task
            labels, or its samples are wrong.
    """
    check_loss(loss)
    if not is_benchmark(benchmark):
        raise ValueError(
            f"benchmark is a {type(benchmark).__name__} without train_stream and test_stream; "
            "pass an Avalanche benchmark, or a list of tasks to from_tensors"
        )
    train, test = list(benchmark.train_stream), list(benchmark.test_stream)
    if not train:
        raise ValueError("benchmark has an empty train_stream; it needs at least one experience")
    if len(test) not in {1, len(train)}:
        raise ValueError(
            f"benchmark has {len(train)} training but {len(test)} test experiences; "
            "give one test experience per training experience, or one for all"
        )

    held = [_read(f"test experience {i}", e, loss) for i, e in enumerate(test)]
    pieces = []
    for number, experience in enumerate(train):
        where = f"train experience {number}"
        split, labels = _read(where, experience, loss, samples=samples, seed=seed)
        if len(labels.unique()) > 1:
            raise ValueError(
                f"benchmark: {where} mixes the task labels {labels.unique().tolist()}; a task "
                "reads one head: give each label an experience of its own, or one label to all"
            )
        label = int(labels[0])
        if len(held) == len(train):
            held_split, held_labels = held[number]
            if len(train) > 1 and bool((held_labels != label).any()):
                raise ValueError(
                    f"benchmark: test experience {number} has the task labels "
                    f"{held_labels.unique().tolist()}, {where} has {label}; "
                    "pair the streams by position"
                )
        else:
            held_split = _own_part(number, split, label, *held[0])
        pieces.append(Piece(split, held_split, label))
    return assemble(name, pieces, loss)


def as_sequence(
    source: object,
    *,
    name: str | None = None,
    loss: str | LossFunction = "cross_entropy",
    test: Sequence[object] | None = None,
) -> TaskSequence:
    """Accept every kind of task sequence.

    Args:
        source: A TaskSequence (returned as it is), an Avalanche benchmark, or a list with one item
            per task as `from_tensors` takes it.
        name: Name of the sequence; None takes a general one.
        loss: Loss of the tasks that do not bring one.
        test: Held-out data per task, for a list only.

    Returns:
        The sequence.

    Raises:
        ValueError: If it is of another kind, or wrong in itself.
    """
    if isinstance(source, list | tuple):
        return from_tensors(source, name=name or "tasks", loss=loss, test=test)
    if test is not None:
        raise ValueError(
            f"test was given beside a {type(source).__name__}, which brings its own test data; "
            "leave test out"
        )
    if isinstance(source, TaskSequence):
        return source
    if is_benchmark(source):
        return from_avalanche(source, name=name or "avalanche", loss=loss)
    raise ValueError(
        f"tasks is a {type(source).__name__}; accepted: a TaskSequence, an Avalanche benchmark, or "
        "a list with one item per task, as [(x, y), ...]"
    )


def is_benchmark(source: object) -> bool:
    """Tell an Avalanche benchmark by what it has, without importing Avalanche.

    Args:
        source: Anything.

    Returns:
        Whether it is one.
    """
    return hasattr(source, "train_stream") and hasattr(source, "test_stream")


def _read(
    where: str,
    experience: Any,
    loss: str | LossFunction,
    *,
    samples: int | None = None,
    seed: int = 0,
) -> tuple[Split, torch.Tensor]:
    # Read an experience's (chosen) samples, and the task labels of all of its samples.
    dataset = experience.dataset.eval()
    if samples is not None and samples < len(dataset):
        targets = getattr(dataset, "targets", None)
        # Without a list of targets the choice cannot be balanced before the samples are read.
        labels = (
            torch.zeros(len(dataset))
            if targets is None
            else torch.stack([torch.as_tensor(target) for target in targets])
        )
        chosen = subsample_index(labels, samples, seed=seed, where=where).tolist()
    else:
        chosen = range(len(dataset))
    labelled = has_task_labels(dataset)
    x, y, _ = read_items(where, (dataset[i] for i in chosen), labelled=labelled)
    return split_of(where, x, y, loss), torch.tensor(task_labels(where, experience))


def _own_part(
    number: int, train: Split, label: int, test: Split, test_labels: torch.Tensor
) -> Split:
    # Take from a test set for all tasks what belongs to one.
    if test.y.is_floating_point():
        return test
    own = torch.isin(test.y, train.y)
    if len(test_labels.unique()) > 1:
        own &= test_labels == label
    if not bool(own.any()):
        raise ValueError(
            f"benchmark: the one test experience holds no sample of the classes "
            f"{train.y.unique().tolist()} of train experience {number}; add some"
        )
    return Split(test.x[own], test.y[own])
