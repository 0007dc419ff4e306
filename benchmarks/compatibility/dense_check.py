"""Are capacity and dimension right, matrix-free against matrices written out?

Conditions: 64-24-10 (tanh; P = 1,810) on scikit-learn's digits in float64. A = digits 0-4, learned
by SGD; B = digits 5-9, and the digits 0-4 with their pixels permuted. Written out: J_t as the
product of 1 - lr H_k with dense Hessians, the GGN of A and its eigenvectors, H_B. Matrix-free: what
a run does, with capacity_precision = 0.005; R_A also with a run's default of 0.02.

Asserted: R_A within 1 % at every scale, m_B (stable rank and intrinsic dimension) within 5 %; with
the default effort, that R_A's interval holds the truth.

    python benchmarks/compatibility/dense_check.py [--epochs 8] [--seeds 3] [--save]
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import grad, hessian

from capacity.criterion.transition import CapacityRecord, assess
from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.jacobian.trajectory import Trajectory
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.from_recipe import from_training
from capacity.products.curvature_operators import ggn
from capacity.products.curvature_operators import hessian as hessian_products
from capacity.recipe.config import Measure, Training
from capacity.records.estimate import Estimate
from capacity.tasks.task import Split, Task
from capacity.training.data_order import DataOrder
from capacity.training.steps import Step
from capacity.training.train import train

RESULTS = Path(__file__).parent / "results" / "dense-check.txt"
EPS = (0.01, 0.1, 1.0)
CAPACITY_WITHIN, DIMENSION_WITHIN = 0.01, 0.05


Written = tuple[Tensor, Tensor]
"""Eigenvalues of A's GGN (P,), and the eigenvectors above the threshold (P, k)."""


class Recorder:
    """Keeps the trajectory of the only replica."""

    def __init__(self, trajectory: Trajectory) -> None:
        self.trajectory = trajectory

    def observe(self, step: Step) -> None:
        """Record one step."""
        state = tuple(part[0] for part in step.before)
        self.trajectory.record(state, step.x[0], step.y[0], step.lr)


def digits(labels: range, name: str, *, permuted: bool = False) -> Task:
    """Make a task of some digits; every fifth sample is held out."""
    data = load_digits()
    x, y = torch.tensor(data.data / 16), torch.tensor(data.target)
    if permuted:
        x = x[:, torch.randperm(64, generator=torch.Generator().manual_seed(1))]
    keep = torch.isin(y, torch.tensor(list(labels)))
    x, y = x[keep], y[keep]
    held = torch.arange(len(y)) % 5 == 0
    return Task(name=name, train=Split(x[~held], y[~held]), test=Split(x[held], y[held]))


def learned(model: FlatModel, task: Task, training: Training) -> tuple[Trajectory, Tensor]:
    """Learn a task, and keep the trajectory and the parameters at its end."""
    trajectory = Trajectory(model.loss(task), from_training(training))
    order = DataOrder(
        samples=len(task.train),
        batch_size=training.batch_size,
        epochs=training.epochs,
        replicas=1,
        seed=0,
    )
    start = model.initial()[None]
    phase = train(model, start, task, training, order, observers=[Recorder(trajectory)])
    return trajectory, phase.theta[0]


def written_out(trajectory: Trajectory) -> Tensor:
    """J_t, step by step, from Hessians that torch writes out."""
    made = torch.eye(trajectory.size)
    for step in trajectory.forwards():
        h = hessian(trajectory.loss, argnums=0)(step.state[0], step.x, step.y)
        made = made - step.lr * (h @ made)
    return made


def within(name: str, found: Estimate, exact: float, bound: float) -> str:
    """Assert that an estimate is near the truth, and say in one line how near."""
    assert found.value is not None
    off = found.value / exact - 1
    error = found.stderr or 0.0
    assert abs(off) <= bound, f"{name}: {found.value} against {exact}, {off:+.2%} off"
    return f"{name:38} {exact:12.4f} {found.value:12.4f} +- {error:8.4f} {off:+9.3%}  ({bound:.0%})"


def removed_space(model: FlatModel, theta: Tensor, old: Task, threshold: float) -> Written:
    """Write the GGN of A out, and what it removes."""
    values, vectors = torch.linalg.eigh(ggn(model, old, theta, old.train)(torch.eye(model.size)))
    return values, vectors[:, values > threshold]


def compare_capacity(
    record: CapacityRecord, cheap: CapacityRecord, space: Written, j: Tensor
) -> list[str]:
    """Compare what depends on A alone."""
    values, above = space
    preserving = record.preserving
    assert preserving.removed_range is not None
    low, high = preserving.removed_range
    # Where the cut falls in no gap, an eigenvalue within its residual of it can go either way.
    assert low <= above.shape[1] <= high, (low, above.shape[1], high)
    lines = [
        f"directions removed: {above.shape[1]} written out, {preserving.removed} matrix-free "
        f"(between {low} and {high})"
    ]
    soft = float((values / (values + preserving.threshold)).sum())
    assert preserving.soft_removed is not None
    lines.append(within("removed softly", preserving.soft_removed, soft, DIMENSION_WITHIN))
    pj = j - above @ (above.T @ j)
    squares = torch.linalg.svdvals(pj).square()
    for at, rough in zip(record.capacity, cheap.capacity, strict=True):
        exact = float(0.5 * torch.log1p(squares / at.eps**2).sum())
        exact /= 0.5 * math.log1p(at.eps**-2)
        name = f"R_A, directions, eps = {at.eps:g}"
        lines.append(within(name, at.directions, exact, CAPACITY_WITHIN))
        assert rough.directions.value is not None
        assert rough.directions.interval is not None
        low, high = rough.directions.interval
        assert low <= exact <= high, (low, exact, high)
        lines.append(
            f"  default effort: {rough.directions.value / exact - 1:+.3%}, inside its interval of "
            f"+- {(high - low) / 2 / exact:.1%}; products {rough.directions.cost:.0f} "
            f"instead of {at.directions.cost:.0f}"
        )
    return lines


