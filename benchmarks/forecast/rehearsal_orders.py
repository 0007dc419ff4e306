"""What do more copies buy a rehearsal, each in a data order of its own? Development half.

    python benchmarks/forecast/rehearsal_orders.py [--units 70] [--cache DIR] [--save]

needs the truth of `score.py --grid plain --half development --phase truth`, or a beginning of it.
Printed for 1, 2 and 4 copies: root mean square error (of the rise on the scale of asinh), how often
the 90 % interval holds, and its median width; then the same coverage with other degrees of freedom
for the spread that is expected. Both data orders measured count. Rows are kept in the cache.
`--save` writes results/rehearsal-orders.txt.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from score_design import DEVELOPMENT, network, part_of, units
from score_truth import default_cache, known
from torch import nn

import capacity
from capacity.forecasting import rehearsal
from capacity.forecasting.quantities import QUANTITIES
from capacity.forecasting.record import Forecast

COPIES = (1, 2, 4)
EXPECTED = (1.0, 2.0, 4.0, 8.0, 16.0)
RESULT = Path(__file__).parent / "results" / "rehearsal-orders.txt"


def rows(cache: Path, count: int) -> list[dict]:
    """Rehearse networks whose truth is there, or read what was said before.

    Args:
        cache: The cache.
        count: Networks at most.

    Returns:
        What was said and measured, by quantity.
    """
    part, made = part_of(), list[dict]()
    kept = cache / "orders.jsonl"
    lines = kept.read_text().splitlines() if kept.exists() else []
    before = {(each["unit"], each["copies"]): each for each in map(json.loads, lines)}
    for unit in units("plain"):
        if part[unit.stream.name] != DEVELOPMENT or len(made) >= count * len(COPIES):
            continue
        truth = known(cache, unit)
        if truth is None or truth.record["cells"][0]["diverged"]:
            continue
        old, new = unit.stream.build()
        module = network(unit.network, unit.seed)
        nn.utils.vector_to_parameters(truth.theta[0], module.parameters())
        for copies in COPIES:
            if (unit.key, copies) not in before:
                said = each_alone(copies, module, old, new, unit)
                row = {"unit": unit.key, "copies": copies, "said": said}
                row["true"] = {q: truth.record["cells"][0][q] for q in QUANTITIES}
                before[unit.key, copies] = row
                with kept.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            made.append(before[unit.key, copies])
    return made


def each_alone(copies: int, module: nn.Module, old: object, new: object, unit: object) -> dict:
    """Rehearse, and note every copy by itself.

    Args:
        copies: How many.
        module: The network.
        old: The old task.
        new: The new task.
        unit: The plan and the seed.

    Returns:
        By quantity, every copy's value and half-width.
    """
    seen = list[Forecast]()

    def noted(made: Sequence[Forecast]) -> Forecast:
        seen.extend(made)
        return made[0]

    with mock.patch("capacity.forecasting.within_budget.over_orders", noted):
        alone = capacity.forecast(
            module, old=old, new=new, training=unit.training, seed=unit.seed,
            budget=math.inf, orders=copies, device="cpu",
        )  # fmt: skip
    return {
        q: [(e.value, *e.interval) for m in seen or [alone] if (e := of(m, q))] for q in QUANTITIES
    }


def of(made: Forecast, quantity: str) -> capacity.Estimate:
    """Pick a quantity.

    Args:
        made: The forecast.
        quantity: Its name.

    Returns:
        The estimate.
    """
    return {
        "drop": made.accuracy_drop, "rise": made.loss_increase,
        "new_accuracy": made.new_accuracy, "new_loss": made.new_loss,
    }[quantity]  # fmt: skip


def together(row: dict, quantity: str, expected: float) -> capacity.Estimate:
    """Put a row's copies together as the forecast does.

    Args:
        row: The row.
        quantity: Which.
        expected: Degrees of freedom of the expected spread.

    Returns:
        The estimate.
    """
    each = [
        capacity.Estimate(value=value, interval=(low, high), status=capacity.Status.OK)
        for value, low, high in row["said"][quantity]
    ]
    if len(each) == 1:
        return each[0]
    with mock.patch.object(rehearsal, "EXPECTED", expected):
        return rehearsal.combined(quantity, each)


def score(found: Sequence[dict], quantity: str, expected: float) -> tuple[float, float, float]:
    """Score some rows.

    Args:
        found: The rows.
        quantity: Which.
        expected: Degrees of freedom of the expected spread.

    Returns:
        Error, coverage and median width.
    """
    scale = math.asinh if quantity in ("rise", "new_loss") else float
    off, held, wide = list[float](), list[bool](), list[float]()
    for row in found:
        made = together(row, quantity, expected)
        low, high = made.interval
        wide.append(high - low)
        for true in row["true"][quantity]:
            off.append(scale(made.value) - scale(true))
            held.append(low <= true <= high)
    return float(np.sqrt(np.mean(np.square(off)))), float(np.mean(held)), float(np.median(wide))


def table(found: Sequence[dict]) -> str:
    """Write the scores.

    Args:
        found: The rows.

    Returns:
        The text.
    """
    names = f"{'':<14}" + "".join(f"{q:>26}" for q in QUANTITIES)
    lines = [f"{len(found) // len(COPIES)} networks: error, coverage, median width", names]
    for copies in COPIES:
        some = [r for r in found if r["copies"] == copies]
        cells = [score(some, q, rehearsal.EXPECTED) for q in QUANTITIES]
        text = "".join(f"{e:>10.4f}{c:>8.3f}{w:>8.3f}" for e, c, w in cells)
        lines.append(f"{copies:<14}{text}")
    lines += ["", "Coverage and median width by degrees of freedom of the expected spread"]
    for copies in COPIES[1:]:
        for expected in EXPECTED:
            some = [r for r in found if r["copies"] == copies]
            cells = [score(some, q, expected)[1:] for q in QUANTITIES]
            text = "".join(f"{c:>18.3f}{w:>8.3f}" for c, w in cells)
            lines.append(f"{f'{copies}, {expected:g}':<14}{text}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=70, help="networks to ask")
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--save", action="store_true", help=f"write results/{RESULT.name}")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    text = table(rows(asked.cache, asked.units))
    print(text)
    if asked.save:
        RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()
