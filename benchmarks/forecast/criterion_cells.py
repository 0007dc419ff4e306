"""The grid behind `criterion.py`: task pairs and sequences of digits, networks, and one cell each.

A cell is one transition: the network that learned the old tasks is judged before the new one, and
then learns it with the planned training. Every cell depends on its own name alone, so that a grid
can stop and go on.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy import ndimage
from sklearn.datasets import load_digits
from torch import Tensor, nn

from capacity.criterion.criterion import assess_transition
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from capacity.records.estimate import Estimate
from capacity.tasks.task import Split, Task
from capacity.training.data_order import DataOrder
from capacity.training.train import train

WIDTHS, EPOCHS, SEEDS = (16, 32, 64), (3, 10, 30), 3
SEQUENCE_WIDTHS = (16, 64)
RATE, BATCH = 0.1, 64
_TEST = 500

Build = Callable[[], tuple[Task, ...]]


@dataclass(frozen=True)
class Stream:
    """Tasks that are learned one after the other: a pair, or a longer sequence.

    Attributes:
        name: For people; what the halves and the bootstrap group by.
        family: Kind of difference between its tasks.
        build: Makes the tasks.
        widths: Hidden widths of its networks.
    """

    name: str
    family: str
    build: Build
    widths: tuple[int, ...] = WIDTHS


def streams() -> tuple[Stream, ...]:
    """List every pair and sequence of the grid."""
    made = []
    for draw in range(2):
        for share in (0.1, 0.25, 0.5, 1.0):
            made.append(_from_base(f"permuted {share:g} {draw}", "permuted", share, draw))
        for moved in (2, 4, 10):
            made.append(_from_base(f"labels {moved} {draw}", "labels", moved, draw))
    for angle in (10, 20, 30, 45, 60, 90, 180):
        made.append(_from_base(f"rotated {angle}", "rotated", angle, 0))
    for scale in (0.1, 0.3, 0.6, 1.0):
        made.append(_from_base(f"noise {scale:g}", "noise", scale, 0))
    every, evens = tuple(range(10)), (0, 2, 4, 6, 8)
    for old, new in (
        ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9)), (evens, (1, 3, 5, 7, 9)), (every[:8], (8, 9)),
        ((0, 1), (2, 3)), (every, every[:5]), ((3, 8), every),
    ):  # fmt: skip
        name = f"split {_digits(old)} {_digits(new)}"
        made.append(Stream(name, "split", lambda a=old, b=new: (classes(a), classes(b))))
    for old, new in ((every[:5], every[5:]), (evens, (1, 3, 5, 7, 9)), ((0, 1), (2, 3))):
        name = f"heads {_digits(old)} {_digits(new)}"
        made.append(Stream(name, "heads", lambda a=old, b=new: heads(a, b)))
    long = {
        "split": lambda: tuple(classes((2 * k, 2 * k + 1)) for k in range(5)),
        "permuted": lambda: tuple(_task(f"{k}", *_permuted(0.5 * (k > 0), k)) for k in range(5)),
        "rotated": lambda: tuple(_task(f"{k}", *_rotated(25 * k, 0)) for k in range(5)),
        "labels": lambda: tuple(_task(f"{k}", *_labels(4 * (k > 0), 10 + k)) for k in range(5)),
    }
    made += [
        Stream(f"sequence {kind}", "sequence", build, SEQUENCE_WIDTHS)
        for kind, build in long.items()
    ]
    return tuple(made)


@dataclass(frozen=True)
class Unit:
    """One network on one stream, which gives one cell per transition.

    Attributes:
        stream: The stream.
        width: Hidden width.
        epochs: Epochs of every task.
        seed: Seed of the initialisation and of the data orders.
    """

    stream: Stream
    width: int
    epochs: int
    seed: int

    @property
    def key(self) -> str:
        """The unit's name."""
        return f"{self.stream.name} / {self.width} / {self.epochs} / {self.seed}"


