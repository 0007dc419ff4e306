"""What does each strategy against forgetting keep, and what does it cost the new tasks?

Each strategy learns digits of two kinds, natively, with several seeds side by side: five tasks of
two classes with one head for all (split), and the ten classes under five permutations of the
pixels. Naive training is the lower and joint training the upper reference. Nothing was tuned:
strategies with a weight are shown at every weight of a coarse list, all others as they come.

Printed per strategy, mean over seeds +- standard deviation over seeds: the mean accuracy over all
tasks at the end; the mean forgetting of the old tasks (accuracy just after learning a task minus at
the end); the mean accuracy on each new task just after learning it; processor seconds of training
with all seeds. A strategy whose steps diverge says so: a stiff penalty and a large step do.

    python benchmarks/forecast/strategies_check.py [--seeds 4] [--save]
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from capacity.base.random_streams import stream_seed
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.networks.models import build_model
from capacity.recipe import config
from capacity.recipe.config import Recipe, Strategy
from capacity.strategies.mitigation import Mitigation
from capacity.strategies.terms import Source
from capacity.tasks.build import build_tasks
from capacity.training.data_order import DataOrder

RESULTS = Path(__file__).parent / "results"
RECIPES = ("split-digits", "permuted-digits")
CASES: tuple[dict[str, object], ...] = (
    {"name": "naive"},
    {"name": "joint"},
    *({"name": "l2", "strength": w} for w in (0.01, 0.1, 1.0)),
    *({"name": "ewc", "strength": w} for w in (1.0, 10.0, 100.0)),
    {"name": "ewc", "strength": 10.0, "fisher": "empirical"},
    {"name": "ewc", "strength": 1.0, "fisher": "ggn", "samples": 128},
    *({"name": "si", "strength": w} for w in (0.1, 1.0, 10.0)),
    *({"name": "mas", "strength": w} for w in (0.1, 1.0)),
    {"name": "replay", "memory": 20},
    {"name": "replay", "memory": 200},
    {"name": "lwf", "strength": 1.0},
    {"name": "lwf", "strength": 5.0},
    {"name": "der"},
    {"name": "derpp"},
    {"name": "agem"},
    {"name": "ogd"},
    {"name": "gpm"},
    {"name": "freeze", "parameters": ["1.*"]},
    {"name": "lower_lr"},
    {"name": "fewer_epochs"},
)


@dataclass(frozen=True)
class Outcome:
    """One strategy on one sequence.

    Attributes:
        matrix: R[i, j] per seed, accuracy on task j after training task i (K, K, R).
        seconds: Processor time of training, all seeds.
        diverged: Task on which it diverged, or None.
    """

    matrix: Tensor
    seconds: float
    diverged: int | None


def learn(recipe: Recipe, options: Strategy, seeds: int) -> Outcome:
    tasks = build_tasks(recipe.tasks)
    starts = [stream_seed(recipe.seed, "init", r) for r in range(seeds)]
    models = [
        FlatModel(build_model(recipe.model, tasks.input_shape, tasks.n_outputs, s)) for s in starts
    ]
    model, theta = models[0], torch.stack([m.initial() for m in models])
    mitigation = Mitigation(options, model, Source(recipe.seed, ("strategy",)))
    rows, seconds = [], 0.0
    for i, task in enumerate(tasks.tasks):
        order = DataOrder(
            samples=len(task.train),
            batch_size=recipe.training.batch_size,
            epochs=recipe.training.epochs,
            replicas=seeds,
            seed=recipe.seed,
            path=("order", i),
        )
        began = time.process_time()
        phase = mitigation.learn(theta, task, recipe.training, order)
        seconds += time.process_time() - began
        if phase.diverged is not None:
            return Outcome(torch.empty(0), seconds, i)
        theta = phase.theta
        rows.append(torch.stack([evaluate(model, theta, t, t.test).accuracy for t in tasks.tasks]))
    return Outcome(torch.stack(rows), seconds, None)


def said(options: dict[str, object]) -> str:
    rest = [f"{key} {value}" for key, value in options.items() if key != "name"]
    return ", ".join([str(options["name"]), *rest]).replace("[", "").replace("]", "")


def figures(outcome: Outcome) -> str:
    if outcome.diverged is not None:
        return f"diverged on task {outcome.diverged + 1}"
    matrix = outcome.matrix
    last, learned = matrix[-1], torch.diagonal(matrix).T  # (K, R) each
    kept = (learned - last)[:-1].mean(0)
    cells = [last.mean(0), kept, learned[1:].mean(0)]
    texts = [f"{float(c.mean()):7.3f} +- {float(c.std()):.3f}" for c in cells]
    return "".join(f"{text:>19}" for text in texts) + f"{outcome.seconds:9.1f}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, default=4, help="networks per strategy")
    arguments.add_argument("--epochs", type=float, default=1.0, help="share of the epochs")
    arguments.add_argument("--save", action="store_true", help="keep the tables in results/")
    chosen = arguments.parse_args()
    lines = [
        f"torch {torch.__version__}, Python {platform.python_version()}, {chosen.seeds} seeds; "
        "mean +- standard deviation over seeds"
    ]
    for name in RECIPES:
        recipe = config.load(name)
        epochs = max(1, round(recipe.training.epochs * chosen.epochs))
        training = recipe.training.model_copy(update={"epochs": epochs})
        recipe = recipe.model_copy(update={"training": training})
        lines += [
            "",
            f"{name}: {recipe.description} {training.optimizer}, lr {training.lr:g}, {epochs} "
            f"epochs, batch {training.batch_size}",
            f"  {'':36}{'final accuracy':>19}{'forgetting':>19}{'new task':>19}{'seconds':>9}",
        ]
        print("\n".join(lines[-3:] if name != RECIPES[0] else lines), flush=True)
        for options in CASES:
            outcome = learn(recipe, Strategy.model_validate(options), chosen.seeds)
            lines.append(f"  {said(options):36}{figures(outcome)}")
            print(lines[-1], flush=True)
    if chosen.save:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / "strategies-digits.txt"
        path.write_text("\n".join(lines) + "\n")
        print(f"wrote {path.name}", file=sys.stderr)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        torch.set_num_threads(1)
        main()
