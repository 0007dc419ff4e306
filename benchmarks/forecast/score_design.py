"""The grid behind `score.py`: which tasks, networks and trainings, and which half each falls in.

Everything here is a function of names, through a hash, and fixed before anything is trained. What
is held out is no pair that anything was made on: those have other amounts, classes or draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from criterion_cells import Stream, _hash
from criterion_scores import halves
from score_pairs import LENGTH, drawn, further, listed
from torch import Tensor, nn

from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Strategy, Training

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
BATCH, SEEDS = 64, 5
PER_PAIR = {True: 4, False: 2}
"""Networks on a pair: of the first set, and of the others, where there are more pairs."""
STRATEGIES = {
    "l2": {"name": "l2"},
    "ewc": {"name": "ewc"},
    "replay": {"name": "replay", "memory": 30},
    "lwf": {"name": "lwf"},
    "agem": {"name": "agem", "memory": 30},
    "lower_lr": {"name": "lower_lr"},
}
"""What competes against forgetting. Memories are a few per cent of A: all of A would always win."""
_COMPARED = {True: 3, False: 2}
"""One in this many networks on a pair is trained under every strategy, too: first set, others."""
DEVELOPMENT, HELD_OUT = "development", "held-out"
GRIDS = ("small", "full", "plain")
PLAIN_EPOCHS = (2, 5, 10, 20, 40)


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
        return LENGTH - 1 if self.stream.family == "sequence" else 1

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


@cache
def pairs() -> tuple[Stream, ...]:
    """List the pairs of tasks and the long sequences, all three sets."""
    return (*listed(), *drawn(), *further())


def units(grid: str = "full") -> list[Unit]:
    """List the grid in an order in which every beginning of it is a fair sample.

    Args:
        grid: `full`; `small` for a look: two pairs of each family, one network each; or `plain`:
            two networks on each pair, with short plans among them, without strategies.

    Returns:
        The units.
    """
    if grid == "plain":
        return sorted(_plain_units(), key=lambda unit: _hash(unit.key))
    made = []
    first = {stream.name for stream in listed()}
    for stream in pairs():
        early = stream.name in first
        long = stream.family == "sequence"
        lengths, found = SEQUENCE_EPOCHS if long else EPOCHS, 0
        taken: set[str] = set()
        draw = 0
        while found < (1 if long else PER_PAIR[early]):
            number = _hash(f"score {stream.name} {draw}")
            draw += 1
            network = NETWORKS[number % len(NETWORKS)]
            optimizer = tuple(PLANS)[number // 16 % len(PLANS)]
            epochs = lengths[number // 256 % len(lengths)]
            seed = number // 65536 % SEEDS
            compared = not long and number // 2**24 % _COMPARED[early] == 0
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


def _plain_units() -> Iterator[Unit]:
    for stream in pairs():
        if stream.family == "sequence":
            continue
        for draw in range(2):
            number = _hash(f"plain {stream.name} {draw}")
            yield Unit(
                stream,
                network=NETWORKS[number % len(NETWORKS)],
                optimizer=tuple(PLANS)[number // 16 % len(PLANS)],
                epochs=PLAIN_EPOCHS[number // 256 % len(PLAIN_EPOCHS)],
                seed=number // 65536 % SEEDS,
                compared=False,
            )


@cache
def part_of() -> dict[str, str]:
    """Say for every pair and sequence in which half it is.

    Returns:
        `development` for the first set and the third; `development` or `held-out` for every second
        one of each family of the second; by name.
    """
    named = {"choose": DEVELOPMENT, "report": HELD_OUT}
    found = halves({stream.name: stream.family for stream in drawn()})
    return {
        **{stream.name: DEVELOPMENT for stream in (*listed(), *further())},
        **{name: named[half] for name, half in found.items()},
    }


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
