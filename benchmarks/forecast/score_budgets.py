"""Does a forecast's error fall with its budget? On the development half, by optimiser and length.

    python benchmarks/forecast/score_budgets.py [--units 60] [--cache DIR] [--save]

needs the truth of `score.py --grid plain --half development --phase truth`, or a beginning of it.
Every network of which the truth is there is asked at every budget; without any calibration, so that
what is seen is the compressed training itself. `--save` writes results/score-budgets.txt.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from score_design import DEVELOPMENT, PLANS, Unit, network, part_of, units
from score_truth import default_cache, known
from torch import nn

from capacity.forecasting.engine import CheapForecast, forecast_cheaply
from capacity.forecasting.quantities import QUANTITIES, half_width, mean
from capacity.forecasting.rehearsal import FLOOR
from capacity.networks.flat_model import FlatModel

BUDGETS = (0.05, 0.1, 0.2, 0.5, math.inf)
SHORT = 10
"""Epochs up to which a plan counts as short."""
RESULT = Path(__file__).parent / "results" / "score-budgets.txt"


def measured(cache: Path, count: int) -> Iterator[tuple[Unit, dict, CheapForecast, float]]:
    """Ask the engine about networks whose truth is there.

    Args:
        cache: The cache.
        count: Networks at most.

    Yields:
        The unit, what was measured, what the engine says, and its budget.
    """
    part = part_of()
    mine = [unit for unit in units("plain") if part[unit.stream.name] == DEVELOPMENT]
    for unit in mine:
        truth = known(cache, unit) if count > 0 else None
        if truth is None or truth.record["cells"][0]["diverged"]:
            continue
        count -= 1
        old, new = unit.stream.build()
        module = network(unit.network, unit.seed)
        nn.utils.vector_to_parameters(truth.theta[0], module.parameters())
        flat = FlatModel(module)
        for budget in BUDGETS:
            said = forecast_cheaply(
                flat, flat.initial(), (old,), new, unit.training,
                budget=budget, stretch=True, seed=unit.seed,
            )  # fmt: skip
            yield unit, truth.record["cells"][0], said, budget


def row(unit: Unit, cell: dict, said: CheapForecast, budget: float) -> dict[str, object]:
    """Lay a forecast beside what was measured.

    Args:
        unit: The unit.
        cell: What was measured.
        said: What the engine says.
        budget: Its budget.

    Returns:
        Numbers by name.
    """
    old = said.old[0]
    return {
        "unit": unit.key, "optimizer": unit.optimizer, "epochs": unit.epochs, "budget": budget,
        "family": unit.stream.family, "architecture": unit.architecture,
        "drop": old.drop.value, "rise": old.rise.value, "new_accuracy": said.new.accuracy.value,
        "new_loss": said.new.loss.value,
        "halves": [half_width(e) for e in (old.drop, old.rise, said.new.accuracy, said.new.loss)],
        "true": {q: cell[q] for q in ("drop", "rise", "new_accuracy", "new_loss")},
        "steps": said.steps, "batch": said.batch,
    }  # fmt: skip


def errors(rows: Sequence[dict]) -> tuple[float, float]:
    """Root mean square errors.

    Args:
        rows: Rows as `row` lays them out.

    Returns:
        Of the drop, and of the rise on the scale of asinh.
    """
    off = [(r["drop"] - r["true"]["drop"][0]) ** 2 for r in rows]
    risen = [(math.asinh(r["rise"]) - math.asinh(r["true"]["rise"][0])) ** 2 for r in rows]
    return math.sqrt(mean(off) or 0.0), math.sqrt(mean(risen) or 0.0)


def table(rows: Sequence[dict]) -> str:
    """Write the errors against the budget.

    Args:
        rows: Rows as `row` lays them out; forecasts that diverged are left out.

    Returns:
        The text.
    """
    named = [f"{100 * b:g} %" if math.isfinite(b) else "all" for b in BUDGETS]
    lines = [
        "Root mean square error against the budget, development half: drop, then rise (asinh)",
        f"{'':<22}{'n':>4}" + "".join(f"{n:>9}" for n in named) * 2,
    ]
    groups = [("all", rows)]
    for length in ("short", "long"):
        group = [r for r in rows if (r["epochs"] <= SHORT) == (length == "short")]
        groups.append((f"{length} plans", group))
        groups += [(f"  {o}", [r for r in group if r["optimizer"] == o]) for o in PLANS]
    for name, group in groups:
        each = [[r for r in group if r["budget"] == b] for b in BUDGETS]
        if not each[0]:
            continue
        found = np.array([errors(some) for some in each])
        text = "".join(f"{value:>9.3f}" for value in found.T.ravel())
        lines.append(f"{name:<22}{len(each[0]):>4}{text}")
    return "\n".join(lines)


def stretches(rows: Sequence[dict]) -> str:
    """Say by how much a rehearsal's own half-widths must be stretched to hold another data order.

    Args:
        rows: Rows as `row` lays them out; those of rehearsals count, against both data orders.

    Returns:
        The text.
    """
    lines = [f"Rehearsals: 90 % of |error| / (own half-width + {FLOOR:g}), and what 1 covers"]
    for k, name in enumerate(QUANTITIES):
        ratios = [
            abs(r[name] - true) / (r["halves"][k] + FLOOR)
            for r in rows
            if math.isinf(r["budget"])
            for true in r["true"][name]
        ]
        held = float(np.mean(np.array(ratios) <= 1))
        lines.append(f"{name:<22}{len(ratios):>4}{np.quantile(ratios, 0.9):>9.3f}{held:>9.3f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=60, help="networks to ask")
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--save", action="store_true", help=f"write results/{RESULT.name}")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row(*found) for found in measured(asked.cache, asked.units)]
    good = [r for r in rows if r["drop"] is not None and r["rise"] is not None]
    text = f"{table(good)}\n\n{stretches(good)}"
    print(text)
    if asked.save:
        RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()
