"""The tasks of the scored grid: pairs of every kind of difference, and sequences of ten.

Three sets. The first is a list written by hand, all of it for development: its forecasts were
looked at while the engine and its calibration were made. The second is drawn by a hash of names,
and half of every family is held out; it was written down before anything was trained on it. The
third is drawn like it, all for development.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import torch
from criterion_cells import (
    Stream,
    _digits,
    _hash,
    _labels,
    _noisy,
    _permuted,
    _rotated,
    _task,
    classes,
    heads,
)
from torch import Tensor

from capacity.tasks.task import Split, Task

LENGTH = 10
"""Tasks of a sequence."""
_FIRST_DRAW, _SECOND_DRAW = 60, 1000
"""Draws of permutations start here; those of the engine's own pairs are below."""
_SAMPLES, _TEST = 1297, 500
_SEQUENCES = {"permuted": 4, "rotated": 4, "labels": 4, "noise": 2, "clusters": 3, "classes": 3}


def listed() -> tuple[Stream, ...]:
    """List the first set."""
    base = partial(_task, "base")
    made = []

    def drawn(family: str, make: Callable, amount: float, draw: int) -> None:
        name = f"{family} {amount:g} {draw}"
        made.append(
            Stream(name, family, lambda: (base(*_plain()), _task(name, *make(amount, draw))))
        )

    for number, share in enumerate((0.2, 0.3, 0.45, 0.6, 0.8, 0.95)):
        for draw in range(2):
            drawn("permuted", _permuted, share, _FIRST_DRAW + 2 * number + draw)
    for number, moved in enumerate((2, 4, 6, 8, 10)):
        for draw in range(2):
            drawn("labels", _labels, moved, _FIRST_DRAW + 2 * number + draw)
    for angle in (12, 25, 40, 52, 65, 85, 105, 140, 165):
        drawn("rotated", _rotated, angle, 0)
    for scale in (0.15, 0.35, 0.5, 0.7, 0.9, 1.2):
        drawn("noise", _noisy, scale, _FIRST_DRAW)
    for old, new in (
        ("012", "3456789"), ("0123", "4567"), ("789", "012"), ("024", "579"), ("012345", "6789"),
        ("23456", "01789"), ("45", "67"), ("147", "258"), ("012345678", "9"), ("369", "0124578"),
    ):  # fmt: skip
        made.append(_of_classes("split", old, new))
    for old, new in (
        ("012", "345"), ("0257", "1369"), ("46", "19"), ("01234567", "89"), ("147", "0258"),
        ("56789", "01234"),
    ):  # fmt: skip
        made.append(_of_classes("heads", old, new))
    for number, moved in enumerate((0.2, 0.35, 0.5, 0.65, 0.8, 1.0)):
        name = f"clusters {moved:g}"
        made.append(Stream(name, "clusters", lambda m=moved, n=number: _clusters((0, m), n)))
    made += [Stream(f"sequence {name}", "sequence", build) for name, build in _sequences().items()]
    return tuple(made)


def drawn() -> tuple[Stream, ...]:
    """Draw the second set: amounts, draws, classes and first tasks by a hash of a number."""
    return tuple(stream for family in _DRAWN for stream in _of(family)[: _DRAWN_EACH[family]])


def further() -> tuple[Stream, ...]:
    """Draw the third set, in the same way: pairs that the correction learns from."""
    return tuple(stream for family in _DRAWN for stream in _of(family)[_DRAWN_EACH[family] :])


@cache
def _of(family: str) -> tuple[Stream, ...]:
    found, made = {stream.name for stream in listed()}, list[Stream]()
    wanted = _DRAWN_EACH[family] + (0 if family == "sequence" else _FURTHER)
    number = 0
    while len(made) < wanted:
        stream = _DRAWN[family](np.random.default_rng(_hash(f"{family} {number}")), number)
        number += 1
        if stream.name not in found:
            found.add(stream.name)
            made.append(stream)
    return tuple(made)


def _permutation(source: np.random.Generator, number: int) -> Stream:
    share, draw = round(source.uniform(0.15, 1.0), 2), _SECOND_DRAW + number
    return _from(f"permuted {share:g} {draw}", "permuted", partial(_permuted, share, draw))


def _relabelling(source: np.random.Generator, number: int) -> Stream:
    moved, draw = int(source.integers(2, 11)), _SECOND_DRAW + number
    return _from(f"labels {moved} {draw}", "labels", partial(_labels, moved, draw))


def _turn(source: np.random.Generator, _number: int) -> Stream:
    first, angle = int(source.integers(0, 360)), round(source.uniform(8.0, 175.0), 1)
    return _from(
        f"rotated {first} by {angle:g}", "rotated",
        partial(_rotated, first + angle, 0), partial(_rotated, float(first), 0),
    )  # fmt: skip


def _noise(source: np.random.Generator, number: int) -> Stream:
    before, scale = round(source.uniform(0, 0.3), 2), round(source.uniform(0.15, 1.3), 2)
    draw = _SECOND_DRAW + 2 * number
    return _from(
        f"noise {before:g} {scale:g} {draw}", "noise",
        partial(_noisy, scale, draw), partial(_noisy, before, draw + 1),
    )  # fmt: skip


