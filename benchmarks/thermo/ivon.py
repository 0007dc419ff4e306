"""Is `belief: information` as good as IVON, its published improvement, and what do both cost?

The same network, batches and number of steps, at temperature 1/N (the posterior of N samples, which
IVON calls its effective sample size); predictions average probabilities over the same draws.
IVON's update is that of Shen et al. (2024, arXiv 2402.17641, algorithm 1), written here, since its
package (`ivon-opt`) is under the GPL. Plain SGD and `natural` stand beside. Every method's rate is
the one of four, twice as large each, that does best on a fifth of the training samples that it was
not trained on; the test split is looked at once.

    OMP_NUM_THREADS=1 python benchmarks/thermo/ivon.py [--save] [--epochs 20] [--seeds 3]
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from capacity.base.differential import slope_of
from capacity.networks.belief import Belief, believed
from capacity.networks.calibration import calibration_error
from capacity.networks.door import fit
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.networks.models import build_model
from capacity.optimizers.conditioner import conditioned
from capacity.optimizers.from_recipe import from_training
from capacity.recipe.config import Model, TaskStream, Training
from capacity.tasks.build import build_tasks
from capacity.tasks.sampling import holdout
from capacity.tasks.task import Task
from capacity.training.data_order import DataOrder
from capacity.training.train import train

RESULT = Path(__file__).parent / "results" / "ivon.txt"
WIDTH, BATCH, HIDDEN = 0.1, 32, 32
SLOW = 0.01
"""Of IVON's order: it forgets its curvature at 0.0005 a step, and moves its mean at 0.05."""
RATES = {
    "sgd": (0.05, 0.1, 0.2, 0.4),
    "natural, diagonal": (0.0025, 0.005, 0.01, 0.02),
    "belief: information": (5.0, 10.0, 20.0, 40.0),
    "the same, slow widths": (20.0, 40.0, 80.0, 160.0),
    "IVON": (0.025, 0.05, 0.1, 0.2),
}
"""Rates to choose from."""


@dataclass
class Ivon:
    """The state and update of IVON, diagonal, with one draw per step.

    Attributes:
        mean: Means (P,).
        samples: Effective sample size, one over the temperature.
        hessian: Its first guess of the curvature.
        decay: Of the prior.
        beta1: Of the gradient's mean.
        beta2: Of the curvature's mean.
    """

    mean: Tensor
    samples: float
    hessian: float
    decay: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.9995

    def __post_init__(self) -> None:
        self.moment = torch.zeros_like(self.mean)
        self.curvature = torch.full_like(self.mean, self.hessian)
        self.count = 0

    @property
    def width(self) -> Tensor:
        """Standard deviations (P,)."""
        return (self.samples * (self.curvature + self.decay)).rsqrt()

    def step(self, slope: Callable[[Tensor], Tensor], lr: float) -> None:
        """Take a step along a gradient at a draw."""
        self.count += 1
        noise, width = torch.randn_like(self.mean), self.width
        gradient = slope(self.mean + width * noise)
        self.moment = self.beta1 * self.moment + (1 - self.beta1) * gradient
        h, kept = self.curvature, 1 - self.beta2
        seen = gradient * noise / width
        self.curvature = (
            self.beta2 * h + kept * seen
            + 0.5 * kept**2 * (h - seen).square() / (h + self.decay)
        )  # fmt: skip
        aim = self.moment / (1 - self.beta1**self.count) + self.decay * self.mean
        self.mean = self.mean - lr * aim / (self.curvature + self.decay)


