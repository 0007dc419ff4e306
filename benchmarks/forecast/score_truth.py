"""The truth behind `score.py`: what training really does, one file per network on a pair.

Each network learns A and stands at theta_A; then it learns B twice, in two data orders (the second
tells how much no forecast can know), and for some networks under every strategy. A file is written
under another name and renamed, so that one that is there is whole: a stopped phase goes on where
it was, and several processes share the work.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from score_design import PLANS, STRATEGIES, Unit, flat_network, strategies, units
from torch import Tensor

from capacity.forecasting.mitigated import contribution_of
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Strategy, Training
from capacity.strategies.step import StrategyStep
from capacity.strategies.terms import Source
from capacity.tasks.task import Task
from capacity.training.data_order import DataOrder
from capacity.training.train import Phase, train

ORDERS = 2


def default_cache() -> Path:
    """Say where files lie if nobody says: in the user's cache folder, outside the repository."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "capacity" / "score"


def place(cache: Path, unit: Unit, folder: str) -> Path:
    """Name a unit's file; what the hash holds is all that the unit's training depends on.

    Args:
        cache: The cache.
        unit: The unit.
        folder: Kind of file.

    Returns:
        The path, without an ending.
    """
    text = json.dumps([
        unit.key,
        PLANS[unit.optimizer],
        unit.first_training.epochs,
        unit.compared and STRATEGIES,
    ])
    return cache / folder / hashlib.sha256(text.encode()).hexdigest()[:20]


