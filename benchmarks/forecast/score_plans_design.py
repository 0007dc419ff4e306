"""The grid behind `score_plans.py`: one more network per pair of tasks, and a plan of another kind.

Everything here is a function of names, through a hash, and fixed before anything is trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from criterion_cells import Stream, _hash
from peft import LoraConfig, inject_adapter_in_model
from score_design import BATCH, FIRST_EPOCHS, NETWORKS, pairs, part_of
from score_design import network as small_network
from score_truth import learn
from torch import Tensor, nn

from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from capacity.tasks.task import Task

RATES = {"sgd": 0.2, "momentum": 0.02, "adam": 0.001, "adamw": 0.001}
OPTIMIZERS = ("sgd", "momentum", "adam", "adamw", "adamw")
SCHEDULES, EPOCHS = ("constant", "cosine", "linear"), (10, 20, 40)
WARMUPS, CLIPS = (0, 0.1), (None, 1.0)
DECAYS = {"sgd": (0.0, 0.0005), "momentum": (0.0, 0.0005), "adam": (0.0,), "adamw": (0.01, 0.1)}
ADAPTED = {"mlp", "transformer"}
RANK, DEARER_RATE = 4, 4.0
"""Rank of the adapters, and the factor of an adaptive optimiser's rate on them."""


@dataclass(frozen=True)
class Cell:
    """One network on one pair of tasks.

    Attributes:
        stream: The pair.
        kind: Kind of network.
        adapted: Whether B is learned by adapters on the network that learned A.
        options: Options of the plan.
        seed: Of the initialisation and the data orders.
        compared: Whether B is also learned under GPM.
    """

    stream: Stream
    kind: str
    adapted: bool
    options: dict[str, Any]
    seed: int
    compared: bool

    @cached_property
    def key(self) -> str:
        """The cell's name."""
        plan = ", ".join(f"{name} = {value}" for name, value in self.options.items())
        adapted = " + lora" if self.adapted else ""
        return f"{self.stream.name} / {self.kind}{adapted} / {plan} / {self.seed}"

    @property
    def training(self) -> Training:
        """How B is learned."""
        return Training(batch_size=BATCH, **self.options)

    @property
    def first_training(self) -> Training:
        """How A is learned: by the same plan, on the whole network."""
        options = {**self.options, "epochs": FIRST_EPOCHS, "lr": RATES[self.options["optimizer"]]}
        return Training(batch_size=BATCH, **options)

    def place(self, cache: Path) -> Path:
        """Name the cell's file.

        Args:
            cache: The cache.

        Returns:
            The path, without an ending.
        """
        return cache / "plans" / hashlib.sha256(self.key.encode()).hexdigest()[:20]


def cells(half: str) -> list[Cell]:
    """List the grid in an order in which every beginning of it is a fair sample.

    Args:
        half: `development` or `held-out`.

    Returns:
        One cell per pair.
    """
    part = part_of()
    some = [s for s in pairs() if part[s.name] == half and s.family != "sequence"]
    return [drawn(stream) for stream in sorted(some, key=lambda s: _hash(f"plans {s.name}"))]


def drawn(stream: Stream) -> Cell:
    """Draw the network and the plan of a pair.

    Args:
        stream: The pair.

    Returns:
        The cell.
    """
    source = np.random.default_rng(_hash(f"a plan for {stream.name}"))

    def one_of(names: Sequence[Any]) -> Any:
        return names[int(source.integers(len(names)))]

    kind, optimizer = one_of((*NETWORKS, "tokens", "tokens")), one_of(OPTIMIZERS)
    adapted = kind.split()[0] in ADAPTED and source.random() < 0.3
    faster = DEARER_RATE if adapted and optimizer in {"adam", "adamw"} else 1.0
    options = {
        "optimizer": optimizer, "lr": RATES[optimizer] * faster, "schedule": one_of(SCHEDULES),
        "warmup": one_of(WARMUPS), "weight_decay": one_of(DECAYS[optimizer]),
        "clip_norm": one_of(CLIPS), "epochs": one_of(EPOCHS),
    }  # fmt: skip
    return Cell(stream, kind, adapted, options, int(source.integers(5)), source.random() < 0.5)


class TokenTransformer(nn.Module):
    """One pre-norm block of self-attention over sixteen tokens: grey values of 2 x 2 pixels.

    Args:
        width: Size of a token's embedding.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(17, width)
        self.place = nn.Parameter(0.1 * torch.randn(16, width))
        self.first, self.second, self.last = (nn.LayerNorm(width) for _ in range(3))
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Classify rows of 64 pixels, in [0, 1] where they are digits."""
        grey = nn.functional.avg_pool2d(x.unflatten(-1, (1, 8, 8)), 2).flatten(-3)
        h = self.embed((grey * 16).round().long().clamp(0, 16)) + self.place
        q, k, v = self.mix(self.first(h)).chunk(3, -1)
        weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
        h = h + self.out(weights @ v)
        h = h + self.narrow(nn.functional.gelu(self.wide(self.second(h))))
        return self.head(self.last(h).mean(-2))


def fresh(cell: Cell) -> nn.Module:
    """Build and initialise a cell's network, without adapters.

    Args:
        cell: The cell.

    Returns:
        The network.
    """
    if cell.kind != "tokens":
        return small_network(cell.kind, cell.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cell.seed)
        return TokenTransformer()


def with_adapters(module: nn.Module, seed: int) -> nn.Module:
    """Put low-rank adapters on all linear layers; nothing else is trained.

    Args:
        module: The network.
        seed: Of the adapters' initialisation.

    Returns:
        The same network.
    """
    names = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=names)
        return inject_adapter_in_model(config, module)


def learned(cell: Cell, old: Task) -> nn.Module:
    """Learn A.

    Args:
        cell: The cell.
        old: The task.

    Returns:
        The network as B finds it.
    """
    module = fresh(cell)
    model = FlatModel(module)
    theta = learn(model, model.initial()[None], old, cell.first_training, cell.seed, 0).theta[0]
    nn.utils.vector_to_parameters(theta, module.parameters())
    return with_adapters(module, cell.seed) if cell.adapted else module
