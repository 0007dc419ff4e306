"""Do the intervals of W2^2 and Sigma hold what they say?

Ensembles of Langevin dynamics in a quadratic potential with a spread of rates, drawn from the
exact transition, where Sigma, W2^2 and both of its sides are known in closed form. For every N:
2,000 ensembles, and how often the nominal 95 % intervals hold the truth. (With 500 the standard
error of a share is 1 %, so that the least of 18 exact intervals often falls below 93 % by chance.)

    python benchmarks/thermo/coverage.py [--save] [--repeats 2000]
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import torch

from capacity.closed_forms import ornstein_uhlenbeck
from capacity.optimizers.langevin import ExactLangevin
from capacity.records.estimate import Estimate
from capacity.thermo.ensemble import Ensemble
from capacity.thermo.landscape import Potential
from capacity.thermo.speed_limit import judge

RESULT = Path(__file__).parent / "results" / "coverage.txt"
COUNTS = (20, 50, 200)
SIZES = (10, 200)
TAU, TIME, SHIFT = 0.3, 1.0, 0.8
CLAIM = 0.93


def covered(count: int, size: int, repeats: int) -> dict[str, float]:
    """Share of ensembles whose intervals hold the truth, and mean values."""
    rate = np.linspace(0.3, 2.0, size)
    truth = ornstein_uhlenbeck(
        rate=rate, target=SHIFT, temperature=TAU, mean=0.0, variance=1.0, time=TIME
    )
    roots = (math.sqrt(float(size)), math.sqrt(float(truth.variance.sum())))
    trace = float((truth.mean**2).sum()) + (roots[1] - roots[0]) ** 2
    sigma, w2 = float(truth.dissipation.sum()), float(truth.w2_squared.sum())
    path = float(truth.displacement_squared.sum())
    rates = torch.from_numpy(rate)

    def energy(theta: torch.Tensor, _time: float) -> torch.Tensor:
        return 0.5 * (rates * (theta - SHIFT).square()).sum(-1)

    held = dict.fromkeys(("Sigma", "trace bound", "path coupling", "W2^2", "inefficiency"), 0)
    known = 0.5 * size * math.log(2 * math.pi * math.e)
    for seed in range(repeats):
        rng = np.random.default_rng([count, size, seed])
        start = torch.from_numpy(rng.standard_normal((count, size)))
        record = Ensemble(start, entropy_start=known).learn(
            Potential(energy=energy, batched=True),
            ExactLangevin(TAU, rates, SHIFT, seed=seed),
            [TIME],
        )
        made = judge(record)
        held["Sigma"] += _holds(made.sigma, sigma)
        held["trace bound"] += _holds(made.w2_squared.lower, trace)
        held["path coupling"] += _holds(made.w2_squared.upper, path)
        held["W2^2"] += _inside(made.w2_squared.interval, w2)
        held["inefficiency"] += _inside(made.inefficiency.interval, TIME * sigma / w2)
    return {name: hits / repeats for name, hits in held.items()}


def _holds(estimate: Estimate, truth: float) -> bool:
    return _inside(estimate.interval, truth)


def _inside(interval: tuple[float, float] | None, truth: float) -> bool:
    # A side that is left open holds everything.
    return interval is None or interval[0] <= truth <= interval[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.name}")
    parser.add_argument("--repeats", type=int, default=2000)
    options = parser.parse_args()
    rows = []
    for size in SIZES:
        for count in COUNTS:
            print(f"P = {size}, N = {count}", file=sys.stderr)
            rows.append((size, count, covered(count, size, options.repeats)))
    names = list(rows[0][2])
    lines = [
        f"Coverage of nominal 95 % intervals over {options.repeats} ensembles each",
        "",
        f"{'P':>4} {'N':>4} " + " ".join(f"{name:>14}" for name in names),
        *(
            f"{size:4} {count:4} " + " ".join(f"{100 * part[name]:12.1f} %" for name in names)
            for size, count, part in rows
        ),
        "",
        "Sigma, trace bound, path coupling: each interval holds its own true value. W2^2 and the",
        "inefficiency: the interval from the lower side's lower end to the upper side's upper end",
        "holds the true value; it is wide by design, and so it covers more than its level.",
        "",
    ]
    least = min(part[name] for _, _, part in rows for name in names)
    fine = least >= CLAIM
    lines.append(
        f"least coverage: {100 * least:.1f} % (claim: at least {100 * CLAIM:.0f} %): "
        f"{'holds' if fine else 'FAILS'}"
    )
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if options.save:
        RESULT.write_text(text)
    raise SystemExit(0 if fine else 1)


if __name__ == "__main__":
    main()