def compare_dimension(
    model: FlatModel, theta: Tensor, new: Task, record: CapacityRecord, space: Written
) -> list[str]:
    """Compare what depends on B."""
    size, above = model.size, space[1]
    h = hessian(model.loss(new))(theta, new.train.x, new.train.y)
    p = torch.eye(size) - above @ above.T
    restricted = torch.linalg.eigvalsh(p @ h @ p)
    norm = float(restricted.abs().max())
    assert record.dimension is not None
    made = record.dimension
    rank = float(restricted.square().sum()) / norm**2
    trace = float(restricted.abs().sum()) / norm
    negative = float(restricted.clamp(max=0).abs().sum() / restricted.abs().sum())
    return [
        within("|P H_B P|_2", made.top_curvature, norm, DIMENSION_WITHIN),
        within("m_B, stable rank", made.stable_rank, rank, DIMENSION_WITHIN),
        within("m_B, intrinsic dimension", made.intrinsic, trace, DIMENSION_WITHIN),
        within("negative share of tr |P H_B P|", made.negative_share, negative, DIMENSION_WITHIN),
    ]


def product_costs(model: FlatModel, theta: Tensor, task: Task) -> str:
    """Time products with the GGN and the Hessian in gradients of the same samples."""
    loss = model.loss(task)
    slope = grad(loss)
    kinds = {
        "GGN": ggn(model, task, theta, task.train),
        "Hessian": hessian_products(model, task, theta, task.train),
    }

    def seconds(call: object, repeats: int = 7) -> float:
        times = []
        for _ in range(repeats):
            start = time.process_time()
            call()  # type: ignore[operator]
            times.append(time.process_time() - start)
        return min(times)

    one = seconds(lambda: slope(theta, task.train.x, task.train.y), 30)
    said = []
    for kind, product in kinds.items():
        for count in (1, 8, 32):
            rows = torch.randn(count, model.size)
            spent = seconds(lambda product=product, rows=rows: product(rows))
            said.append(f"{kind} {count}: {spent / count / one:.2f}")
    return f"gradients per product, {len(task.train)} samples, by vectors at once: " + ", ".join(
        said
    )


def main() -> None:
    """Compare, print, and save if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="keep the table in results/")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    old = digits(range(5), "digits 0-4")
    others = (digits(range(5, 10), "digits 5-9"), digits(range(5), "permuted", permuted=True))
    training = Training(lr=0.2, epochs=asked.epochs, batch_size=64)
    # Every sample counts in both, so that only the matrix-free estimates differ.
    default = Measure(eps=EPS, curvature_samples=10**6, sensitivity_eps=())
    fine = default.model_copy(update={"capacity_precision": 0.005, "capacity_nodes": 30})
    lines = [
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread",
        f"{'':38} {'written out':>12} {'matrix-free':>12} {'':11} {'off':>9}  (asserted)",
    ]
    print(*lines, sep="\n", flush=True)
    for seed in range(asked.seeds):
        torch.manual_seed(seed)
        model = FlatModel(nn.Sequential(nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 10)))
        trajectory, theta = learned(model, old, training)
        j = written_out(trajectory)
        for new in others:
            records, seconds = [], []
            for measure in (default, fine):
                start = time.process_time()
                records.append(
                    assess(
                        model,
                        theta,
                        [old],
                        new,
                        TrainingJacobian([trajectory]),
                        measure,
                        displacement=float((theta - model.initial()).norm()),
                        generator=torch.Generator().manual_seed(seed),
                    )
                )
                seconds.append(time.process_time() - start)
            cheap, record = records
            made = [
                f"seed {seed}, A = {old.name}, {len(trajectory)} steps, B = {new.name}: "
                f"{seconds[0]:.1f} s with the default effort, {seconds[1]:.1f} s with this"
            ]
            if new is others[0]:
                space = removed_space(model, theta, old, record.preserving.threshold)
                made += compare_capacity(record, cheap, space, j)
            made += compare_dimension(model, theta, new, record, space)
            print(*made, sep="\n", flush=True)
            lines += made
    lines.append(product_costs(model, theta, old))
    lines.append(
        f"R_A within {CAPACITY_WITHIN:.0%}, m_B within {DIMENSION_WITHIN:.0%}: all asserted"
    )
    print(*lines[-2:], sep="\n")
    if asked.save:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"saved {RESULTS.name}")


if __name__ == "__main__":
    main()