def batches(task: Task, epochs: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw the batches of an ordinary training."""
    source = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for index in torch.randperm(len(task.train), generator=source).split(BATCH):
            yield task.train.x[index], task.train.y[index]


def by_ivon(module: nn.Module, task: Task, epochs: int, seed: int, lr: float) -> tuple[Any, Any]:
    """Train a network by IVON: the belief that it ends with, and its moments."""
    flat = FlatModel(module)
    (known,) = fit(flat, flat.initial(), [task])
    slope = slope_of(flat.loss(known))
    count = len(task.train)
    state = Ivon(flat.initial(), count, 1 / (WIDTH**2 * count))
    torch.manual_seed(seed)
    for x, y in batches(task, epochs, seed):
        state.step(lambda point, x=x, y=y: slope(point, x, y)[0], lr)
    return FlatModel(Belief(module)), torch.cat([state.width, state.mean])[None]


def by_plan(module: nn.Module, task: Task, plan: Training, seed: int) -> tuple[FlatModel, Tensor]:
    """Train a network, or a belief about it, as a plan says."""
    flat = FlatModel(believed(module, plan))
    (known,) = fit(flat, flat.initial(), [task], two_modes=True)
    order = DataOrder.planned(plan, len(task.train), replicas=1, seed=seed)
    return flat, train(flat, flat.initial()[None], known, plan, order).theta


def scores(flat: FlatModel, theta: Tensor, task: Task) -> tuple[float, float, float]:
    """Accuracy, loss and calibration error on the test split."""
    (known,) = fit(flat, theta[0], [task], two_modes=True)
    score = evaluate(flat, theta, known, known.test)
    error = calibration_error(flat, theta, known, known.test)
    return float(score.accuracy), float(score.loss), float(error)


def plans(count: int, epochs: int, rates: Mapping[str, float]) -> dict[str, Training]:
    """Say how each method but IVON is trained."""
    common: dict[str, Any] = {"epochs": epochs, "batch_size": BATCH}
    belief = {"geometry": "information", "width": WIDTH}
    kinds: dict[str, dict[str, Any]] = {
        "sgd": {},
        "natural, diagonal": {"optimizer": "natural", "options": {"curvature": "diagonal"}},
        "belief: information": {"belief": belief, "temperature": 1 / count},
        "the same, slow widths": {
            "belief": belief | {"width_rate": SLOW},
            "temperature": 1 / count,
        },
    }
    return {name: Training(lr=rates[name], **kind, **common) for name, kind in kinds.items()}


def trained(name: str, task: Task, epochs: int, seed: int, lr: float) -> tuple[FlatModel, Tensor]:
    """Train a network of its own by a method."""
    module = build_model(Model(hidden=(HIDDEN,)), (64,), 10, seed)
    if name == "IVON":
        return by_ivon(module, task, epochs, seed, lr)
    plan = plans(len(task.train), epochs, dict.fromkeys(RATES, lr))[name]
    return by_plan(module, task, plan, seed)


def chosen_rates(task: Task, epochs: int) -> dict[str, float]:
    """Choose every method's rate on a fifth of the training samples, left out of the training."""
    kept, held = holdout(task.train.y, 0.2, seed=0)
    inner = Task(name="inner", train=task.train.take(kept), test=task.train.take(held))

    def reached(name: str, lr: float) -> float:
        try:
            loss = scores(*trained(name, inner, epochs, 0, lr), inner)[1]
        except ValueError:  # it diverged
            return math.inf
        return loss if math.isfinite(loss) else math.inf

    return {
        name: min(rates, key=lambda lr, name=name: reached(name, lr))
        for name, rates in RATES.items()
    }


def cost(rounds: int, steps: int = 10) -> dict[str, float]:
    """Time steps of a network of 784-256-10 on batches of 64, in plain gradients."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    x, y = torch.randn(64, 784), torch.randint(10, (64,))
    task = Task(name="one", train=(x, y), test=(x, y))
    ways: dict[str, Callable[[], object]] = {}

    def way(plan: Training) -> Callable[[], object]:
        flat = FlatModel(believed(module, plan))
        (known,) = fit(flat, flat.initial(), [task], two_modes=True)
        update = from_training(plan).bound(flat.outputs, known)
        slope, theta = slope_of(flat.loss(known)), flat.initial()
        state = update.init(theta)

        def once() -> None:
            with flat.training(0):
                gradient, _ = slope(theta, x, y)
            update.step(state, conditioned(update.conditioner, theta, x, gradient), 0.01, 1)

        return once

    first = {name: rates[0] for name, rates in RATES.items()}
    ways = {name: way(plan) for name, plan in plans(len(x), 1, first).items()}
    flat = FlatModel(module)
    slope = slope_of(flat.loss(task))
    state = Ivon(flat.initial(), 64, 1.0)
    ways["IVON"] = lambda: state.step(lambda point: slope(point, x, y)[0], 1e-3)
    ways["gradient"] = lambda: slope(flat.initial(), x, y)
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, once in ways.items():
            start = time.process_time()
            for _ in range(steps):
                once()
            best[name] = min(best[name], time.process_time() - start)
    return {name: spent / best["gradient"] for name, spent in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.name}")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    stream = TaskStream(dataset="digits", scenario="permuted", experiences=1)
    (task,) = build_tasks(stream).tasks
    spent, rates = cost(options.rounds), chosen_rates(task, options.epochs)
    lines = [
        f"all digits, {len(task.train)} training samples, 64-{HIDDEN}-10, {options.epochs} epochs "
        f"in batches of {BATCH}; mean and spread over {options.seeds} seeds",
        "cost: processor time of a step in plain gradients, 784-256-10, batches of 64",
        f"torch {torch.__version__}, {torch.get_num_threads()} thread",
        "",
        f"{'method':22}{'rate':>8}{'accuracy':>19}{'test loss':>19}{'ECE':>19}{'cost':>7}",
    ]
    for name, rate in rates.items():
        made = [trained(name, task, options.epochs, seed, rate) for seed in range(options.seeds)]
        rows = [scores(*one, task) for one in made]
        told = [
            f"{statistics.fmean(column):.4f} +- {statistics.pstdev(column):.4f}"
            for column in zip(*rows, strict=True)
        ]
        lines.append(
            f"{name:22}{rate:8g}" + "".join(f"{t:>19}" for t in told) + f"{spent[name]:7.2f}"
        )
        print(lines[-1], flush=True)
    if options.save:
        RESULT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
