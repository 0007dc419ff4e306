"""MNIST: Avalanche's split, permuted and rotated classics.

Avalanche permutes the pixels of every task, the first too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from capacity.recipe.config import TaskStream
from capacity.tasks.avalanche_classics import ascending, classic_tasks
from capacity.tasks.scenarios import angles
from capacity.tasks.sources import DataSource
from capacity.tasks.task import TaskSequence

CLASSES = 10


def mnist_tasks(stream: TaskStream) -> TaskSequence:
    """Build the tasks.

    Args:
        stream: A recipe's `tasks` section.

    Returns:
        The sequence; inputs are (1, 28, 28).
    """
    layout = "MNIST/raw/train-images-idx3-ubyte and its three companions"
    return classic_tasks(stream, "MNIST", layout, partial(_constructor, stream))


def _constructor(stream: TaskStream, classic: Any) -> Callable[..., Any]:
    if stream.scenario == "permuted":
        # The classic takes NumPy's legacy seeds, of 32 bits.
        return partial(classic.PermutedMNIST, seed=stream.seed % 2**32)
    if stream.scenario == "rotated":
        return partial(classic.RotatedMNIST, rotations_list=angles(stream))
    return partial(classic.SplitMNIST, **ascending(CLASSES))


SOURCE = DataSource(
    scenarios=("split", "permuted", "rotated"),
    classes=CLASSES,
    takes=("heads", "samples"),
    downloads=True,
    build=mnist_tasks,
)
