"""What does measuring an ensemble add to training it?

The same 50 replicas, vmapped in the same chunk with the same gradients and steps, once with nothing
else, once measured (every sum of every step, energies at both ends, Gram matrices, entropies), and
once with one log-volume probe per step besides.

    OMP_NUM_THREADS=2 python benchmarks/thermo/overhead.py [--save] [--steps 575] [--rounds 7]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from digits_ensemble import BATCH, LR, alternating, conditions, prepared
from torch import Tensor

from capacity.optimizers.sgd import SGD
from capacity.thermo.ensemble import Ensemble
from capacity.thermo.landscape import TaskLandscape

RESULT = Path(__file__).parent / "results" / "overhead.txt"
COUNT, CLAIM, PROBE_CLAIM = 50, 1.25, 4.0


@torch.no_grad()
def trained(landscape: TaskLandscape, theta: Tensor, rates: list[float]) -> Tensor:
    """Train all replicas together and measure nothing."""
    update = SGD()
    state = update.init(theta)
    steps = landscape.steps(range(len(theta)), rates)
    for count, (lr, energy) in enumerate(zip(rates, steps, strict=True), start=1):
        gradient, _ = energy.gradient(state[0])
        state = update.step(state, gradient, lr, count)
    return state[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.name}")
    parser.add_argument("--steps", type=int, default=575)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    landscape, theta = prepared(COUNT)
    rates = [LR] * options.steps

    def measured(probes: int) -> Tensor:
        ensemble = Ensemble(theta)
        ensemble.learn(landscape, SGD(), rates, log_volume=probes, chunk=COUNT)
        return ensemble.theta

    end = trained(landscape, theta, rates)
    for probes in (0, 1):
        assert torch.equal(measured(probes), end), "measuring changed the training"
    times = alternating(
        {
            "training": lambda: trained(landscape, theta, rates),
            "measured": lambda: measured(0),
            "with a probe per step": lambda: measured(1),
        },
        options.rounds,
    )
    best = {name: min(values) for name, values in times.items()}
    ratios = {name: value / best["training"] for name, value in best.items()}
    lines = [
        f"{COUNT} replicas of 64-64-10 (P = {theta.shape[1]}), batch {BATCH}, "
        f"{options.steps} steps",
        conditions(),
        "the measured training ends at the same weights, bit for bit",
        "",
        f"{'':24} {'best s':>8} {'median s':>9} {'over training':>14}",
        *(
            f"{name:24} {best[name]:8.3f} {sorted(values)[len(values) // 2]:9.3f} "
            f"{ratios[name]:14.2f}"
            for name, values in times.items()
        ),
        "",
        f"measuring adds {100 * (ratios['measured'] - 1):.0f} % (claim: at most 25 %): "
        f"{'holds' if ratios['measured'] <= CLAIM else 'FAILS'}",
        f"with one probe per step {ratios['with a probe per step']:.2f} times (claim: at most 4): "
        f"{'holds' if ratios['with a probe per step'] <= PROBE_CLAIM else 'FAILS'}",
    ]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if options.save:
        RESULT.write_text(text)


if __name__ == "__main__":
    main()
