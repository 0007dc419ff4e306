"""Does the room for new tasks shrink over 20 of them, and does plasticity shrink with it?

Conditions: the digits with their pixels as they are, then permuted 19 times (512 training samples
per task), a 64-32-10 ReLU network, plain SGD. Before every new task: R_A of all tasks so far, with
J_t of the whole training, at a tolerance and a displacement that stay those of the first
transition; what A's GGN removes, softly too; the share of the new task's kernel that sparing A
leaves; and the measures that the loss of plasticity is read from. Beside each: its rank correlation
with the task's number, with the accuracy that the new task reaches, and with the drop on old ones.

    python benchmarks/compatibility/long_sequence.py [--tasks 20] [--epochs 8] [--save]
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from capacity.criterion.criterion import assess_transition
from capacity.criterion.transition import CapacityRecord, assess
from capacity.forecasting.scores import spearman
from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.jacobian.trajectory import Trajectory
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.networks.models import build_model
from capacity.optimizers.from_recipe import from_training
from capacity.recipe.config import Measure, Model, TaskStream, Training
from capacity.records.estimate import Estimate
from capacity.tasks.build import build_tasks
from capacity.tasks.task import Task
from capacity.training.data_order import DataOrder
from capacity.training.steps import Step
from capacity.training.train import train

RESULTS = Path(__file__).parent / "results" / "long-sequence.txt"
Reader = Callable[[CapacityRecord], Estimate | None]
READERS: dict[str, Reader] = {
    "R_A": lambda r: r.capacity[0].directions,
    "P-k": lambda r: Estimate(value=float(r.preserving.rank)),
    "soft k": lambda r: r.preserving.soft_removed,
    "m_B": lambda r: None if r.dimension is None else r.dimension.stable_rank,
    "feat rank": lambda r: r.plasticity.feature_rank,
    "srank": lambda r: r.plasticity.feature_srank,
    "dormant": lambda r: r.plasticity.dormant,
    "grad rank": lambda r: r.plasticity.gradient_rank,
    "|theta|": lambda r: r.plasticity.weight_norm,
}
COLUMNS = (*READERS, "kept", "expected drop", "drop", "new acc")


class Recorder:
    """Keeps the trajectory of the only replica."""

    def __init__(self, trajectory: Trajectory) -> None:
        self.trajectory = trajectory

    def observe(self, step: Step) -> None:
        """Record one step."""
        state = tuple(part[0] for part in step.before)
        self.trajectory.record(state, step.x[0], step.y[0], step.lr)


def learn(
    model: FlatModel, theta: Tensor, task: Task, training: Training, number: int
) -> tuple[Trajectory, Tensor]:
    """Learn one task, and keep its trajectory."""
    trajectory = Trajectory(model.loss(task), from_training(training))
    order = DataOrder(
        samples=len(task.train),
        batch_size=training.batch_size,
        epochs=training.epochs,
        replicas=1,
        seed=0,
        path=("order", number),
    )
    phase = train(model, theta[None], task, training, order, observers=[Recorder(trajectory)])
    assert phase.diverged is None
    return trajectory, phase.theta[0]


def accuracies(model: FlatModel, theta: Tensor, tasks: list[Task]) -> float:
    """Average the test accuracy over tasks."""
    found = [evaluate(model, theta[None], task, task.test).accuracy for task in tasks]
    return float(torch.cat(found).mean())


def row(number: int, values: dict[str, float]) -> str:
    """Write one line of the table."""
    return f"{number:>4} " + " ".join(f"{values[name]:>13.4g}" for name in COLUMNS)


def correlations(table: list[dict[str, float]]) -> list[str]:
    """Correlate every column with the number of the task, and with what the new task reaches."""
    lines = []
    for title, against in (
        ("with the task's number", [float(k) for k in range(len(table))]),
        ("with the new task's accuracy", [r["new acc"] for r in table]),
        ("with the measured drop", [r["drop"] for r in table]),
    ):
        said = []
        for name in COLUMNS:
            values = [r[name] for r in table]
            rank = spearman(values, against)
            said.append(f"{name} {'-' if rank.value is None else format(rank.value, '+.2f')}")
        lines.append(f"Spearman {title}: " + ", ".join(said))
    return lines


def main() -> None:
    """Learn the sequence, measure before every task, print, and save if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--save", action="store_true", help="keep the table in results/")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    stream = TaskStream(dataset="digits", scenario="permuted", experiences=asked.tasks, samples=512)
    sequence = build_tasks(stream)
    model = FlatModel(build_model(Model(hidden=(32,)), sequence.input_shape, 10, 0))
    training = Training(lr=0.2, epochs=asked.epochs, batch_size=64)
    theta = model.initial()
    phases: list[Trajectory] = []
    table: list[dict[str, float]] = []
    start = time.process_time()
    lines = [
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread; "
        f"{asked.tasks} tasks, {asked.epochs} epochs each, P = {model.size}",
        "task " + " ".join(f"{name:>13}" for name in COLUMNS),
    ]
    print(*lines, sep="\n", flush=True)
    tolerance = displacement = 0.0
    incomplete = 0
    for number, task in enumerate(sequence.tasks):
        values: dict[str, float] = {}
        old = list(sequence.tasks[:number])
        if number:
            if number == 1:
                displacement = float((theta - model.initial()).norm())
            measure = Measure(
                tolerance=tolerance or None, capacity_nodes=6, curvature_samples=256,
                sensitivity_eps=(),
            )  # fmt: skip
            record = assess(
                model, theta, old, task, TrainingJacobian(phases), measure,
                displacement=displacement, generator=torch.Generator().manual_seed(number),
            )  # fmt: skip
            tolerance = record.preserving.tolerance
            incomplete += not record.preserving.converged
            found = {name: read(record) for name, read in READERS.items()}
            judged = assess_transition(
                model, theta, old, task, training,
                tolerance=tolerance, displacement=displacement, groups=0,
            )  # fmt: skip
            found |= {"kept": judged.room.kept, "expected drop": judged.directional.value}
            values = {
                name: float("nan") if e is None or e.value is None else e.value
                for name, e in found.items()
            }
        before = accuracies(model, theta, old) if old else 0.0
        trajectory, theta = learn(model, theta, task, training, number)
        phases.append(trajectory)
        if number:
            values["drop"] = before - accuracies(model, theta, old)
            values["new acc"] = accuracies(model, theta, [task])
            table.append(values)
            lines.append(row(number + 1, values))
            print(lines[-1], flush=True)
        spent = time.process_time() - start
        print(f"task {number + 1} of {asked.tasks}: {spent:.0f} s", file=sys.stderr, flush=True)
    lines += [
        f"a = {tolerance:.4g}, d = {displacement:.4g}: those of the first transition; "
        f"k not found in full in {incomplete} of {len(table)}; "
        f"{time.process_time() - start:.0f} s of one core",
        *correlations(table),
    ]
    print(*lines[-4:], sep="\n")
    if asked.save:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"saved {RESULTS.name}")


if __name__ == "__main__":
    main()
