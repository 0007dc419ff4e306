"""The grid behind `score.py`: which tasks, networks and trainings, and which half each falls in.

Everything here is a function of names, through a hash, and fixed before anything is trained. No
pair of tasks is one on which the engine was developed: those have other amounts, or other draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

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
from criterion_scores import halves
from torch import Tensor, nn

from capacity.config import Strategy, Training
from capacity.dynamics.flat import FlatModel
from capacity.tasks.task import Split, Task

WIDTHS, DEPTHS = (24, 48, 96), (1, 2, 3)
MLPS = tuple(f"mlp {width} x {depth}" for width in WIDTHS for depth in DEPTHS)
NETWORKS = (*MLPS, "cnn", "cnn", "transformer")
"""Drawn from with equal chances: nine MLPs, the CNN twice, the transformer (slow) once."""
PLANS = {
    "sgd": {"optimizer": "sgd", "lr": 0.2},
    "momentum": {"optimizer": "momentum", "lr": 0.02},
    "adam": {"optimizer": "adam", "lr": 0.001},
}
EPOCHS, SEQUENCE_EPOCHS, FIRST_EPOCHS = (10, 20, 40), (10, 20), 25
BATCH, SEEDS, PER_PAIR = 64, 5, 4
STRATEGIES = {
    "l2": {"name": "l2"},
    "ewc": {"name": "ewc"},
    "replay": {"name": "replay", "memory": 30},
    "lwf": {"name": "lwf"},
    "agem": {"name": "agem", "memory": 30},
    "lower_lr": {"name": "lower_lr"},
}
"""What competes against forgetting. Memories are a few per cent of A: all of A would always win."""
_COMPARED = 3
"""One in this many networks on a pair is trained under every strategy, too."""
DEVELOPMENT, HELD_OUT = "development", "held-out"
GRIDS = ("small", "full")

_FIRST_DRAW = 60
"""Draws of permutations start here; those of the development's pairs are below."""
_TASKS = 10
_SAMPLES, _TEST = 1297, 500


@dataclass(frozen=True)
class Unit:
    """One network on one pair or sequence of tasks: a cell per transition.

    Attributes:
        stream: The tasks.
        network: Kind of network.
        optimizer: Key of `PLANS`.
        epochs: Epochs of every new task.
        seed: Seed of the initialisation and of the data orders.
        compared: Whether the new task is also learned under every strategy.
    """

    stream: Stream
    network: str
    optimizer: str
    epochs: int
    seed: int
    compared: bool

    @property
    def key(self) -> str:
        """The unit's name."""
        return (
            f"{self.stream.name} / {self.network} / {self.optimizer} / {self.epochs} / {self.seed}"
        )

    @property
    def transitions(self) -> int:
        """How many cells it gives."""
        return _TASKS - 1 if self.stream.family == "sequence" else 1

    @property
    def training(self) -> Training:
        """How every new task is learned."""
        plan = PLANS[self.optimizer]
        return Training(**plan, epochs=self.epochs, batch_size=BATCH)  # type: ignore[arg-type]

    @property
    def first_training(self) -> Training:
        """How the first task is learned."""
        return self.training.model_copy(update={"epochs": FIRST_EPOCHS})

    @property
    def architecture(self) -> str:
        """Kind of network without its size: what "unseen architecture" leaves out together."""
        return self.network.split()[0]


def pairs() -> tuple[Stream, ...]:
    """List the pairs of tasks and the long sequences."""
    base = partial(_task, "base")
    made = []

    def add(family: str, amount: float, new: Callable[[], Task], old: Callable = base) -> None:
        name = f"{family} {amount:g}"
        made.append(Stream(name, family, lambda: (old(*_plain()), new())))

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


