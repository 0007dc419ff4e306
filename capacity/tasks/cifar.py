"""CIFAR-10 and CIFAR-100: Avalanche's split classics; inputs are (3, 32, 32)."""

from __future__ import annotations

from functools import partial

from capacity.tasks.avalanche_classics import ascending, classic_tasks
from capacity.tasks.sources import DataSource


def _source(classes: int, layout: str) -> DataSource:
    return DataSource(
        scenarios=("split",),
        classes=classes,
        takes=("heads", "samples"),
        downloads=True,
        build=lambda stream: classic_tasks(
            stream,
            f"CIFAR-{classes}",
            layout,
            lambda classic: partial(getattr(classic, f"SplitCIFAR{classes}"), **ascending(classes)),
        ),
    )


CIFAR10 = _source(10, "cifar-10-batches-py/data_batch_1 and its companions")
CIFAR100 = _source(100, "cifar-100-python/train, test and meta")
