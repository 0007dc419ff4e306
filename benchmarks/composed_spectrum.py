"""Is the spectrum of the composed Jacobian right, and are its error bars honest?

A 64-16-10 network learns digits for 625 steps in float64, by SGD and with momentum. Its training
Jacobian (P = 1210) is written out as the truth; the estimates come from products with the stored
trajectory only (`method="krylov"`). Prints, per training: the top 50 singular values and what they
cost, the counts below 0.1, 0.5, 0.9 and above 1.1, the alignment of the bulk, the rank of J - 1 and
the effective rank; and a verdict per line: within 5 % or two of its own standard errors.

    python benchmarks/composed_spectrum.py
"""

from __future__ import annotations

import time

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from capacity.jacobian.singular_value_counts import Thresholds
from capacity.jacobian.spectrum import spectrum
from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.jacobian.trajectory import Trajectory
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.from_recipe import from_training
from capacity.recipe.config import Training
from capacity.records.estimate import Estimate
from capacity.tasks.task import Split, Task
from capacity.training.data_order import DataOrder
from capacity.training.steps import Step
from capacity.training.train import train

TRAININGS = {
    "sgd, lr 0.3": Training(lr=0.3, epochs=25, batch_size=64),
    "momentum 0.9, lr 0.05, cosine": Training(
        optimizer="momentum", lr=0.05, epochs=25, batch_size=64, schedule="cosine"
    ),
}


class Record:
    """Keeps the trajectory of the only replica."""

    def __init__(self, trajectory: Trajectory) -> None:
        self.trajectory = trajectory

    def observe(self, step: Step) -> None:
        """Keep a step."""
        state = tuple(part[0] for part in step.before)
        self.trajectory.record(state, step.x[0], step.y[0], step.lr)


def trained(training: Training) -> Trajectory:
    """Train the network."""
    data = load_digits()
    x, y = torch.tensor(data.data / 16)[:1600], torch.tensor(data.target)[:1600]
    task = Task(name="digits", train=Split(x, y), test=Split(x, y))
    torch.manual_seed(0)
    model = FlatModel(nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10)))
    trajectory = Trajectory(model.loss(task), from_training(training))
    order = DataOrder(
        samples=1600, batch_size=training.batch_size, epochs=training.epochs, replicas=1, seed=0
    )
    start = model.initial()[None]
    train(model, start, task, training, order, observers=[Record(trajectory)])
    return trajectory


def line(name: str, found: Estimate, exact: float, share: float = 0.05) -> None:
    """Print an estimate beside the truth."""
    value, error = found.value or 0.0, found.stderr or 0.0
    good = abs(value - exact) <= max(share * abs(exact), 2 * error)
    span = "" if found.interval is None else "[{:.5g}, {:.5g}]".format(*found.interval)
    print(
        f"  {name:26s}{exact:10.5g}{value:12.6g} \u00b1 {error:<9.3g}{span:20s}"
        f"{found.status:14s}{'holds' if good else 'FAILS'}"
    )


def number_in(values: Tensor, low: float, high: float) -> float:
    """Count values in a half-open interval."""
    return float(((values > low) & (values <= high)).sum())


def compare(training: Training) -> None:
    """Hold the estimates of one training against its dense Jacobian."""
    trajectory = trained(training)
    jacobian = TrainingJacobian([trajectory], chunk=256)
    began = time.perf_counter()
    dense = jacobian.forward(torch.eye(jacobian.size)).T.contiguous()
    seconds = time.perf_counter() - began
    print(f"  {len(trajectory)} steps, P = {jacobian.size}; dense J {seconds:.0f} s")
    left, truth, right = torch.linalg.svd(dense)
    for seed in range(2):
        top_only = Thresholds(above=(3.0,), below=(), stable_below=2.9, chaotic_above=3.0)
        generator = torch.Generator().manual_seed(seed)
        found = spectrum(
            jacobian, top=50, sweeps=18, generator=generator, method="krylov", thresholds=top_only
        )
        values = torch.tensor([s.value for s in found.singular_values])
        worst = float(((values - truth[:50]).abs() / truth[:50]).max())
        cost = f"{found.products_forward} forward + {found.products_adjoint} adjoint products"
        print(f"  seed {seed}: top 50 within {worst:.1e} (relative), {cost}")
        began = time.perf_counter()
        found = spectrum(
            jacobian,
            top=50,
            sweeps=40,
            moved_sweeps=40,
            generator=torch.Generator().manual_seed(seed),
            method="krylov",
        )
        seconds = time.perf_counter() - began
        cost = f"{found.products_forward} + {found.products_adjoint} products in {seconds:.0f} s"
        print(f"  everything: {found.sweeps} sweeps for J, the rest for J - 1; {cost}")
        print(f"  {'':26s}{'truth':>10s}{'estimate':>12s}")
        for edge, count in zip((0.1, 0.5, 0.9), found.counts.below, strict=True):
            line(f"below {edge}", count, number_in(truth, -1, edge))
        line("above 1.1 (chaotic)", found.counts.chaotic, number_in(truth, 1.1, 1e9))
        line("0.9 to 1.1 (bulk)", found.counts.bulk, number_in(truth, 0.9, 1.1))
        bulk = (truth > 0.9) & (truth <= 1.1)
        line(
            "mean <u, v> in the bulk", found.alignment, float((left * right.T).sum(0)[bulk].mean())
        )
        moved = torch.linalg.svdvals(dense - torch.eye(len(dense)))
        line("J - 1 above 0.1", found.moved, number_in(moved, 0.1, 1e9))
        share = truth.square() / truth.square().sum()
        entropy = -torch.special.xlogy(share, share).sum()
        line("effective rank", found.effective_rank, float(entropy.exp()))
        line("|J|_F^2", found.frobenius_sq, float(truth.square().sum()))
        line("|J - 1|_F^2", found.deviation_sq, float(moved.square().sum()))


def main() -> None:
    """Print everything."""
    torch.set_default_dtype(torch.float64)
    for name, training in TRAININGS.items():
        print(name)
        compare(training)


if __name__ == "__main__":
    main()