def _some_classes(family: str) -> Callable[[np.random.Generator, int], Stream]:
    def draw(source: np.random.Generator, _number: int) -> Stream:
        # A head of one class has nothing to learn.
        least = 2 if family == "heads" else 1
        many = int(source.integers(2, 9))
        few = int(source.integers(least, 11 - many)) if 10 - many > least else least
        order = source.permutation(10)
        old, new = (_digits(sorted(part)) for part in (order[:many], order[many : many + few]))
        return _of_classes(family, old, new)

    return draw


def _moved_classes(source: np.random.Generator, number: int) -> Stream:
    moved, draw = round(source.uniform(0.15, 1.0), 2), _SECOND_DRAW + number
    return Stream(f"clusters {moved:g} {draw}", "clusters", lambda: _clusters((0, moved), draw))


def _ten_tasks(source: np.random.Generator, number: int) -> Stream:
    kind = [name for name, count in _SEQUENCES.items() for _ in range(count)][number]
    draw = _SECOND_DRAW + 100 * (1 + number)
    if kind == "classes":
        order = _digits(source.permutation(10))
        return Stream(f"sequence classes {order}", "sequence", lambda: _one_by_one(order))
    low, high = {
        "permuted": (0.2, 0.8), "rotated": (5.0, 20.0), "labels": (3, 8), "noise": (0.05, 0.15),
        "clusters": (0.05, 0.11),
    }[kind]  # fmt: skip
    amount = int(source.integers(low, high)) if kind == "labels" else source.uniform(low, high)
    amount = round(amount, 3)
    grows = kind in {"rotated", "noise", "clusters"}
    amounts = [amount * k if grows else amount for k in range(LENGTH)]
    make = {"permuted": _permuted, "rotated": _rotated, "labels": _labels, "noise": _noisy}
    return Stream(
        f"sequence {kind} {amount:g} {draw}", "sequence",
        (lambda: _clusters(tuple(amounts), draw)) if kind == "clusters"
        else (lambda: _each(make[kind], amounts, draw)),
    )  # fmt: skip


_DRAWN: dict[str, Callable[[np.random.Generator, int], Stream]] = {
    "permuted": _permutation, "labels": _relabelling, "rotated": _turn, "noise": _noise,
    "split": _some_classes("split"), "heads": _some_classes("heads"), "clusters": _moved_classes,
    "sequence": _ten_tasks,
}  # fmt: skip
_DRAWN_EACH = {
    family: sum(_SEQUENCES.values()) if family == "sequence" else 30 for family in _DRAWN
}
_FURTHER = 90
"""Pairs of each family in the second set, and in the third: three times as many, because the
correction still learns from more."""


def _from(
    name: str,
    family: str,
    new: Callable[[], tuple[Tensor, Tensor]],
    old: Callable[[], tuple[Tensor, Tensor]] | None = None,
) -> Stream:
    first = _plain if old is None else old
    return Stream(name, family, lambda: (_task("base", *first()), _task(name, *new())))


def _plain() -> tuple[Tensor, Tensor]:
    return _noisy(0.0, 0)


def _of_classes(family: str, old: str, new: str) -> Stream:
    labels = [tuple(map(int, text)) for text in (old, new)]
    if family == "heads":
        return Stream(f"heads {old} {new}", family, lambda: heads(*labels))
    return Stream(f"split {old} {new}", family, lambda: tuple(classes(each) for each in labels))


def _clusters(moved: tuple[float, ...], draw: int) -> tuple[Task, ...]:
    """Ten Gaussian classes in 64 dimensions; a task turns every mean from the first task's."""
    source = np.random.default_rng((draw, 7))
    first, made = source.standard_normal((10, 64)), []
    for number, share in enumerate(moved):
        means = math.sqrt(1 - share**2) * first + share * source.standard_normal((10, 64))
        y = source.integers(10, size=_SAMPLES + _TEST)
        x = 0.4 * (0.35 * means[y] + source.standard_normal((len(y), 64)))
        rows, labels = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
        made.append(
            Task(
                name=f"clusters {number}",
                train=Split(rows[:_SAMPLES], labels[:_SAMPLES]),
                test=Split(rows[_SAMPLES:], labels[_SAMPLES:]),
            )
        )
    return tuple(made)


def _each(make: Callable, amounts: list[float], first: int) -> tuple[Task, ...]:
    return tuple(
        _task(f"{k}", *(make(a, first + k) if k else _plain())) for k, a in enumerate(amounts)
    )


def _one_by_one(order: str) -> tuple[Task, ...]:
    return tuple(classes((int(label),)) for label in order)


def _sequences() -> dict[str, Callable[[], tuple[Task, ...]]]:
    steps = range(LENGTH)
    return {
        "permuted 0.3": partial(_each, _permuted, [0.3] * LENGTH, 80),
        "permuted 0.65": partial(_each, _permuted, [0.65] * LENGTH, 100),
        "rotated 8": partial(_each, _rotated, [8.0 * k for k in steps], 0),
        "rotated 17": partial(_each, _rotated, [17.0 * k for k in steps], 0),
        "labels 4": partial(_each, _labels, [4] * LENGTH, 120),
        "labels 6": partial(_each, _labels, [6] * LENGTH, 140),
        "noise 0.12": partial(_each, _noisy, [0.12 * k for k in steps], 160),
        "clusters 0.07": lambda: _clusters(tuple(0.07 * k for k in steps), 20),
        "clusters 0.1": lambda: _clusters(tuple(0.1 * k for k in steps), 21),
        "classes 0 to 9": partial(_one_by_one, _digits(range(LENGTH))),
    }
