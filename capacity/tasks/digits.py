"""The digits that ship with scikit-learn: 1797 images of 8 x 8, a data set that needs no download.

Pixels are scaled to [0, 1] and inputs are flat. Training and test samples are split once, class by
class, so an image held out of one task is held out of all.
"""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from capacity.base.checks import one_of
from capacity.recipe.config import TaskStream
from capacity.tasks.assemble import Piece, assemble
from capacity.tasks.mixed_digits import MIXED, Variant, mixed, rotated
from capacity.tasks.sampling import holdout, subsample
from capacity.tasks.scenarios import angles, class_groups
from capacity.tasks.sources import DataSource
from capacity.tasks.task import Split

CLASSES = 10


def digits_benchmark(stream: TaskStream) -> Any:
    """Build the tasks as an Avalanche benchmark; Avalanche's own strategies train on it, too.

    Args:
        stream: A recipe's `tasks` section with dataset = 'digits'.

    Returns:
        A benchmark with `train_stream` and `test_stream`, one experience per task, a classes
        timeline, and a task label per experience where `heads` is set (else label 0).
    """
    with warnings.catch_warnings():
        # Avalanche's imports warn about optional solvers that are not installed.
        warnings.simplefilter("ignore")
        from avalanche.benchmarks import (
            benchmark_from_datasets,
            with_classes_timeline,
            with_task_labels,
        )

    pieces = _pieces(stream)
    benchmark = with_classes_timeline(
        with_task_labels(
            benchmark_from_datasets(
                train=[_experience(piece.train, piece.label) for piece in pieces],
                test=[_experience(piece.test, piece.label) for piece in pieces],
            )
        )
    )
    for part in benchmark.streams.values():
        for experience in part:
            # Avalanche stores a set here, which its multi-head layers cannot index with.
            experience.classes_in_this_experience = sorted(experience.classes_in_this_experience)
    return benchmark


def _rows() -> NDArray[np.float64]:
    """Read pixels and label of every digit (1797, 65); scikit-learn takes a second to import."""
    package = importlib.util.find_spec("sklearn")
    where = "" if package is None else package.origin or ""
    table = Path(where).with_name("datasets") / "data" / "digits.csv.gz"
    if not table.is_file():  # a later version may keep it elsewhere
        from sklearn.datasets import load_digits

        data = load_digits()
        return np.column_stack([data.data, data.target])
    return np.loadtxt(table, delimiter=",")


def _pieces(stream: TaskStream) -> list[Piece]:
    rows = torch.from_numpy(_rows())
    x, y = rows[:, :-1].float() / 16.0, rows[:, -1].long()
    train, test = holdout(y, stream.test_fraction, seed=stream.seed)
    pieces = []
    for number, variant in enumerate(_variants(stream, x, y)):
        wanted = torch.isin(y, torch.tensor(variant.classes))
        kept, held = train[wanted[train]], test[wanted[test]]
        pieces.append(
            Piece(
                subsample(
                    Split(variant.x[kept], variant.y[kept]),
                    stream.samples,
                    seed=stream.seed,
                    where=f"task {number}",
                ),
                Split(variant.x[held], variant.y[held]),
                number if stream.heads else 0,
            )
        )
    return pieces


def _variants(stream: TaskStream, x: Tensor, y: Tensor) -> list[Variant]:
    every = tuple(range(CLASSES))
    if stream.scenario == "split":
        return [Variant(x, y, tuple(group)) for group in class_groups(stream, CLASSES)]
    if stream.scenario == "rotated":
        return [Variant(rotated(x, angle), y, every) for angle in angles(stream)]
    if stream.scenario == "mixed":
        return mixed(stream, x, y)
    one_of("tasks.scenario", stream.scenario, ("permuted",))
    random = np.random.default_rng((stream.seed, 2))
    orders = [random.permutation(x.shape[1]) for _ in range(stream.experiences - 1)]
    permuted = (x[:, torch.from_numpy(order)] for order in orders)
    return [Variant(inputs, y, every) for inputs in (x, *permuted)]


def _experience(split: Split, label: int) -> Any:
    from avalanche.benchmarks.utils import (
        ConstantSequence,
        DataAttribute,
        TaskAwareSupervisedClassificationDataset,
    )
    from torch.utils.data import TensorDataset

    return TaskAwareSupervisedClassificationDataset(
        [TensorDataset(split.x, split.y)],
        data_attributes=[
            DataAttribute(split.y.tolist(), "targets"),
            DataAttribute(
                ConstantSequence(label, len(split)), "targets_task_labels", use_in_getitem=True
            ),
        ],
    )


SOURCE = DataSource(
    scenarios=("split", "permuted", "rotated", "mixed"),
    classes=CLASSES,
    takes=("heads", "samples", "test_fraction"),
    downloads=False,
    mixed=MIXED,
    # The same tasks as from the benchmark, without the seconds that Avalanche's import takes.
    build=lambda stream: assemble("digits", _pieces(stream), "cross_entropy"),
)
