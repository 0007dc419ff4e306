"""Which way of learning forgets less, and what does it pay: optimisers, geometries and strategies.

Every method learns the same tasks with the same networks, data order and number of steps, at a rate
of its own at which it learns the new task. Efficiency is the least cost over the cost in the
method's own geometry, from 0 to 1: d^2/(T dF) of a belief's population, d^2/(T action) of points in
the metric of their steps; Langevin noise has no action, and a curved metric no distance here;
nor has a belief under a strategy, which changes the free energy that is lowered.
`--save` keeps the table, its record, and the page of the gallery.

    OMP_NUM_THREADS=1 python benchmarks/thermo/geometries.py [--save] [--epochs 5] [--samples 500]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from geometries_page import RECORD, write

from capacity.networks.belief import believed
from capacity.networks.door import fit
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.networks.models import build_model
from capacity.optimizers.from_recipe import from_training
from capacity.recipe.config import Model, TaskStream, Training
from capacity.strategies.mitigation import Mitigation
from capacity.strategies.step import StrategyStep
from capacity.tasks.build import build_tasks
from capacity.thermo.belief_cost import belief_cost
from capacity.thermo.path import PathObserver
from capacity.training.data_order import DataOrder
from capacity.training.train import train

RESULT = Path(__file__).parent / "results" / "geometries.txt"
OPTIMISERS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.2},
    "momentum": {"optimizer": "momentum", "lr": 0.03},
    "adam": {"optimizer": "adam", "lr": 0.003},
    "mirror, hypentropy": {"optimizer": "mirror", "lr": 0.6, "options": {"width": 0.3}},
    "mirror, 3-norm": {
        "optimizer": "mirror",
        "lr": 0.03,
        "options": {"potential": "p-norm", "p": 3.0},
    },
    "natural, diagonal": {
        "optimizer": "natural",
        "lr": 0.02,
        "options": {"curvature": "diagonal", "damping": 0.1},
    },
    "sgld": {"optimizer": "sgld", "lr": 0.2, "temperature": 1e-5},
    "underdamped": {"optimizer": "underdamped", "lr": 0.2, "temperature": 1e-5},
    "belief, transport": {
        "belief": {"geometry": "transport", "width": 0.05},
        "lr": 0.2,
        "temperature": 1e-4,
    },
    "belief, information": {
        "belief": {"geometry": "information", "width": 0.05},
        "lr": 40.0,
        "temperature": 1e-4,
    },
}
STRATEGIES: dict[str, dict[str, Any]] = {
    "naive": {},
    "ewc": {"strength": 10.0},
    "replay": {"memory": 100},
    "vcl": {},
    "fisher_rao": {},
}
TASKS = {"split-digits": 5, "permuted-digits": 3}
"""Recipes, with the number of tasks."""
REPLICAS = 2


class Cell(NamedTuple):
    """What one way of learning came to, averaged over tasks and replicas.

    Attributes:
        accuracy: On all tasks at the end.
        new: On every task when it was new.
        forgotten: Accuracy lost since then, but for the last task.
        efficiency: Least cost over cost; None where it is not defined.
        seconds: Processor time of the trainings.
    """

    accuracy: float
    new: float
    forgotten: float
    efficiency: float | None
    seconds: float


def learned(tasks: str, method: str, strategy: str, epochs: int, samples: int) -> Cell:
    """Train one cell of the table.

    Args:
        tasks: One of `TASKS`.
        method: One of `OPTIMISERS`.
        strategy: One of `STRATEGIES`.
        epochs: Epochs per task.
        samples: Samples of the data set.

    Returns:
        The cell.
    """
    scenario = tasks.split("-")[0]
    stream = TaskStream(
        dataset="digits", scenario=scenario, experiences=TASKS[tasks], samples=samples
    )
    options = {"name": strategy, **STRATEGIES[strategy]}
    plan = Training(epochs=epochs, batch_size=32, strategy=options, **OPTIMISERS[method])
    sequence = build_tasks(stream)
    kind = Model(kind="mlp", hidden=[32])
    flat, *others = [
        FlatModel(believed(build_model(kind, sequence.input_shape, sequence.n_outputs, seed), plan))
        for seed in range(REPLICAS)
    ]
    theta = torch.stack([flat.initial(), *(other.initial() for other in others)])
    known = fit(flat, theta[0], sequence.tasks, two_modes=True)
    mitigation = Mitigation(plan.strategy, flat)
    spent, when_new, shares = 0.0, [], []
    for i, task in enumerate(known):
        own = mitigation.plan(task, plan)
        order = DataOrder.planned(plan, len(task.train), replicas=REPLICAS, seed=0, path=(i,))
        update = from_training(plan, seed=0, path=("order", i), layout=flat.layout)
        path = PathObserver(update)
        start, before = time.process_time(), evaluate(flat, theta, task, task.train)
        phase = train(
            flat, theta, task, plan, order,
            observers=[path, *mitigation.observers()], update=update,
            strategy=None if own.plain else StrategyStep(flat, task, own, REPLICAS),
        )  # fmt: skip
        spent += time.process_time() - start
        if plan.belief is not None:
            cost = belief_cost(
                flat, theta, phase.theta, task, plan, time=phase.learning_time, seed=i
            )
            # A strategy changes the functional, whose drop alone has the limit.
            shares.append(cost.inefficiency.value if own.plain else None)
        else:
            after = evaluate(flat, phase.theta, task, task.train)
            noisy = plan.noisy
            found = path.cost(before.loss, after.loss, plain=False, full=False, noisy=noisy)
            ratio = found.geometry.inefficiency if found.geometry else found.inefficiency_path
            shares.append(None if update.conditions else ratio.value)
        theta = phase.theta
        mitigation.learned(task, theta)
        when_new.append(float(evaluate(flat, theta, task, task.test).accuracy.mean()))
    end = [float(evaluate(flat, theta, t, t.test).accuracy.mean()) for t in known]
    lost = [a - b for a, b in zip(when_new, end, strict=True)][:-1]
    known_shares = [1 / share for share in shares if share is not None]
    return Cell(
        accuracy=sum(end) / len(end),
        new=sum(when_new) / len(when_new),
        forgotten=sum(lost) / len(lost),
        efficiency=sum(known_shares) / len(shares) if len(known_shares) == len(shares) else None,
        seconds=spent,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.name}")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--samples", type=int, default=500)
    options = parser.parse_args()
    conditions = (
        f"a network of 32 hidden units, {REPLICAS} replicas, {options.epochs} epochs per task of "
        f"{options.samples} samples in batches of 32"
    )
    lines = [
        conditions,
        f"torch {torch.__version__}, {torch.get_num_threads()} thread; processor time of training",
    ]
    tables: dict[str, list[dict[str, Any]]] = {}
    for tasks in TASKS:
        rows = tables[tasks] = []
        lines += [
            "",
            f"{tasks:22}{'strategy':12}{'accuracy':>9}{'when new':>9}{'forgotten':>10}"
            f"{'efficiency':>11}{'s':>6}",
        ]
        for method, plan in OPTIMISERS.items():
            for strategy in STRATEGIES:
                if strategy in {"vcl", "fisher_rao"} and "belief" not in plan:
                    continue
                made = learned(tasks, method, strategy, options.epochs, options.samples)
                told = {k: None if v is None else round(v, 3) for k, v in made._asdict().items()}
                rows.append({"method": method, "strategy": strategy, **told})
                share = "-" if made.efficiency is None else f"{made.efficiency:.3f}"
                lines.append(
                    f"{method:22}{strategy:12}{made.accuracy:9.3f}{made.new:9.3f}"
                    f"{made.forgotten:10.3f}{share:>11}{made.seconds:6.1f}"
                )
                print(lines[-1], flush=True)
    if options.save:
        RESULT.write_text("\n".join(lines) + "\n")
        RECORD.write_text(json.dumps({"conditions": conditions, "tables": tables}, indent=1) + "\n")
        write()


if __name__ == "__main__":
    main()
