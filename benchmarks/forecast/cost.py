"""What does a forecast for 5 % of the training take, in time, beside the training that it spares?

Conditions: 784-400-400-10 (ReLU, float32), 10,000 training samples per task (digits drawn on 28 x
28 pixels, with noise), plain SGD at 0.1, batches of 128, 20 epochs of B planned; A is learned for
two epochs, then `capacity.forecast(..., budget=0.05)` is called for B (the same digits with
shuffled pixels), and B is learned, by this package and by a bare loop of torch.nn and
torch.optim.SGD. Wall time of one thread. The forecast must take at most 5 % of the *cheaper* one.

    python benchmarks/forecast/cost.py [--repeats 3] [--save]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from criterion_cost import BATCH, RATE, RESULTS, SAMPLES, bare_training, network, tasks
from torch import nn

import capacity
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from capacity.tasks.task import Task
from capacity.training.data_order import DataOrder
from capacity.training.train import train

EPOCHS, BUDGET = 20, 0.05


def seconds(run: Callable[[], object]) -> tuple[float, object]:
    """Time a call, and give what it returned."""
    start = time.perf_counter()
    made = run()
    return time.perf_counter() - start, made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="write results/cost.txt")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    old, new = tasks()
    module = network()
    model = FlatModel(module)

    def learn(theta: torch.Tensor, task: Task, epochs: int) -> torch.Tensor:
        training = Training(optimizer="sgd", lr=RATE, epochs=epochs, batch_size=BATCH)
        order = DataOrder(samples=SAMPLES, batch_size=BATCH, epochs=epochs, replicas=1, seed=0)
        return train(model, theta, task, training, order).theta

    theta = learn(model.initial()[None], old, 2)
    nn.utils.vector_to_parameters(theta[0], module.parameters())
    planned = Training(optimizer="sgd", lr=RATE, epochs=EPOCHS, batch_size=BATCH)
    said = capacity.forecast(module, old=old, new=new, training=planned, budget=BUDGET)
    spent: dict[str, list[float]] = {}
    after = theta
    # Side by side, so that a busy machine slows all of them alike.
    for _ in range(asked.repeats):
        for name, run in {
            "forecast": lambda: capacity.forecast(
                module, old=old, new=new, training=planned, budget=BUDGET
            ),
            "training, this package": lambda: learn(theta, new, EPOCHS),
            "training, bare torch": lambda: bare_training(module, new, EPOCHS),
        }.items():
            took, made = seconds(run)
            spent.setdefault(name, []).append(took)
            after = made if name == "training, this package" else after
    before, now = (evaluate(model, t, old, old.test) for t in (theta, after))
    median = {name: statistics.median(times) for name, times in spent.items()}
    share = median["forecast"] / min(v for k, v in median.items() if k != "forecast")
    low, high = said.accuracy_drop.interval or (float("nan"), float("nan"))
    text = "\n".join([
        f"784-400-400-10, P = {model.size}, {SAMPLES} samples, {EPOCHS} epochs, batches of {BATCH},"
        f" budget {BUDGET:g}, one thread",
        f"{platform.machine()}, torch {torch.__version__}; wall time, median (range) of "
        f"{asked.repeats}",
        *(
            f"  {name:<24}{median[name]:8.2f} s  ({min(times):.2f} to {max(times):.2f})"
            for name, times in spent.items()
        ),
        f"  forecast / cheaper training: {share:.3f} of the time, "
        f"{said.cost_ratio.value:.4f} of the counted operations; goal at most {BUDGET:g}: "
        f"{'reached' if share <= BUDGET else 'NOT reached'}",
        f"  accuracy drop: forecast {said.accuracy_drop.value:.3f} ({low:.3f} to {high:.3f}), "
        f"measured {float(before.accuracy[0] - now.accuracy[0]):.3f}",
        f"  loss increase: forecast {said.loss_increase.value:.3f}, "
        f"measured {float(now.loss[0] - before.loss[0]):.3f}",
    ])  # fmt: skip
    print(text)
    if asked.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "cost.txt").write_text(text + "\n")


if __name__ == "__main__":
    main()
