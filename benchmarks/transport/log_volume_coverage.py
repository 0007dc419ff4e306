"""How often does the 90 % interval of log|det J_t| hold the exact value, and how wide is it?

P = 235 (64-3-10, tanh) on 640 scikit-learn digits, 10 batches of 64, float64, the default's 4
probes and 3 nodes. Per seed one network is trained at a rate at which training is stable. Its J_t
is then taken at other rates: at every step lr = c / lambda_max of that batch's Hessian, for one c
per row, so that every step lies as near the logarithm's pole as the row says, or folds (c > 1).
The truth is the sum of log|det(1 - lr H)| over eigenvalues of the dense Hessians. For normal errors
with the right standard error 90 % of the intervals hold it, and the median half-width is 2.4 times
the median error.

    python benchmarks/transport/log_volume_coverage.py [--save] [--seeds 40]
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from log_volume import digits, trained
from torch import Tensor

from capacity.jacobian.log_volume import LogVolume
from capacity.jacobian.trajectory import TrainingStep, Trajectory
from capacity.recipe.config import Training
from capacity.records.estimate import Estimate
from capacity.tasks.task import Split, Task

RESULT = Path(__file__).parent / "results" / "log_volume_coverage.txt"
RATES = (0.3, 0.9, 1.5, 3.0)
"""lr * lambda_max of every step."""
TRAINING = Training(lr=0.1, epochs=1, batch_size=64)
SAMPLES, HIDDEN, PROBES, NODES = 640, 3, 4, 3


def hessians(trajectory: Trajectory) -> list[tuple[TrainingStep, Tensor, Tensor]]:
    """Every step with its Hessian (P, P) and the Hessian's eigenvalues, ascending (P,)."""
    unit = torch.eye(trajectory.size)
    found = []
    for step in trajectory.forwards():
        h = trajectory.products(step.state[0], step.x, step.y, unit)
        h = (h + h.T) / 2
        found.append((step, h, torch.linalg.eigvalsh(h)))
    return found


def measured(
    steps: list[tuple[TrainingStep, Tensor, Tensor]], rate: float, seed: int
) -> tuple[Estimate, float]:
    """Estimate log|det J_t| at a rate, and give the exact one.

    Args:
        steps: As `hessians` gives them.
        rate: lr * lambda_max of every step.
        seed: Of the probes.

    Returns:
        The estimate and the truth, nats.
    """
    by_theta = {id(step.state[0]): h for step, h, _ in steps}
    volume = LogVolume(
        lambda theta, _x, _y, rows: rows @ by_theta[id(theta)],
        steps[0][0].update,
        probes=PROBES,
        nodes=NODES,
        generator=torch.Generator().manual_seed(seed),
    )
    exact = 0.0
    for step, _, values in steps:
        lr = rate / float(values[-1])
        volume.observe(replace(step, lr=lr))
        exact += float((1 - lr * values).abs().log().sum())
    return volume.estimate(), exact


def row(rate: float, found: list[tuple[Estimate, float]]) -> str:
    """One line of the table."""
    held, halves, errors, sizes = [], [], [], []
    for estimate, exact in found:
        assert estimate.value is not None
        assert estimate.interval is not None
        low, high = estimate.interval
        held.append(low <= exact <= high)
        halves.append((high - low) / 2)
        errors.append(abs(estimate.value - exact))
        sizes.append(abs(exact))
    share = statistics.fmean(held)
    stderr = math.sqrt(share * (1 - share) / len(found))
    half, error = statistics.median(halves), statistics.median(errors)
    counts = Counter(str(estimate.status) for estimate, _ in found)
    return (
        f"{rate:4.1f} {len(found):6} {share:8.3f} +- {stderr:.3f}"
        f" {statistics.median(sizes):9.1f} {half:11.2f} {error:10.2f} {half / error:6.2f}  "
        + ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.name}")
    parser.add_argument("--seeds", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    whole, began = digits().train, time.process_time()
    split = Split(whole.x[:SAMPLES], whole.y[:SAMPLES])
    task = Task(name="digits", train=split, test=split)
    found: dict[float, list[tuple[Estimate, float]]] = {rate: [] for rate in RATES}
    for seed in range(options.seeds):
        steps = hessians(trained(task, HIDDEN, TRAINING, seed))
        for k, rate in enumerate(RATES):
            found[rate].append(measured(steps, rate, 1000 * (k + 1) + seed))
    size, count = len(steps[0][2]), len(steps)
    lines = [
        f"P = {size}, {count} steps, {PROBES} probes, {NODES} nodes (more beside the pole)",
        f"torch {torch.__version__}, one thread, {time.process_time() - began:.0f} s of CPU time",
        "c: lr * lambda_max of every step; medians over seeds, in nats: size of the truth, the",
        "interval's half-width, the error; their ratio (2.4: normal errors of the right size)",
        "",
        f"{'c':>4} {'seeds':>6} {'covered':>8} +- s.e.   {'size':>8} {'half-width':>11} "
        f"{'error':>10} {'ratio':>6}  status",
        *(row(rate, pairs) for rate, pairs in found.items()),
    ]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if options.save:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(text)


if __name__ == "__main__":
    main()
