"""Tasks from what people have at hand: tensors, data sets, loaders, Avalanche experiences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from capacity.tasks.assemble import check_loss, sequence
from capacity.tasks.task import LossFunction, Split, Task, TaskSequence

ACCEPTED = (
    "a pair of tensors (x, y), a pair ((x_train, y_train), (x_test, y_test)), a Dataset, "
    "a DataLoader, an Avalanche experience or a Task"
)


def as_task(
    data: object,
    *,
    name: str = "task",
    loss: str | LossFunction = "cross_entropy",
    test: object = None,
) -> Task:
    """Make a task out of data.

    Everything is read once, into memory: a random transformation is frozen as it came, a loader
    gives what one pass over it yields (dropped batches included), and an Avalanche experience its
    evaluation transform. NumPy floats become torch's default dtype; tensors keep theirs.

    Args:
        data: (x, y) as tensors or arrays; ((x_train, y_train), (x_test, y_test)), where each part
            may also be a Dataset, DataLoader or experience; one of those alone; or a Task, which
            is returned as it is.
        name: Name of the task, for people.
        loss: `cross_entropy` (integer targets (n,)), `mse` (values (n,) or (n, d)), or a function
            of (outputs, targets) that returns the mean.
        test: Held-out data, in any form that one split may have. None: if `data` brings none,
            the training samples are used, and every test score is a score on training data.

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
    train = _split("train", train_data, loss)
    return Task(
        name=name,
        train=train,
        test=train if test_data is None else _split("test", test_data, loss),
        loss=loss,
        classes=() if train.y.is_floating_point() else tuple(train.y.unique().tolist()),
    )


def old_tasks_of(old: object, *, loss: str | LossFunction) -> tuple[Task, ...]:
    """Turn what a user calls the old tasks into tasks.

    A list is several tasks, a tuple is one: ((x, y), (x, y)) is a task with its test split.

    Args:
        old: A task in one of the forms of `as_task`, or a list of them.
        loss: Loss of the tasks that do not bring one.

    Returns:
        The tasks, at least one.

    Raises:
        ValueError: If the list is empty.
    """
    if not isinstance(old, list):
        return (as_task(old, name="old", loss=loss),)
    if not old:
        raise ValueError("old is empty; pass at least one old task")
    return tuple(as_task(task, name=f"old {i}", loss=loss) for i, task in enumerate(old))


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
    if any(_is_array(item) for item in pairs):
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


def read_items(argument: str, items: Iterable[Any]) -> tuple[Tensor, Tensor]:
    """Stack samples.

    Args:
        argument: Name of the data, for the message.
        items: Samples (input, target, ...); what follows the target is ignored.

    Returns:
        Inputs (n, ...) and targets (n, ...).
    """
    xs, ys = [], []
    for item in items:
        x, y = _pair_of(argument, item)
        xs.append(_tensor(f"{argument} inputs", x))
        ys.append(_tensor(f"{argument} targets", y))
    return _join(argument, xs, ys, torch.stack)


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


def is_experience(data: object) -> bool:
    """Tell an Avalanche experience by what it has, without importing Avalanche.

    Args:
        data: Anything.

    Returns:
        Whether it is one.
    """
    return hasattr(data, "dataset") and hasattr(data, "current_experience")


def _train_and_test(data: object, test: object) -> tuple[object, object]:
    if not isinstance(data, list | tuple):
        return data, test
    if len(data) == 2 and all(_is_array(part) for part in data):
        return data, test
    if len(data) == 2 and not any(_is_array(part) for part in data):
        if test is not None:
            raise ValueError("test was given, but data already holds (train, test); leave one out")
        return data[0], data[1]
    kinds = ", ".join(type(part).__name__ for part in data)
    raise ValueError(f"data is a {type(data).__name__} of ({kinds}); accepted: {ACCEPTED}")


def _split(argument: str, data: Any, loss: str | LossFunction) -> Split:
    if isinstance(data, list | tuple):
        if len(data) != 2 or not all(_is_array(part) for part in data):
            kinds = ", ".join(type(part).__name__ for part in data)
            raise ValueError(
                f"{argument} data is a {type(data).__name__} of ({kinds}); "
                "pass (x, y), two tensors or arrays"
            )
        x, y = (_tensor(f"{argument} data", part) for part in data)
    elif isinstance(data, DataLoader):
        x, y = _read_loader(argument, data)
    elif is_experience(data):
        x, y = read_items(argument, rows(data.dataset.eval()))
    elif isinstance(data, TensorDataset) and len(data.tensors) >= 2:
        x, y = data.tensors[:2]
    elif isinstance(data, Dataset):
        counted = hasattr(data, "__len__") and not isinstance(data, IterableDataset)
        x, y = read_items(argument, rows(data) if counted else iter(data))
    else:
        raise ValueError(f"{argument} data is a {type(data).__name__}; accepted: {ACCEPTED}")
    return split_of(argument, x, y, loss)


def rows(dataset: Any) -> Iterable[Any]:
    """Iterate over a map-style data set, whose end `for` alone may not see.

    Args:
        dataset: Something with a length and items.

    Returns:
        Its items in order.
    """
    return (dataset[index] for index in range(len(dataset)))


def _read_loader(argument: str, loader: DataLoader[Any]) -> tuple[Tensor, Tensor]:
    xs, ys = [], []
    # A loader draws from the global generator: give it the same stream each time, and put the
    # user's own back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        for batch in loader:
            x, y = _pair_of(argument, batch)
            xs.append(_tensor(f"{argument} inputs", x))
            ys.append(_tensor(f"{argument} targets", y))
    return _join(argument, xs, ys, torch.cat)


def _join(argument: str, xs: list[Tensor], ys: list[Tensor], how: Any) -> tuple[Tensor, Tensor]:
    if not xs:
        raise ValueError(f"{argument} data is empty; pass at least one sample")
    try:
        return how(xs), how(ys)
    except RuntimeError:
        shapes = sorted({(tuple(x.shape), tuple(y.shape)) for x, y in zip(xs, ys, strict=True)})
        raise ValueError(
            f"{argument} samples have inputs and targets of differing shapes, as {shapes[:3]}; "
            "pad, crop or resize them alike"
        ) from None


def _pair_of(argument: str, item: Any) -> tuple[Any, Any]:
    if not isinstance(item, list | tuple) or len(item) < 2:
        raise ValueError(
            f"{argument} data yields a {type(item).__name__}; each sample must be a pair "
            "(input, target)"
        )
    return item[0], item[1]


def _is_array(value: object) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _tensor(argument: str, value: object) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.ndarray | np.generic | int | float) and np.asarray(value).dtype != "O":
        array = np.asarray(value)
        kind = torch.get_default_dtype() if array.dtype.kind == "f" else None
        try:
            return torch.as_tensor(np.array(array), dtype=kind)
        except TypeError:
            raise ValueError(f"{argument} have dtype {array.dtype}; pass numbers") from None
    raise ValueError(
        f"{argument} hold a {type(value).__name__}; transform them to tensors "
        "(images: torchvision.transforms.ToTensor())"
    )
