"""The digits that ship with scikit-learn: 1797 images of 8 x 8, a data set that needs no download.

Pixels are scaled to [0, 1] and inputs are flat. Training and test samples are split once, class by
class, so an image held out of one task is held out of all.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from capacity.recipe.config import TaskStream
from capacity.tasks.assemble import Piece, assemble
from capacity.tasks.sampling import holdout, subsample
from capacity.tasks.scenarios import angles, class_groups
from capacity.tasks.sources import DataSource
from capacity.tasks.task import Split

SIDE = 8
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


def _pieces(stream: TaskStream) -> list[Piece]:
    from sklearn.datasets import load_digits

    data = load_digits()
    x = torch.from_numpy(data.data).float() / 16.0
    y = torch.from_numpy(data.target).long()
    train, test = holdout(y, stream.test_fraction, seed=stream.seed)
    pieces = []
    for number, (inputs, own) in enumerate(_variants(stream, x)):
        wanted = torch.isin(y, torch.tensor(own))
        kept, held = train[wanted[train]], test[wanted[test]]
        pieces.append(
            Piece(
                subsample(
                    Split(inputs[kept], y[kept]),
                    stream.samples,
                    seed=stream.seed,
                    where=f"task {number}",
                ),
                Split(inputs[held], y[held]),
                number if stream.heads else 0,
            )
        )
    return pieces


def _variants(stream: TaskStream, x: Tensor) -> list[tuple[Tensor, list[int]]]:
    # List the inputs and the classes of each task.
    if stream.scenario == "split":
        return [(x, list(group)) for group in class_groups(stream, CLASSES)]
    every = list(range(CLASSES))
    if stream.scenario == "rotated":
        return [(_rotate(x, angle), every) for angle in angles(stream)]
    random = np.random.default_rng((stream.seed, 2))
    orders = [random.permutation(SIDE * SIDE) for _ in range(stream.experiences - 1)]
    return [(x, every), *((x[:, torch.from_numpy(order)], every) for order in orders)]


def _rotate(x: Tensor, angle: float) -> Tensor:
    if angle == 0:
        return x
    from scipy import ndimage

    images = x.numpy().reshape(-1, SIDE, SIDE)
    # Linear interpolation: higher orders overshoot and would leave [0, 1].
    turned = ndimage.rotate(images, angle, axes=(1, 2), reshape=False, order=1)
    return torch.from_numpy(turned.reshape(len(x), -1)).clamp(0.0, 1.0)


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
    scenarios=("split", "permuted", "rotated"),
    classes=CLASSES,
    takes=("heads", "samples", "test_fraction"),
    downloads=False,
    # The same tasks as from the benchmark, without the seconds that Avalanche's import takes.
    build=lambda stream: assemble("digits", _pieces(stream), "cross_entropy"),
)