def units() -> list[Unit]:
    """List the grid in an order in which every beginning of it is a fair sample."""
    made = []
    for stream in streams():
        for width in stream.widths:
            for epochs in EPOCHS:
                seed = _hash(f"{stream.name} {width} {epochs}") % SEEDS
                made.append(Unit(stream, width, epochs, seed))
    return sorted(made, key=lambda unit: _hash(unit.key))


def cells(unit: Unit) -> Iterator[dict[str, object]]:
    """Judge every transition of a unit, then measure it.

    Args:
        unit: The unit.

    Yields:
        One record per transition: what was measured, and every form's estimate.
    """
    tasks = unit.stream.build()
    model, theta = _learned_first(unit, tasks[0])
    training = _training(unit.epochs)
    for k, new in enumerate(tasks[1:], start=1):
        old = tasks[:k]
        before = [_score(model, theta, task) for task in old]
        start = time.process_time()
        verdicts = assess_transition(model, theta[0], old, new, training)
        spent = time.process_time() - start
        # Two data orders: the second tells how much of the forgetting is chance.
        start = time.process_time()
        after = _learn(model, theta.expand(2, -1), new, training, unit.seed, k)
        trained = (time.process_time() - start) / 2
        now = [_score(model, after, task) for task in old]
        drops = [
            float(np.mean([b[0][0] - n[0][r] for b, n in zip(before, now, strict=True)]))
            for r in (0, 1)
        ]
        rise = float(np.mean([n[1][0] - b[1][0] for b, n in zip(before, now, strict=True)]))
        assert verdicts.drift is not None
        drift, room = verdicts.drift, verdicts.room
        yield {
            "stream": unit.stream.name, "family": unit.stream.family, "transition": k,
            "width": unit.width, "epochs": unit.epochs, "seed": unit.seed,
            "old_accuracy": float(np.mean([b[0][0] for b in before])),
            "drop": drops[0], "drop_again": drops[1], "loss_rise": rise,
            "new_accuracy": float(_score(model, after, new)[0][0]),
            "new_loss": float(evaluate(model, theta, new, new.train).loss[0]),
            "room_left": float(model.size - verdicts.removed),
            "verdict_s": spent, "training_s": trained,
            **_numbers("literal", verdicts.literal.value),
            **_numbers("kept", room.kept), **_numbers("log_volume", room.log_volume),
            **_numbers("cost", room.cost), **_numbers("extra", room.extra),
            **_numbers("needed", room.needed), **_numbers("participation", room.participation),
            **_numbers("lost", drift.lost), **_numbers("rise", drift.loss_rise),
            **_numbers("second_order", drift.second_order),
            **_numbers("distance", drift.distance), **_numbers("first_order", drift.first_order),
        }  # fmt: skip
        theta = after[:1]


def classes(labels: Sequence[int]) -> Task:
    """Digits of some classes, scored among all ten."""
    x, y, train, test = _digit_data()
    train, test = (part[torch.isin(y[part], torch.tensor(labels))] for part in (train, test))
    return Task(name=_digits(labels), train=Split(x[train], y[train]), test=Split(x[test], y[test]))


def heads(old: Sequence[int], new: Sequence[int]) -> tuple[Task, ...]:
    """Two tasks with a block of outputs each."""
    made, first = [], 0
    for labels in (old, new):
        task = classes(labels)
        place = torch.full((10,), -1)
        place[list(labels)] = torch.arange(len(labels))
        splits = [Split(s.x, place[s.y]) for s in (task.train, task.test)]
        outputs = tuple(range(first, first + len(labels)))
        made.append(Task(name=task.name, train=splits[0], test=splits[1], outputs=outputs))
        first += len(labels)
    return tuple(made)


def _from_base(name: str, family: str, amount: float, draw: int) -> Stream:
    make = {"permuted": _permuted, "labels": _labels, "rotated": _rotated, "noise": _noisy}[family]
    return Stream(name, family, lambda: (_task("base", *_base()), _task(name, *make(amount, draw))))


