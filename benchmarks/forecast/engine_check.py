"""How good is a forecast for 5, 10 or 30 % of the training? The pairs that the engine was made on.

The constants of `capacity.forecasting.compression` were chosen here and on the development half of
the scored grid (`score.py`), so that nothing here is a score of theirs; and the physics stands
alone here, without the correction that `capacity.forecast` adds.
Scikit-learn digits: permuted pixels, permuted labels, rotations, noise, split classes, two heads;
ReLU networks, a CNN and a small transformer; SGD, momentum and Adam; 20 or 50 epochs.

    python benchmarks/forecast/engine_check.py [--limit N] [--save]
"""

from __future__ import annotations

import argparse
import itertools
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from criterion_cells import Stream, _digits, _from_base, _hash, classes, heads
from torch import Tensor, nn

from capacity.forecasting.engine import forecast_cheaply
from capacity.forecasting.scores import r2, spearman
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from capacity.tasks.task import Task
from capacity.training.data_order import DataOrder
from capacity.training.train import train

RESULTS = Path(__file__).parent / "results"
BUDGETS = (0.05, 0.1, 0.3)
PLANS = {
    "sgd": {"optimizer": "sgd", "lr": 0.1},
    "momentum": {"optimizer": "momentum", "lr": 0.02},
    "adam": {"optimizer": "adam", "lr": 0.001},
}
NETWORKS = ("128", "256-256", "128-128-128", "cnn", "transformer")
EPOCHS = (20, 50)
QUANTITIES = {"accuracy drop": "drop", "loss increase": "rise"}


class RowTransformer(nn.Module):
    """One layer of torch's encoder over the eight rows of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.place = nn.Parameter(0.02 * torch.randn(8, 32))
        self.block = nn.TransformerEncoderLayer(
            32, 4, 64, dropout=0.0, batch_first=True, norm_first=True
        )
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Classify rows of 64 pixels."""
        return self.head(self.block(self.embed(x.unflatten(-1, (8, 8))) + self.place).mean(-2))


def network(kind: str, seed: int) -> FlatModel:
    """Build and initialise one of `NETWORKS`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "cnn":
            module: nn.Module = nn.Sequential(
                nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3),
                nn.ReLU(), nn.Flatten(), nn.Linear(256, 10),
            )  # fmt: skip
        elif kind == "transformer":
            module = RowTransformer()
        else:
            widths = [64, *map(int, kind.split("-"))]
            hidden = [
                layer
                for a, b in itertools.pairwise(widths)
                for layer in (nn.Linear(a, b), nn.ReLU())
            ]
            module = nn.Sequential(*hidden, nn.Linear(widths[-1], 10))
        return FlatModel(module)


def pairs() -> list[Stream]:
    """List the pairs of tasks."""
    made = []
    for draw in (7, 8):
        for share in (0.15, 0.35, 0.7, 0.9):
            made.append(_from_base(f"permuted {share:g} {draw}", "permuted", share, draw))
        for moved in (3, 5, 7):
            made.append(_from_base(f"labels {moved} {draw}", "labels", moved, draw))
    for angle in (15, 35, 75, 120):
        made.append(_from_base(f"rotated {angle}", "rotated", angle, 0))
    for scale in (0.2, 0.45, 0.8):
        made.append(_from_base(f"noise {scale:g}", "noise", scale, 7))
    for old, new in (
        ((0, 2), (5, 7)), ((1, 4, 7), (0, 3, 9)), (tuple(range(7)), (7, 8, 9)),
        ((5, 6, 7, 8, 9), (0, 1, 2, 3, 4)), ((2, 8), (4, 6)),
    ):  # fmt: skip
        name = f"split {_digits(old)} {_digits(new)}"
        made.append(Stream(name, "split", lambda a=old, b=new: (classes(a), classes(b))))
    for old, new in (((1, 4, 7), (0, 3, 9)), ((5, 6, 7, 8, 9), (0, 1, 2, 3, 4))):
        name = f"heads {_digits(old)} {_digits(new)}"
        made.append(Stream(name, "heads", lambda a=old, b=new: heads(a, b)))
    return made


@dataclass(frozen=True)
class Cell:
    """One network that learned one task and now learns another.

    Attributes:
        pair: The tasks.
        optimizer: Key of `PLANS`.
        network: One of `NETWORKS`.
        epochs: Epochs of the new task.
        seed: Seed of the initialisation and of the data orders.
    """

    pair: Stream
    optimizer: str
    network: str
    epochs: int
    seed: int

    @property
    def key(self) -> str:
        """The cell's name."""
        return f"{self.pair.name} / {self.optimizer} / {self.network} / {self.epochs}"


