"""Tasks from what people have at hand: tensors, data sets, loaders, Avalanche experiences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from capacity.base.checks import positive_int
from capacity.tasks.assemble import check_loss, renumber, sequence
from capacity.tasks.experiences import head_of, is_experience, paired_test
from capacity.tasks.sample_parts import LABELS, is_array
from capacity.tasks.splits import ACCEPTED, SHARE, is_samples, read_splits, train_and_test
from capacity.tasks.task import LossFunction, Task, TaskSequence


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
    train_data, test_data = train_and_test(data, None)
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
    train_data, test_data = train_and_test(data, test)
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


def _task(
    train_data: Any,
    test_data: Any,
    *,
    name: str,
    loss: str | LossFunction,
    share: float,
    seed: int,
) -> Task:
    head = head_of("train data", train_data) if is_experience(train_data) else None
    made = read_splits(name, train_data, test_data, loss=loss, share=share, seed=seed)
    train, test = made.train, made.test
    task = Task(name=name, loss=loss, **made._asdict())
    if head is None:
        return task
    numbered = renumber(train, head.ids)
    return replace(
        task,
        outputs=head.outputs,
        train=numbered,
        test=numbered if test is train else renumber(test, head.ids),
    )