def units(grid: str = "full") -> list[Unit]:
    """List the grid in an order in which every beginning of it is a fair sample.

    Args:
        grid: `full`, or `small` for a look: two pairs of each family, one network each.

    Returns:
        The units.
    """
    made = []
    for stream in pairs():
        long = stream.family == "sequence"
        lengths, found = SEQUENCE_EPOCHS if long else EPOCHS, 0
        taken: set[str] = set()
        draw = 0
        while found < (1 if long else PER_PAIR):
            number = _hash(f"score {stream.name} {draw}")
            draw += 1
            network = NETWORKS[number % len(NETWORKS)]
            optimizer = tuple(PLANS)[number // 16 % len(PLANS)]
            epochs = lengths[number // 256 % len(lengths)]
            seed = number // 65536 % SEEDS
            compared = not long and number // 2**24 % _COMPARED == 0
            unit = Unit(stream, network, optimizer, epochs, seed, compared)
            if unit.key in taken:
                continue
            taken.add(unit.key)
            made.append(unit)
            found += 1
    if grid == "small":
        wanted = set()
        for family in dict.fromkeys(unit.stream.family for unit in made):
            names = {u.stream.name for u in made if u.stream.family == family}
            wanted |= set(sorted(names, key=_hash)[: 1 if family == "sequence" else 2])
        seen: set[str] = set()
        few = []
        for unit in made:
            if unit.stream.name in wanted and unit.stream.name not in seen:
                seen.add(unit.stream.name)
                few.append(unit)
        made = few
    return sorted(made, key=lambda unit: _hash(unit.key))


def part_of() -> dict[str, str]:
    """Say for every pair and sequence in which half it is, every family by itself.

    Returns:
        `development` or `held-out`, by name.
    """
    named = {"choose": DEVELOPMENT, "report": HELD_OUT}
    found = halves({stream.name: stream.family for stream in pairs()})
    return {name: named[half] for name, half in found.items()}


def network(kind: str, seed: int) -> nn.Module:
    """Build and initialise a network on rows of 64 pixels.

    Args:
        kind: One of `NETWORKS`.
        seed: Seed of the initialisation.

    Returns:
        The network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "cnn":
            return nn.Sequential(
                nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3), nn.ReLU(),
                nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10),
            )  # fmt: skip
        if kind == "transformer":
            return RowTransformer()
        width, depth = (int(number) for number in kind.split()[1::2])
        layers: list[nn.Module] = []
        for inner in range(depth):
            layers += [nn.Linear(width if inner else 64, width), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(width, 10))


class RowTransformer(nn.Module):
    """One pre-norm block of self-attention over the eight rows of a picture.

    Args:
        width: Size of a token.
        attention_heads: Heads of the attention.
    """

    def __init__(self, width: int = 16, attention_heads: int = 2) -> None:
        super().__init__()
        self.attention_heads = attention_heads
        self.embed = nn.Linear(8, width)
        self.place = nn.Parameter(0.1 * torch.randn(8, width))
        self.first, self.second, self.last = (nn.LayerNorm(width) for _ in range(3))
        self.mix = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Classify rows of 64 pixels."""
        h = self.embed(x.unflatten(-1, (8, 8))) + self.place
        parts = self.mix(self.first(h)).unflatten(-1, (3, self.attention_heads, -1))
        q, k, v = (parts[..., n, :, :].transpose(-3, -2) for n in range(3))
        weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1)
        h = h + self.out((weights @ v).transpose(-3, -2).flatten(-2))
        h = h + self.narrow(nn.functional.gelu(self.wide(self.second(h))))
        return self.head(self.last(h).mean(-2))


def flat_network(unit: Unit) -> FlatModel:
    """Build a unit's network as a function of its parameters.

    Args:
        unit: The unit.

    Returns:
        The network.
    """
    return FlatModel(network(unit.network, unit.seed))


def strategies() -> dict[str, Strategy]:
    """Name what competes against forgetting.

    Returns:
        Options by name.
    """
    return {name: Strategy.model_validate(options) for name, options in STRATEGIES.items()}


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


def _sequences() -> dict[str, Callable[[], tuple[Task, ...]]]:
    def each(make: Callable, amounts: list[float], first: int) -> Callable:
        return lambda: tuple(
            _task(f"{k}", *(make(a, first + k) if k else _plain())) for k, a in enumerate(amounts)
        )

    def one_by_one(order: str) -> Callable:
        return lambda: tuple(classes((int(label),)) for label in order)

    steps = range(_TASKS)
    return {
        "permuted 0.3": each(_permuted, [0.3] * _TASKS, 80),
        "permuted 0.65": each(_permuted, [0.65] * _TASKS, 100),
        "rotated 8": each(_rotated, [8.0 * k for k in steps], 0),
        "rotated 17": each(_rotated, [17.0 * k for k in steps], 0),
        "labels 4": each(_labels, [4] * _TASKS, 120),
        "labels 6": each(_labels, [6] * _TASKS, 140),
        "noise 0.12": each(_noisy, [0.12 * k for k in steps], 160),
        "clusters 0.07": lambda: _clusters(tuple(0.07 * k for k in steps), 20),
        "clusters 0.1": lambda: _clusters(tuple(0.1 * k for k in steps), 21),
        "classes 0 to 9": one_by_one(_digits(range(10))),
    }