def cells() -> list[Cell]:
    """List the cells in an order in which every beginning of them is a fair sample."""
    made = []
    for pair in pairs():
        for optimizer in PLANS:
            n = _hash(f"dev {pair.name} {optimizer}")
            made.append(Cell(pair, optimizer, NETWORKS[n % 5], EPOCHS[n // 5 % 2], n // 10 % 5))
    return sorted(made, key=lambda cell: _hash(cell.key))


def measured(cell: Cell) -> Iterator[tuple[str, dict[str, float]]]:
    """Train a cell twice, in two data orders, and forecast it.

    Args:
        cell: The cell.

    Yields:
        `trained`, `again` or a budget, and the drop in accuracy and the rise in loss.
    """
    old, new = cell.pair.build()
    model = network(cell.network, cell.seed)
    first = Training(**PLANS[cell.optimizer], epochs=20, batch_size=64)  # type: ignore[arg-type]
    plan = first.model_copy(update={"epochs": cell.epochs})

    def learned(theta: Tensor, task: Task, training: Training, phase: int) -> Tensor:
        order = DataOrder(
            samples=len(task.train), batch_size=64, epochs=training.epochs, replicas=len(theta),
            seed=cell.seed, path=("order", phase),
        )  # fmt: skip
        return train(model, theta, task, training, order).theta

    theta = learned(model.initial()[None], old, first, 0)
    after = learned(theta.expand(2, -1), new, plan, 1)
    before, now = (evaluate(model, t, old, old.test) for t in (theta, after))
    for number, name in enumerate(("trained", "again")):
        drop, rise = before.accuracy[0] - now.accuracy[number], now.loss[number] - before.loss[0]
        yield name, {"drop": float(drop), "rise": float(rise)}
    for budget in BUDGETS:
        said = forecast_cheaply(model, theta[0], (old,), new, plan, budget=budget, seed=3).old[0]
        assert said.drop.value is not None
        assert said.rise.value is not None
        yield f"{budget:g}", {"drop": said.drop.value, "rise": said.rise.value}


def table(found: list[tuple[Cell, dict[str, dict[str, float]]]]) -> Iterator[str]:
    """Write R^2 and rank correlation per optimiser and budget."""
    yield f"{'optimiser':<12}{'cells':>6}  {'':<16}" + "".join(f"{name:>30}" for name in QUANTITIES)
    yield f"{'':<36}" + "".join(f"{'R^2':>16}{'Spearman':>14}" for _ in QUANTITIES)
    for optimizer in ("all", *PLANS):
        part = [made for cell, made in found if optimizer in ("all", cell.optimizer)]
        for column in (*(f"{b:g}" for b in BUDGETS), "again"):
            shown = "another order" if column == "again" else f"budget {column}"
            line = f"{optimizer:<12}{len(part):>6}  {shown:<16}"
            for key in QUANTITIES.values():
                said, true = ([made[c][key] for made in part] for c in (column, "trained"))
                for score in (r2(said, true), spearman(said, true)):
                    text = "-" if score.value is None else f"{score.value:.3f}"
                    line += f"{text:>16}" if score.interval is None else f"{text:>14}"
            yield line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, help="cells to run; all by default")
    parser.add_argument("--save", action="store_true", help="write results/engine_check.txt")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    wanted, found, start = cells()[: asked.limit], [], time.perf_counter()
    for number, cell in enumerate(wanted, start=1):
        found.append((cell, dict(measured(cell))))
        spent = time.perf_counter() - start
        print(f"{number}/{len(wanted)} {cell.key}, {spent:.0f} s", file=sys.stderr, flush=True)
    text = "\n".join([
        "Forecasts against training, on the pairs on which the engine's constants were chosen",
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread",
        "another order: the same training with another data order, which no forecast beats by much",
        "",
        *table(found),
    ])
    print(text)
    if asked.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "engine_check.txt").write_text(text + "\n")


if __name__ == "__main__":
    main()
