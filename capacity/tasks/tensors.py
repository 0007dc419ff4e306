"""Tasks from what people have at hand: tensors, data sets, loaders, Avalanche experiences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from capacity.base.checks import positive_int
from capacity.tasks.alignment import same_layout
from capacity.tasks.assemble import check_loss, renumber, sequence
from capacity.tasks.batches import BatchLayout, is_tree
from capacity.tasks.experiences import head_of, is_experience, paired_test
from capacity.tasks.reading import (
    is_map_style,
    read_dataset,
    read_items,
    read_loader,
    read_mapping,
    read_pair,
    rows,
)
from capacity.tasks.sample_parts import LABELS, is_array
from capacity.tasks.sampling import holdout
from capacity.tasks.task import (
    LossFunction,
    Split,
    Task,
    TaskSequence,
    check_split,
    is_labels,
    keys_of,
)

SHARE = 0.2
"""Share of the samples that is held out for testing where data come without a test split."""

ACCEPTED = (
    "a pair of tensors (x, y), a pair ((x_train, y_train), (x_test, y_test)), a Dataset, "
    "a DataLoader, a mapping of tensors with labels, an Avalanche experience or a Task"
)


def hold_out(
    data: object,
    *,
    share: float = SHARE,
    seed: int = 0,
    name: str = "task",
    loss: str | LossFunction = "cross_entropy",
) -> Task:
    """Hold a share of some data out for testing, as every function of this package does by itself.

    Samples are drawn at random, class by class where targets are class indices: a share of each
    class, at least one sample of it, and never its last one. The same data, share and seed give the
    same split, so `.train` and `.test` are what `forecast` and the others use where they are given
    `data` alone. Train a network on `.train` if its scores on `.test` shall be test scores.

    Args:
        data: One set of samples: `(x, y)`, a `Dataset`, a `DataLoader` or an Avalanche experience.
        share: Share held out, in [0, 1). 0 holds nothing out: the training samples are the test
            samples, and every score is called a training score.
        seed: Seed of the choice.
        name: Name of the task, for people.
        loss: As in `forecast`.

    Returns:
        The task. Its `scored_on` says `training` where nothing is, or can be, held out (one sample
        per class).

    Raises:
        ValueError: If the data already bring a test split, or cannot be used.

    Example:
        >>> import torch, capacity
        >>> x, y = torch.randn(50, 4), torch.arange(50) % 2
        >>> task = capacity.hold_out((x, y))
        >>> len(task.train), len(task.test), task.scored_on
        (40, 10, 'test')
    """
    check_loss(loss)
    number = isinstance(share, int | float) and not isinstance(share, bool)
    if not number or not 0 <= share < 1:
        raise ValueError(
            f"share = {share!r} must be a number in [0, 1), as 0.2 for a fifth; 0 scores on the "
            "training samples"
        )
    positive_int("seed", seed, minimum=0)
    if isinstance(data, Task):
        raise ValueError("data is a Task, which brings its own test split; use it as it is")
    train_data, test_data = _train_and_test(data, None)
    if test_data is not None:
        raise ValueError("data already holds (train, test); pass one set of samples")
    return _task(train_data, None, name=name, loss=loss, share=share, seed=seed)


def as_task(
    data: object,
    *,
    name: str = "task",
    loss: str | LossFunction = "cross_entropy",
    test: object = None,
    share: float = SHARE,
) -> Task:
    """Make a task out of data.

    Everything is read once, into memory: a random transformation is frozen as it came, a loader
    gives what one pass over it yields (dropped batches included), and an Avalanche experience its
    evaluation transform. NumPy floats become torch's default dtype; tensors keep theirs.

    Args:
        data: (x, y) as tensors or arrays; ((x_train, y_train), (x_test, y_test)), where each part
            may also be a Dataset, DataLoader or experience; one of those alone; or a Task, which
            is returned as it is. An experience of a benchmark with several task labels reads the
            outputs of its own label.
        name: Name of the task, for people.
        loss: `cross_entropy` (integer targets (n,)), `mse` (values (n,) or (n, d)), or a function
            of (outputs, targets) that returns the mean.
        test: Held-out data, in any form that one split may have. None: if `data` brings none, a
            training experience takes the one at its place in the test stream; from all else a
            share is held out, as `hold_out` does.
        share: Share to hold out; 0 where nothing but the training loss is wanted.

    Returns:
        The task.

    Raises:
        ValueError: If `data` or `test` is of another kind, empty, holds NaN, does not pair up, or
            does not fit the loss.
    """
    check_loss(loss)
    if isinstance(data, Task):
        if test is not None:
            raise ValueError("test was given beside a Task, which brings its own; leave test out")
        return data
    train_data, test_data = _train_and_test(data, test)
    if test_data is None and is_experience(train_data) and share:
        test_data = paired_test("train data", train_data)
    return _task(train_data, test_data, name=name, loss=loss, share=share, seed=0)


def old_tasks_of(old: object, *, loss: str | LossFunction) -> tuple[Task, ...]:
    """Turn what a user calls the old tasks into tasks.

    A list is several tasks, and so is a mapping of names to tasks; a tuple is one: ((x, y), (x, y))
    is a task with its test split, and a mapping with labels holds one task's tensors.

    Args:
        old: A task in one of the forms of `as_task`, a list of them, or a mapping.
        loss: Loss of the tasks that do not bring one.

    Returns:
        The tasks, at least one.

    Raises:
        ValueError: If the list is empty.
    """
    named = named_tasks(old)
    if not named:
        raise ValueError("old is empty; pass at least one old task")
    return tuple(as_task(task, name=name, loss=loss) for name, task in named.items())


def named_tasks(old: object) -> dict[str, object]:
    """Give what a user calls the old tasks their names.

    Args:
        old: As in `old_tasks_of`.

    Returns:
        Each task's data by its name.
    """
    # A mapping of tensors is one task's data; a mapping of data sets is several tasks.
    if isinstance(old, Mapping) and not any(name in old for name in LABELS):
        return {str(name): data for name, data in old.items()}
    if isinstance(old, list) and not is_samples(old):
        return {f"old {k}": data for k, data in enumerate(old)}
    return {"old": old}


def is_samples(data: object) -> bool:
    """Tell a list of samples, each a mapping whose label stands alone, from a list of tasks.

    Args:
        data: Anything.

    Returns:
        Whether it is one.
    """
    if not isinstance(data, list) or not data or not isinstance(data[0], Mapping):
        return False
    label = next((data[0][name] for name in LABELS if name in data[0]), None)
    return isinstance(label, int | float) or (isinstance(label, Tensor) and label.dim() == 0)


def from_tensors(
    pairs: Sequence[object],
    *,
    name: str = "tasks",
    loss: str | LossFunction = "cross_entropy",
    test: Sequence[object] | None = None,
    n_outputs: int | None = None,
) -> TaskSequence:
    """Make a sequence out of a list of data, one item per task, all on one head.

    Args:
        pairs: One item per task, each of a kind that `as_task` takes. A Task keeps its own name,
            loss and outputs.
        name: Name of the sequence.
        loss: Loss of the tasks that do not bring one.
        test: Held-out data, one item per task; None as in `as_task`.
        n_outputs: Width of the model's output; None takes the least that the tasks need: the
            largest label plus one, or the width of the targets.

    Returns:
        The sequence.

    Raises:
        ValueError: If `pairs` is no list of tasks, `test` does not match it, or an item is wrong.
    """
    check_loss(loss)
    if not isinstance(pairs, list | tuple) or not pairs:
        came = "empty" if isinstance(pairs, list | tuple) else f"a {type(pairs).__name__}"
        raise ValueError(f"tasks is {came}; pass a list with one item per task: {ACCEPTED}")
    if any(is_array(item) for item in pairs):
        raise ValueError(
            "tasks holds bare tensors; pass a list with one item per task, as [(x, y)]"
        )
    if test is not None and (not isinstance(test, list | tuple) or len(test) != len(pairs)):
        came = f"{len(test)} items" if isinstance(test, list | tuple) else type(test).__name__
        raise ValueError(
            f"test is {came}; pass a list of {len(pairs)} items, one per task, or None"
        )
    tasks = []
    for number, item in enumerate(pairs):
        held = None if test is None else test[number]
        try:
            tasks.append(as_task(item, name=f"task {number}", loss=loss, test=held))
        except ValueError as error:
            # The item's own message starts with the part of the task that is wrong.
            said = str(error)
            where = "" if said.startswith("task ") else f"task {number}: "
            raise ValueError(f"{where}{said}") from None
    return sequence(name, tasks, loss, n_outputs)


def split_of(argument: str, x: Tensor, y: Tensor, loss: str | LossFunction) -> Split:
    """Bring inputs and targets into the form that a loss takes.

    Args:
        argument: Name of the data, for the message.
        x: Inputs (n, ...).
        y: Targets (n, ...).
        loss: The loss.

    Returns:
        The split: labels as int64; values under mse in the dtype of floating inputs.

    Raises:
        ValueError: If the inputs are bytes, which no layer takes.
    """
    if x.dtype == torch.uint8:
        raise ValueError(
            f"{argument} inputs have dtype uint8; scale them to floats first, as x.float() / 255"
        )
    if loss == "mse":
        kind = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        return Split(x, y.to(kind))
    return Split(x, y if y.is_floating_point() else y.long())


def _task(
    train_data: Any,
    test_data: Any,
    *,
    name: str,
    loss: str | LossFunction,
    share: float,
    seed: int,
) -> Task:
    train, layout, batch_size = _split("train", train_data, loss)
    head = head_of("train data", train_data) if is_experience(train_data) else None
    held_out = test_data is None
    if test_data is not None:
        test, other, _ = _split("test", test_data, loss)
        (train, test), layout = same_layout(f"task {name!r}", (train, test), (layout, other))
    else:
        check_split(f"task {name!r}, train", train, loss)  # before it is two
        train, test = _held_out(train, share, seed) if share else (train, train)
        held_out = test is not train
    every = [train.y] if test is train else [train.y, test.y]
    labels = all(is_labels(y) for y in every)
    task = Task(
        name=name,
        train=train,
        test=test,
        loss=loss,
        classes=tuple(torch.cat(every).unique().tolist()) if labels else (),
        held_out=held_out,
        batch_size=batch_size,
        layout=layout,
    )
    if head is None:
        return task
    numbered = renumber(train, head.ids)
    return replace(
        task,
        outputs=head.outputs,
        train=numbered,
        test=numbered if test is train else renumber(test, head.ids),
    )


def _held_out(data: Split, share: float, seed: int) -> tuple[Split, Split]:
    kept, held = holdout(data.y, share, seed=seed, keys=keys_of(data))
    if not len(held):
        return data, data
    kept, held = kept.to(data.x.device), held.to(data.x.device)
    return Split(data.x[kept], data.y[kept]), Split(data.x[held], data.y[held])


def _train_and_test(data: object, test: object) -> tuple[object, object]:
    if not isinstance(data, list | tuple) or is_samples(data):
        return data, test
    if len(data) == 2 and is_array(data[1]) and (is_array(data[0]) or is_tree(data[0])):
        return data, test
    if len(data) == 2 and not any(is_array(part) for part in data):
        if test is not None:
            raise ValueError("test was given, but data already holds (train, test); leave one out")
        return data[0], data[1]
    raise ValueError(f"data is a {type(data).__name__} of ({_kinds(data)}); accepted: {ACCEPTED}")


def _kinds(data: Sequence[object]) -> str:
    kinds = ", ".join(type(part).__name__ for part in data[:4])
    return f"{kinds} and {len(data) - 4} more" if len(data) > 4 else kinds


def _split(
    argument: str, data: Any, loss: str | LossFunction
) -> tuple[Split, BatchLayout | None, int | None]:
    # Read one split, how its batches lie in it, and the batch size that a loader brings.
    batch_size = None
    if is_samples(data):
        samples = read_items(argument, data)
    elif isinstance(data, list | tuple):
        if len(data) != 2 or not (is_array(data[0]) or is_tree(data[0])) or not is_array(data[1]):
            raise ValueError(
                f"{argument} data is a {type(data).__name__} of ({_kinds(data)}); "
                "pass (x, y), two tensors or arrays, as numpy.asarray(x)"
            )
        samples = read_pair(argument, *data)
    elif isinstance(data, Mapping):
        samples = read_mapping(argument, data)
    elif isinstance(data, DataLoader):
        samples, batch_size = read_loader(argument, data)
    elif is_experience(data):
        samples = read_items(argument, rows(data.dataset.eval()), labelled=True)
    elif isinstance(data, Dataset) or is_map_style(data):
        samples = read_dataset(argument, data)
    else:
        raise ValueError(f"{argument} data is a {type(data).__name__}; accepted: {ACCEPTED}")
    return split_of(argument, samples.x, samples.y, loss), samples.layout, batch_size
