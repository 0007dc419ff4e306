"""Is log|det J_t| right on a real training, for SGD and for optimisers with moments?

Conditions: 64-H-10 (tanh) on 1,600 scikit-learn digits, batches of 64, 25 epochs (625 steps),
float64. SGD's estimate (stochastic Lanczos quadrature per step) is held against the sum of exact
per-step log-determinants; that of momentum, Adam and AdamW (frames of all columns) against the same
with four times as many orthonormalisations, and against the determinant of the dense J_t, which
rounding spoils where J_t contracts strongly.

    python benchmarks/transport/log_volume.py [--hidden 16] [--epochs 25] [--only sgd momentum]
"""

from __future__ import annotations

import argparse
import platform
import time

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from capacity.jacobian.framed_log_volume import framed_log_volume
from capacity.jacobian.log_volume import LogVolume
from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.jacobian.trajectory import Trajectory
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.from_recipe import from_training
from capacity.recipe.config import Training
from capacity.tasks.task import Split, Task
from capacity.training.data_order import DataOrder
from capacity.training.steps import Step
from capacity.training.train import train

TRAININGS = {
    "sgd": {"lr": 0.1},
    "sgd, cosine from 0.3": {"lr": 0.3, "schedule": "cosine"},
    "momentum": {"optimizer": "momentum", "lr": 0.1, "schedule": "cosine"},
    "adam": {"optimizer": "adam", "lr": 0.01},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.01, "schedule": "cosine"},
}


class Recorder:
    """Keeps the trajectory of the only replica."""

    def __init__(self, trajectory: Trajectory) -> None:
        self.trajectory = trajectory

    def observe(self, step: Step) -> None:
        """Record one step."""
        state = tuple(part[0] for part in step.before)
        self.trajectory.record(state, step.x[0], step.y[0], step.lr)


def digits() -> Task:
    data = load_digits()
    split = Split(torch.tensor(data.data[:1600] / 16), torch.tensor(data.target[:1600]))
    return Task(name="digits", train=split, test=split)


def trained(task: Task, hidden: int, training: Training, seed: int) -> Trajectory:
    torch.manual_seed(seed)
    model = FlatModel(nn.Sequential(nn.Linear(64, hidden), nn.Tanh(), nn.Linear(hidden, 10)))
    trajectory = Trajectory(model.loss(task), from_training(training))
    order = DataOrder(
        samples=len(task.train), batch_size=64, epochs=training.epochs, replicas=1, seed=seed
    )
    train(model, model.initial()[None], task, training, order, observers=[Recorder(trajectory)])
    return trajectory


def exact_steps(trajectory: Trajectory) -> tuple[Tensor, int]:
    """log|det(1 - lr H)| of every step, written out, and how many steps fold."""
    unit = torch.eye(trajectory.size)
    found, folds = [], 0
    for step in trajectory.forwards():
        h = trajectory.products(step.state[0], step.x, step.y, unit)
        values = torch.linalg.eigvalsh((h + h.T) / 2)
        found.append((1 - step.lr * values).abs().log().sum())
        folds += int(step.lr * values[-1] > 1)
    return torch.stack(found), folds


def compare_symmetric(trajectory: Trajectory) -> None:
    exact, folds = exact_steps(trajectory)
    total = float(exact.sum())
    print(f"  exact sum of {len(exact)} log-determinants: {total:.4f}; lr l > 1 in {folds} steps")
    for probes, nodes in ((2, 3), (4, 3), (4, 6), (16, 3)):
        made = LogVolume(
            trajectory.products,
            trajectory.update,
            probes=probes,
            nodes=nodes,
            generator=torch.Generator().manual_seed(1),
        )
        start = time.perf_counter()
        for step in trajectory.forwards():
            made.observe(step)
        found = made.estimate()
        assert found.value is not None
        assert found.stderr is not None
        off, spent = found.value - total, time.perf_counter() - start
        good = abs(off) <= max(0.01 * abs(total), 2 * found.stderr)
        print(
            f"  {probes} probes, {nodes} nodes: {found.value:.4f} +- {found.stderr:.4f}; off by "
            f"{off:+.4f} = {off / total:+.2%} = {off / found.stderr:+.2f} standard errors, "
            f"{spent:.0f} s: {'within' if good else 'NOT within'} 1 % or two standard errors"
        )
        if found.note:
            print(f"    note: {found.note}")


def compare_framed(trajectory: Trajectory) -> None:
    made = {}
    for every in (20, 5):
        start = time.perf_counter()
        found = framed_log_volume(trajectory, every=every)
        made[every] = found.value or float("nan")
        print(
            f"  orthonormalised every {every} steps: {found.value} +- {found.stderr:.1e} "
            f"({found.status}), {time.perf_counter() - start:.0f} s"
        )
    print(f"  the two differ by {made[20] - made[5]:+.1e}")
    dense = TrainingJacobian([trajectory]).forward(torch.eye(trajectory.size))
    values = torch.linalg.svdvals(dense)
    print(
        f"  determinant of the dense J_t: {float(torch.linalg.slogdet(dense)[1]):.4f} (singular "
        f"values {float(values[0]):.3g} to {float(values[-1]):.3g})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--only", nargs="+", choices=TRAININGS, default=list(TRAININGS))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    task = digits()
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread")
    for name in asked.only:
        training = Training(epochs=asked.epochs, batch_size=64, **TRAININGS[name])
        trajectory = trained(task, asked.hidden, training, asked.seed)
        print(f"{name}: P = {trajectory.size}, {len(trajectory)} steps", flush=True)
        if trajectory.update.symmetric_decay is None:
            compare_framed(trajectory)
        else:
            compare_symmetric(trajectory)


if __name__ == "__main__":
    main()
