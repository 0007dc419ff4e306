"""What the two speed scripts share: replicas of 64-64-10 on the digits, and a clock."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import TaskStream
from capacity.tasks import build_tasks
from capacity.tasks.task import Task
from capacity.thermo.landscape import TaskLandscape

LR, BATCH = 0.1, 64


def digits() -> Task:
    """All ten digits as one task, inputs flattened."""
    return build_tasks(TaskStream(dataset="digits", experiences=1))[0]


def network(seed: int) -> nn.Module:
    """64-64-10, initialised from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def prepared(count: int) -> tuple[TaskLandscape, Tensor]:
    """The landscape, and the positions of the replicas (N, P)."""
    landscape = TaskLandscape(model=FlatModel(network(0)), task=digits(), batch_size=BATCH)
    return landscape, torch.stack([FlatModel(network(r)).initial() for r in range(count)])


def alternating(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Wall seconds of each run, taken in turn, so that a busy spell hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    return times


def conditions() -> str:
    """The machine in a line."""
    return (
        f"torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} cores; "
        "wall time, the best of the rounds, which are taken in turn"
    )