def write(path: Path, record: object) -> None:
    """Write JSON in one step: the file is whole or not there.

    Args:
        path: Where to.
        record: What.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(record))
    part.replace(path)


def read(path: Path) -> dict | None:
    """Read JSON, or None where there is none.

    Args:
        path: Where from.

    Returns:
        The record.
    """
    return json.loads(path.read_text()) if path.exists() else None


@dataclass(frozen=True)
class Known:
    """A unit whose truth is there.

    Attributes:
        record: What was measured, `cells` among it.
        theta: Parameters before each transition (T, P).
        after: Parameters after it, first data order (T, P).
    """

    record: dict
    theta: Tensor
    after: Tensor


def known(cache: Path, unit: Unit) -> Known | None:
    """Read a unit's truth.

    Args:
        cache: The cache.
        unit: The unit.

    Returns:
        The truth; None where it was not measured yet.
    """
    path = place(cache, unit, "truth")
    record = read(path.with_suffix(".json"))
    if record is None:
        return None
    points = torch.load(path.with_suffix(".pt"), weights_only=True)
    return Known(record, points["theta"], points["after"])


def measure(cache: Path, unit: Unit) -> None:
    """Train a unit, and write its files.

    Args:
        cache: The cache.
        unit: The unit.
    """
    path = place(cache, unit, "truth")
    cells, points = [], []
    for cell, before, after in transitions(unit):
        cells.append(cell)
        points.append((before, after))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    theta, after = (torch.stack([pair[n] for pair in points]) for n in (0, 1))
    torch.save({"theta": theta, "after": after}, part)
    part.replace(path.with_suffix(".pt"))
    write(
        path.with_suffix(".json"), {"unit": unit.key, "parameters": theta.shape[1], "cells": cells}
    )


def transitions(unit: Unit) -> Iterator[tuple[dict, Tensor, Tensor]]:
    """Train a unit through its tasks.

    Args:
        unit: The unit.

    Yields:
        Per transition: what was measured, and theta (P,) before and after it.
    """
    tasks, model = unit.stream.build(), flat_network(unit)
    start = model.initial()[None]
    theta = learn(model, start, tasks[0], unit.first_training, unit.seed, 0).theta
    moved = float((theta - start).norm())
    for k, new in enumerate(tasks[1:], start=1):
        old = tasks[:k]
        then = [evaluate(model, theta, task, task.test) for task in old]
        clock = time.process_time()
        phase = learn(model, theta.expand(ORDERS, -1), new, unit.training, unit.seed, k)
        seconds = (time.process_time() - clock) / ORDERS
        cell = {
            "transition": k, "displacement": moved,
            "old_accuracy": mean([float(s.accuracy) for s in then]),
            "old_loss": mean([float(s.loss) for s in then]),
            "new_start": float(evaluate(model, theta, new, new.train).loss),
            "training_s": seconds,
            **outcome(model, theta, phase, old, new),
        }  # fmt: skip
        if unit.compared:
            cell["strategies"] = {
                name: under(options, model, theta, old, new, unit, k)
                for name, options in strategies().items()
            }
        after = phase.theta[:1]
        yield cell, theta[0], after[0]
        moved = float((after - theta).norm())
        theta = after


def outcome(
    model: FlatModel, theta: Tensor, phase: Phase, old: Sequence[Task], new: Task
) -> dict[str, object]:
    """Measure what a training did: one entry per replica, means over old tasks.

    Args:
        model: The network.
        theta: Parameters before it (1, P).
        phase: The training.
        old: The old tasks.
        new: The new one.

    Returns:
        Drop, rise, and accuracy and loss on the new task; lists over replicas.
    """
    then = [evaluate(model, theta, task, task.test) for task in old]
    now = [evaluate(model, phase.theta, task, task.test) for task in old]
    reached = evaluate(model, phase.theta, new, new.test)
    pairs = list(zip(then, now, strict=True))
    return {
        "drop": torch.stack([a.accuracy - b.accuracy for a, b in pairs]).mean(0).tolist(),
        "rise": torch.stack([b.loss - a.loss for a, b in pairs]).mean(0).tolist(),
        "new_accuracy": reached.accuracy.tolist(), "new_loss": reached.loss.tolist(),
        "diverged": phase.diverged is not None,
    }  # fmt: skip


def under(
    options: Strategy, model: FlatModel, theta: Tensor, old: tuple[Task, ...], new: Task,
    unit: Unit, k: int,
) -> dict[str, object]:  # fmt: skip
    """Learn the new task under a strategy that remembers the old ones from theta.

    Args:
        options: The strategy.
        model: The network.
        theta: Parameters before it (1, P).
        old: The old tasks.
        new: The new one.
        unit: The unit.
        k: Number of the transition.

    Returns:
        The outcome.
    """
    source = Source(unit.seed, ("strategy", k))
    plan = contribution_of(options, model, theta, old, new, unit.training, source)
    step = None if plan.plain else StrategyStep(model, new, plan, 1)
    phase = learn(model, theta, new, plan.training, unit.seed, k, strategy=step)
    return outcome(model, theta, phase, old, new)


def learn(
    model: FlatModel, theta: Tensor, task: Task, training: Training, seed: int, k: int,
    strategy: StrategyStep | None = None,
) -> Phase:  # fmt: skip
    order = DataOrder(
        samples=len(task.train), batch_size=training.batch_size, epochs=training.epochs,
        replicas=len(theta), seed=seed, path=("order", k),
    )  # fmt: skip
    return train(model, theta, task, training, order, strategy=strategy)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def in_turn(
    work: Callable[[Unit], object], wanted: Sequence[Unit], *, jobs: int, what: str
) -> None:
    """Do every unit once, over processes, and say so; an interruption loses only what is under way.

    Args:
        work: What to do, a function that a process can be handed.
        wanted: The units.
        jobs: Processes; with 1 there is none but this.
        what: Name of the work.
    """
    start, count = time.perf_counter(), len(wanted)

    def said(number: int, unit: Unit) -> None:
        spent = time.perf_counter() - start
        left = spent / number * (count - number)
        text = f"{what} {number}/{count} {unit.key}, {spent:.0f} s, about {left:.0f} s left"
        print(text, file=sys.stderr, flush=True)

    if jobs == 1:
        for number, unit in enumerate(wanted, start=1):
            work(unit)
            said(number, unit)
        return
    with ProcessPoolExecutor(jobs, get_context("fork"), torch.set_num_threads, (1,)) as pool:
        running = {pool.submit(_by_name, work, unit.key): unit for unit in wanted}
        try:
            for number, done in enumerate(as_completed(running), start=1):
                done.result()
                said(number, running[done])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _by_name(work: Callable[[Unit], object], key: str) -> None:
    # What builds a unit's tasks is no data: another process is told the name.
    work(next(unit for unit in units() if unit.key == key))


def truth(cache: Path, wanted: Sequence[Unit], *, jobs: int) -> None:
    """Measure what is missing.

    Args:
        cache: The cache.
        wanted: The units.
        jobs: Processes.
    """
    missing = [u for u in wanted if not place(cache, u, "truth").with_suffix(".json").exists()]
    in_turn(_Measure(cache), missing, jobs=jobs, what="truth")


@dataclass(frozen=True)
class _Measure:
    cache: Path

    def __call__(self, unit: Unit) -> None:
        measure(self.cache, unit)
