"""The two splits of a task, out of what people have at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from capacity.tasks.batches import BatchLayout, is_tree
from capacity.tasks.layouts import same_layout
from capacity.tasks.reading import (
    is_experience,
    is_map_style,
    read_dataset,
    read_items,
    read_loader,
    read_mapping,
    read_pair,
    read_streamed,
    read_whole,
    rows,
)
from capacity.tasks.sample_parts import LABELS, is_array
from capacity.tasks.sampling import holdout
from capacity.tasks.split import LossFunction, Split, check_split, is_labels, keys_of
from capacity.tasks.streamed import Rows, Streamed

SHARE = 0.2
"""Share of the samples that is held out for testing where data come without a test split."""

ACCEPTED = (
    "a pair of tensors (x, y), a pair ((x_train, y_train), (x_test, y_test)), a Dataset, "
    "a DataLoader, a mapping of tensors with labels, capacity.Streamed(data), an Avalanche "
    "experience or a Task"
)


class Splits(NamedTuple):
    """The data of a task, named as its attributes are.

    Attributes:
        train: Training split.
        test: Test split; the training split itself where nothing was held out.
        classes: Labels as the data have them.
        held_out: Whether `test` was held out of `train` here.
        batch_size: Batch size of the loader of the training samples, if that has one.
        layout: How batches of several tensors lie in the inputs.
    """

    train: Split
    test: Split
    classes: tuple[int, ...]
    held_out: bool
    batch_size: int | None
    layout: BatchLayout | None


def read_splits(
    name: str,
    train_data: Any,
    test_data: Any = None,
    *,
    loss: str | LossFunction,
    share: float = SHARE,
    seed: int = 0,
    whole: bool = False,
) -> Splits:
    """Read the data of a task.

    Args:
        name: Name of the task, for messages.
        train_data: Training samples, in any form that one split may have.
        test_data: Test samples, likewise; None holds a share of the training samples out.
        loss: The loss.
        share: Share to hold out; 0 holds nothing out.
        seed: Seed of the choice.
        whole: Whether batches stay whole, targets among them, for a function that takes them.

    Returns:
        The splits. Data that cannot be used are a ValueError.
    """
    train, layout, batch_size = _split("train", train_data, loss, whole)
    held_out = test_data is None
    if test_data is not None:
        test, other, _ = _split("test", test_data, loss, whole)
        (train, test), layout = same_layout(f"task {name!r}", (train, test), (layout, other))
    else:
        check_split(f"task {name!r}, train", train, loss)  # before it is two
        train, test = _held_out(train, share, seed) if share else (train, train)
        held_out = test is not train
    every = [train.y] if test is train else [train.y, test.y]
    labels = all(is_labels(y) for y in every)
    classes = tuple(torch.cat(every).unique().tolist()) if labels else ()
    return Splits(train, test, classes, held_out, batch_size, layout)


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


def _held_out(data: Split, share: float, seed: int) -> tuple[Split, Split]:
    kept, held = holdout(
        data.y, share, seed=seed, keys=None if isinstance(data.x, Rows) else keys_of(data)
    )
    if not len(held):
        return data, data
    kept, held = kept.to(data.x.device), held.to(data.x.device)
    return data.take(kept), data.take(held)


def train_and_test(data: object, test: object) -> tuple[object, object]:
    """Tell one set of samples from a pair of them.

    Args:
        data: Samples, or a pair (train, test) of such.
        test: Test samples that were given beside; None where there are none.

    Returns:
        Training and test samples, the latter None where there are none.

    Raises:
        ValueError: If it is neither, or both bring test samples.
    """
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
    argument: str, data: Any, loss: str | LossFunction, whole: bool
) -> tuple[Split, BatchLayout | None, int | None]:
    # Read one split, how its batches lie in it, and the batch size that a loader brings.
    if isinstance(data, Streamed):
        x, y, layout = read_streamed(argument, data, whole=whole)
        return (Split(x, x) if whole else split_of(argument, x, y, loss)), layout, None
    if whole:
        (x, y, layout), batch_size = read_whole(argument, data)
        return Split(x, y), layout, batch_size
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
