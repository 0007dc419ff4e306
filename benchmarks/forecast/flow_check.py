"""Where is the pseudo-kernel flow better than the compressed training, short plans included?

The pairs of `engine_check.py`, which no score is given for, each for 2, 5 and 20 epochs; both
physics alone, without the correction that `capacity.forecast` adds, and the one of the two that
says to have learned B better (the smaller loss on B). R^2 of the drop of accuracy and of the rise
of loss, and the flow's counted operations over those of the training.

    python benchmarks/forecast/flow_check.py [--limit N] [--save]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import torch
from engine_check import PLANS, QUANTITIES, RESULTS, Cell, cells, network
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from capacity.forecasting.engine import forecast_cheaply
from capacity.forecasting.pseudo_kernel import forecast_by_flow
from capacity.forecasting.scores import r2
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from capacity.tasks.task import Task
from capacity.training.data_order import DataOrder
from capacity.training.train import train

EPOCHS = (2, 5, 20)
BUDGET = 0.05
COLUMNS = ("flow", "engine", "the one that learned B")


def learned(model: FlatModel, theta: Tensor, task: Task, plan: Training, seed: int) -> Tensor:
    """Train one network."""
    order = DataOrder(
        samples=len(task.train), batch_size=plan.batch_size, epochs=plan.epochs, replicas=1,
        seed=seed,
    )  # fmt: skip
    return train(model, theta, task, plan, order).theta


def operations_of(model: FlatModel, theta: Tensor, task: Task, plan: Training) -> float:
    """Count a training, by the first of its steps."""
    split = task.train
    size = min(plan.batch_size, len(split))
    with FlopCounterMode(display=False) as counter:
        torch.func.grad(model.loss(task))(theta, split.x[:size], split.y[:size])
    return counter.get_total_flops() * plan.seen(len(split)) / size


def measured(cell: Cell) -> dict[str, dict[str, float]]:
    """Train a cell, and forecast it in both ways.

    Args:
        cell: The cell.

    Returns:
        Drop and rise of `trained` and of every column, and what each of them is beside.
    """
    old, new = cell.pair.build()
    model = network(cell.network, cell.seed)
    first = Training(**PLANS[cell.optimizer], epochs=20, batch_size=64)  # type: ignore[arg-type]
    plan = first.model_copy(update={"epochs": cell.epochs})
    theta = learned(model, model.initial()[None], old, first, cell.seed)
    after = learned(model, theta, new, plan, cell.seed + 1)
    before, now = (evaluate(model, t, old, old.test) for t in (theta, after))
    flow = forecast_by_flow(model, theta[0], (old,), new, plan, seed=3)
    engine = forecast_cheaply(
        model, theta[0], (old,), new, plan, budget=BUDGET, stretch=True, seed=3
    )
    made = {
        "trained": {
            "drop": float(before.accuracy - now.accuracy), "rise": float(now.loss - before.loss)
        },
        "flow": {
            "drop": flow.old[0].drop.value, "rise": flow.old[0].rise.value,
            "b": flow.new.loss.value, "off line": flow.off_line,
            "cost": flow.spent / operations_of(model, theta[0], new, plan),
        },
        "engine": {
            "drop": engine.old[0].drop.value, "rise": engine.old[0].rise.value,
            "b": engine.new.loss.value,
        },
    }  # fmt: skip
    made[COLUMNS[2]] = min((made["flow"], made["engine"]), key=lambda said: said["b"])
    return made


def table(found: list[tuple[Cell, dict]]) -> Iterator[str]:
    """Write R^2 by optimiser and length of the plan."""
    yield f"{'optimiser':<11}{'epochs':>7}{'cells':>6}" + "".join(f"{c:>28}" for c in COLUMNS)
    yield f"{'':<24}" + f"{'drop, rise':>28}" * len(COLUMNS) + f"{'operations':>14}"
    for optimizer in ("all", *PLANS):
        for epochs in EPOCHS:
            part = [m for c, m in found if optimizer in ("all", c.optimizer) and c.epochs == epochs]
            line = f"{optimizer:<11}{epochs:>7}{len(part):>6}"
            for column in COLUMNS:
                both = []
                for key in QUANTITIES.values():
                    score = r2([m[column][key] for m in part], [m["trained"][key] for m in part])
                    both.append("-" if score.value is None else f"{score.value:.3f}")
                line += f"{', '.join(both):>28}"
            cost = [m["flow"]["cost"] for m in part]
            yield line + (f"{statistics.median(cost):>14.3f}" if cost else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, help="cells of each length; all by default")
    parser.add_argument("--save", action="store_true", help="write results/flow_check.txt")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found, start = [], time.perf_counter()
    for number, cell in enumerate(cells()[: asked.limit], start=1):
        for epochs in EPOCHS:
            this = replace(cell, epochs=epochs)
            found.append((this, measured(this)))
        spent = time.perf_counter() - start
        print(f"{number} {cell.key}, {spent:.0f} s", file=sys.stderr, flush=True)
    text = "\n".join([
        "The pseudo-kernel flow and the compressed training (5 %), R^2 against training",
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread; "
        "operations: the flow's over the training's, median",
        "",
        *table(found),
    ])
    print(text)
    if asked.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "flow_check.txt").write_text(text + "\n")


if __name__ == "__main__":
    main()
