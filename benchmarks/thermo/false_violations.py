"""Does the verdict ever cry wolf, and does it see a wolf?

1,000 simulated ensembles obey the speed limit by construction: Gaussians in quadratic potentials
with random spectra, Gaussians along the geodesic (T Sigma = W2^2, nothing to spare), and small
networks; N from 20 to 200, P from 10 to 10,000; GD, SGD, momentum and Langevin dynamics. None may
be called a violation. What can fail is Langevin dynamics, by its free energy, and the loss drop of
the others where it stands for their action; the deterministic paths themselves obey an identity,
which checks the meter. Then the geodesic with its learning time understated by half, which violates
the limit; at N = 200 at least 95 of 100 must be called so.

    python benchmarks/thermo/false_violations.py [--save] [--ensembles 1000] [--planted 100]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from simulated import DYNAMICS, Case, simulate

from capacity.records.estimate import Status
from capacity.thermo.speed_limit import judge
from capacity.thermo.speed_limit_verdicts import VIOLATION_LEVEL, Verdict

RESULT = Path(__file__).parent / "results" / "false_violations.txt"
COUNTS = (20, 50, 100, 200)
SIZES = {
    "gaussian": (10, 100, 1000, 10_000),
    "geodesic": (10, 100, 1000),
    "network": (38, 200, 2000),
}
PLANTED_SIZES = (10, 100)


def cases(total: int) -> list[Case]:
    """Spread the ensembles over systems, dynamics, N and P."""
    grid = [
        (system, dynamics, count, size)
        for system, sizes in SIZES.items()
        for dynamics in (DYNAMICS if system != "geodesic" else ("Langevin",))
        for count in COUNTS
        for size in sizes
    ]
    # Noise is drawn replica by replica: the largest Langevin ensembles are rare.
    weight = [0.2 if n * p >= 200_000 else 1.0 for _, _, n, p in grid]
    rng = np.random.default_rng(0)
    drawn = rng.choice(len(grid), total, p=np.array(weight) / sum(weight))
    made = []
    for seed, k in enumerate(drawn):
        system, dynamics, count, size = grid[k]
        made.append(Case(system=system, dynamics=dynamics, count=count, size=size, seed=seed))
    return made


SHOWN = (Verdict.IDENTITY, Verdict.CONSISTENT, Verdict.INCONCLUSIVE, Verdict.VIOLATED)


def _row(label: str, here: Counter[Verdict]) -> str:
    rest = here.total() - sum(here[v] for v in SHOWN)
    counts = " ".join(f"{here[v]:>12}" for v in SHOWN)
    return f"{label:21} {here.total():9} {counts} {rest:>12}"


def table(found: list[tuple[Case, Verdict]]) -> list[str]:
    """Verdicts by system and dynamics."""
    heads = " ".join(f"{v:>12}" for v in (*SHOWN, "other"))
    lines = [f"{'system':10} {'dynamics':10} {'ensembles':>9} {heads}"]
    for system in SIZES:
        for dynamics in DYNAMICS:
            here = Counter(v for c, v in found if (c.system, c.dynamics) == (system, dynamics))
            if here:
                lines.append(_row(f"{system:10} {dynamics:10}", here))
    lines.append("")
    for name, of in (("N", lambda c: c.count), ("P up to", lambda c: 10 ** len(str(c.size - 1)))):
        for value in sorted({of(c) for c, _ in found}):
            here = Counter(v for c, v in found if of(c) == value)
            lines.append(_row(f"{name} {value}", here))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.name}")
    parser.add_argument("--ensembles", type=int, default=1000)
    parser.add_argument("--planted", type=int, default=100)
    options = parser.parse_args()
    found, drops, began, lax = [], [], time.monotonic(), 0
    for k, case in enumerate(cases(options.ensembles)):
        record = simulate(case)
        made, loose = judge(record), judge(record, violation_level=0.95)
        found.append((case, made.verdict))
        if made.loss_drop_ratio.status is Status.OK:
            drops.append((case, made.loss_drop_verdict))
        lax += Verdict.VIOLATED in (loose.verdict, loose.loss_drop_verdict)
        if time.monotonic() - began > 15:
            began = time.monotonic()
            print(f"{k + 1} of {options.ensembles} ensembles", file=sys.stderr)
    violated = sum(v is Verdict.VIOLATED for _, v in [*found, *drops])
    lines = ["Verdicts on ensembles that obey T Sigma >= W2^2", "", *table(found), ""]
    lines += ["By the loss drop, where it is in its regime", "", *table(drops), ""]
    held = violated == 0
    lines.append(
        f"false violations: {violated} of {len(found)} and {len(drops)} (claim: 0): "
        f"{'holds' if held else 'FAILS'}"
    )
    lines += [
        f"the same rule with 95 % intervals in place of {VIOLATION_LEVEL:.2%}: "
        f"{lax} of {len(found)} ensembles",
        "",
    ]
    for size in PLANTED_SIZES:
        caught = dict.fromkeys(COUNTS, 0)
        for count in COUNTS:
            repeats = options.planted if count == max(COUNTS) else max(1, options.planted // 4)
            for seed in range(repeats):
                case = Case(
                    system="geodesic",
                    dynamics="Langevin",
                    count=count,
                    size=size,
                    seed=10_000 + seed,
                )
                record = simulate(case)
                verdict = judge(record, learning_time=record.learning_time / 2).verdict
                caught[count] += verdict is Verdict.VIOLATED
            held_here = ""
            if count == max(COUNTS):
                fine = caught[count] >= 0.95 * repeats
                held_here = f" (claim: at least 95 %): {'holds' if fine else 'FAILS'}"
                held = held and fine
            lines.append(
                f"planted, T halved on a geodesic, P = {size}, N = {count}: caught "
                f"{caught[count]} of {repeats}{held_here}"
            )
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if options.save:
        RESULT.write_text(text)
    raise SystemExit(0 if held else 1)


if __name__ == "__main__":
    main()
