"""What does a verdict on one transition cost, beside the training that it judges?

Conditions: 784-400-400-10 (ReLU, float32), 10,000 training samples per task (digits drawn on 28 x
28 pixels, with noise), plain SGD at 0.1, batches of 128, ten epochs; A is learned for two epochs,
then B (the same digits with shuffled pixels) is judged, and learned. Processor time of one thread;
two trainings of B are timed: this package's, and a bare loop of torch.nn and torch.optim.SGD. The
verdict must take at most 20 % of the *cheaper* of the two.

    python benchmarks/forecast/criterion_cost.py [--repeats 3] [--save]
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from sklearn.datasets import load_digits
from torch import nn

from capacity.criterion.criterion import assess_transition
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from capacity.tasks.task import Split, Task
from capacity.training.data_order import DataOrder
from capacity.training.train import train

RESULTS = Path(__file__).parent / "results"
SAMPLES, TEST, BATCH, EPOCHS, RATE = 10_000, 2_000, 128, 10, 0.1
GOAL = 0.20


def tasks() -> tuple[Task, Task]:
    """Draw two tasks: digits of 28 x 28 pixels, and the same with shuffled pixels."""
    data, source = load_digits(), np.random.default_rng(0)
    large = ndimage.zoom(data.images / 16, (1, 3.5, 3.5), order=1).reshape(-1, 784).clip(0, 1)
    drawn = source.integers(len(large), size=SAMPLES + TEST)
    x = large[drawn] + 0.1 * source.standard_normal((len(drawn), 784))
    x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(data.target[drawn]).long()
    order = torch.tensor(source.permutation(784))
    made = []
    for name, pixels in (("A", x), ("B", x[:, order])):
        train_split = Split(pixels[:SAMPLES], y[:SAMPLES])
        made.append(Task(name=name, train=train_split, test=Split(pixels[SAMPLES:], y[SAMPLES:])))
    return made[0], made[1]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 10)
    )


def bare_training(module: nn.Module, task: Task, epochs: int) -> None:
    """Train a copy with nothing but torch."""
    module = copy.deepcopy(module)
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
    for _ in range(epochs):
        for index in torch.randperm(SAMPLES).split(BATCH):
            loss = nn.functional.cross_entropy(module(task.train.x[index]), task.train.y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def processor_seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="write results/criterion-cost.txt")
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
    made = {"verdict": [], "training, this package": [], "training, bare torch": []}
    runs = {
        "verdict": lambda: assess_transition(model, theta[0], [old], new, planned),
        "training, this package": lambda: learn(theta, new, EPOCHS),
        "training, bare torch": lambda: bare_training(module, new, EPOCHS),
    }
    # Side by side, so that a busy machine slows all of them alike.
    for _ in range(asked.repeats):
        for name, run in runs.items():
            made[name].append(processor_seconds(run))
    median = {name: statistics.median(times) for name, times in made.items()}
    cheapest = min(median["training, this package"], median["training, bare torch"])
    share = median["verdict"] / cheapest
    verdicts = assess_transition(model, theta[0], [old], new, planned)
    forms = "; ".join(
        f"{form.form} {'-' if form.value.value is None else f'{form.value.value:.3g}'}: "
        f"{form.verdict}"
        for form in verdicts.forms
    )
    lines = [
        f"Cost of a verdict: 784-400-400-10, P = {model.size}, {SAMPLES} samples, {EPOCHS} epochs, "
        f"batches of {BATCH}, one thread",
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}; processor time, "
        f"median (range) of {asked.repeats}",
        *(
            f"  {name:<24}{median[name]:8.2f} s  ({min(times):.2f} to {max(times):.2f})"
            for name, times in made.items()
        ),
        f"  verdict / cheaper training: {share:.3f}; goal at most {GOAL:.2f}: "
        f"{'reached' if share <= GOAL else 'NOT reached'}",
        f"  the verdict itself: {forms}",
    ]
    text = "\n".join(lines)
    print(text)
    if asked.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "criterion-cost.txt").write_text(text + "\n")


if __name__ == "__main__":
    main()
