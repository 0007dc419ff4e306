"""Small Avalanche benchmarks, for tests of tasks."""

from __future__ import annotations

import torch

from capacity.tasks.digits import _experience
from capacity.tasks.task import Split

ZERO_BASED = [[0, 1], [0, 1, 2], [0, 1]]
GLOBAL = [[0, 1], [2, 3, 4], [5, 6]]


def data(classes, per_class=4, shift=0.0):
    y = torch.tensor(classes).repeat(per_class)
    x = torch.stack([y.float() + shift, torch.arange(len(y)).float()], dim=1)
    return Split(x, y)


def benchmark(train, test, labels=None, test_labels=None):
    from avalanche.benchmarks import benchmark_from_datasets, with_task_labels

    labels = labels or [0] * len(train)
    return with_task_labels(
        benchmark_from_datasets(
            train=[_experience(s, t) for s, t in zip(train, labels, strict=True)],
            test=[_experience(s, t) for s, t in zip(test, test_labels or labels, strict=True)],
        )
    )