@cache
def _digit_data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs, labels, and the indices of the training and the test split."""
    data = load_digits()
    order = torch.tensor(np.random.default_rng(0).permutation(len(data.target)))
    x = torch.tensor(data.data / 16, dtype=torch.float32)
    return x, torch.tensor(data.target).long(), order[_TEST:], order[:_TEST]


def _task(name: str, x: Tensor, y: Tensor) -> Task:
    _, _, train, test = _digit_data()
    return Task(name=name, train=Split(x[train], y[train]), test=Split(x[test], y[test]))


def _base() -> tuple[Tensor, Tensor]:
    x, y, _, _ = _digit_data()
    return x, y


def _permuted(share: float, draw: int) -> tuple[Tensor, Tensor]:
    """Shuffle a share of the pixels among themselves."""
    x, y = _base()
    source = np.random.default_rng(draw)
    chosen = source.choice(64, int(64 * share), replace=False)
    order = np.arange(64)
    order[chosen] = source.permutation(chosen)
    return x[:, torch.tensor(order)], y


def _labels(moved: int, draw: int) -> tuple[Tensor, Tensor]:
    """Pass some labels round in a circle."""
    x, y = _base()
    chosen = np.random.default_rng(draw).choice(10, moved, replace=False)
    names = np.arange(10)
    names[chosen] = np.roll(chosen, 1)
    return x, torch.tensor(names)[y]


def _rotated(angle: float, _draw: int) -> tuple[Tensor, Tensor]:
    x, y = _base()
    turned = ndimage.rotate(x.numpy().reshape(-1, 8, 8), angle, axes=(1, 2), reshape=False, order=1)
    return torch.tensor(turned.reshape(-1, 64)).clamp(0, 1), y


def _noisy(scale: float, draw: int) -> tuple[Tensor, Tensor]:
    x, y = _base()
    noise = np.random.default_rng(100 + draw).standard_normal(x.shape)
    return x + scale * torch.tensor(noise, dtype=torch.float32), y


def _training(epochs: int) -> Training:
    return Training(optimizer="sgd", lr=RATE, epochs=epochs, batch_size=BATCH)


_FIRST: dict[tuple[str, int, int, int], Tensor] = {}
"""Networks that have learned a first task, which many pairs share."""


def _learned_first(unit: Unit, task: Task) -> tuple[FlatModel, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(unit.seed)
        model = FlatModel(
            nn.Sequential(nn.Linear(64, unit.width), nn.ReLU(), nn.Linear(unit.width, 10))
        )
    key = (f"{task.name} {task.outputs}", unit.width, unit.epochs, unit.seed)
    if key not in _FIRST:
        start = model.initial()[None]
        _FIRST[key] = _learn(model, start, task, _training(unit.epochs), unit.seed, 0)
    return model, _FIRST[key]


def _learn(
    model: FlatModel, theta: Tensor, task: Task, training: Training, seed: int, phase: int
) -> Tensor:
    order = DataOrder(
        samples=len(task.train), batch_size=training.batch_size, epochs=training.epochs,
        replicas=len(theta), seed=seed, path=("order", phase),
    )  # fmt: skip
    return train(model, theta, task, training, order).theta


def _score(model: FlatModel, theta: Tensor, task: Task) -> tuple[list[float], list[float]]:
    score = evaluate(model, theta, task, task.test)
    return score.accuracy.tolist(), score.loss.tolist()


def _numbers(name: str, estimate: Estimate) -> dict[str, float | None]:
    """Value and half-width of the 90 % interval; a form without a value counts as missing."""
    interval = estimate.interval
    half = 0.0 if interval is None else (interval[1] - interval[0]) / 2
    return {name: estimate.value, f"{name}_half": half}


def _digits(labels: Sequence[int]) -> str:
    return "".join(map(str, labels))


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
