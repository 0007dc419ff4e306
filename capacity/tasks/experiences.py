"""One Avalanche experience by itself: its benchmark says which outputs and which test data it has.

Avalanche takes seconds to import, so nothing here imports it: its objects are told by what they
have.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from capacity.tasks.assemble import blocks
from capacity.tasks.reading import is_experience as is_experience
from capacity.tasks.reading import read_items, rows


class Head(NamedTuple):
    """The outputs of a task label.

    Attributes:
        outputs: Indices of the model outputs.
        ids: The class ids that they stand for, in order.
    """

    outputs: tuple[int, ...]
    ids: list[int]


def task_labels(where: str, experience: Any) -> list[int]:
    """Read the task label of each sample.

    Args:
        where: Name of the experience, for the message.
        experience: The experience.

    Returns:
        One label per sample; zeros where the data set has none.

    Raises:
        ValueError: If the labels are not as many as the samples.
    """
    dataset = experience.dataset.eval()
    given = getattr(dataset, "targets_task_labels", None)
    labels = [0] * len(dataset) if given is None else [int(label) for label in given]
    if len(labels) != len(dataset):
        raise ValueError(f"{where} has {len(dataset)} samples, but {len(labels)} task labels")
    return labels


def head_of(where: str, experience: Any) -> Head | None:
    """Find the outputs that an experience's task label has in its benchmark.

    The layout is that of `from_avalanche`: a contiguous block of outputs per task label, one for
    each class seen under it, in the order of the class ids.

    Args:
        where: Name of the experience, for the message.
        experience: The experience.

    Returns:
        Its head; None where the benchmark has one task label, so that all outputs are read.

    Raises:
        ValueError: If it mixes task labels, or what its label means cannot be told.
    """
    own = sorted(set(task_labels(where, experience)))
    if len(own) > 1:
        raise ValueError(
            f"{where} mixes the task labels {own}; a task reads one head: give each label an "
            "experience of its own, or one label to all"
        )
    train, test = _streams_of(experience)
    if not train:
        if own == [0]:
            return None
        raise ValueError(
            f"{where} has the task label {own[0]}, but no stream that says which outputs of the "
            "model it has; pass a Task with outputs=, or a benchmark to capacity.run"
        )
    labels = {label for part in train for label in task_labels(where, part)}
    if len(labels | set(own)) < 2:
        return None
    seen: dict[int, set[int]] = {label: set() for label in sorted(labels | set(own))}
    parts = [*train, *(test if len(test) == len(train) else []), experience]
    for part in parts:
        for label, target in zip(task_labels(where, part), _targets(where, part), strict=True):
            if label in seen:
                seen[label].add(target)
    ids = {label: sorted(classes) for label, classes in seen.items()}
    return Head(blocks({label: len(i) for label, i in ids.items()})[own[0]], ids[own[0]])


def paired_test(where: str, experience: Any) -> Any:
    """Find the test experience of a training experience.

    Args:
        where: Name of the experience, for the message.
        experience: The experience.

    Returns:
        The one at its place in its benchmark's test stream; None where that is not known, or does
        not pair up.
    """
    train, test = _streams_of(experience)
    if getattr(getattr(experience, "origin_stream", None), "name", "") != "train":
        return None
    place = experience.current_experience
    if len(train) != len(test) or not 0 <= place < len(test):
        return None
    paired = test[place]
    same = set(task_labels(where, paired)) == set(task_labels(where, experience))
    return paired if same else None


def _streams_of(experience: Any) -> tuple[list[Any], list[Any]]:
    # List the training and test experiences of a benchmark; of some, only one's own stream is had.
    stream = getattr(experience, "origin_stream", None)
    benchmark = getattr(stream, "benchmark", None)
    if benchmark is not None:
        return list(benchmark.train_stream), list(benchmark.test_stream)
    return ([] if stream is None else list(stream)), []


def _targets(where: str, experience: Any) -> list[int]:
    dataset = experience.dataset
    given = getattr(dataset, "targets", None)
    if given is None:
        _, y, _ = read_items(where, rows(dataset.eval()), labelled=True)
        given = y
    targets = torch.stack([torch.as_tensor(target) for target in given])
    if targets.is_floating_point() or targets.dim() != 1:
        raise ValueError(
            f"{where} has a task label, but targets that are no class indices; pass a Task with "
            "outputs= for a head of a regression"
        )
    return [int(target) for target in targets]
