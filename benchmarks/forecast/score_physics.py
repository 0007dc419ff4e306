"""Which of the two physics is right where, on the development half, short plans included?

The compressed training, for 5 % (`engine`) and with as many steps as the training asks for
(`enough`), the flow, and what each says of itself.

    python benchmarks/forecast/score_physics.py [--units 70] [--cache DIR] [--save]

needs the truth of `score.py --grid plain --half development --phase truth`, or a beginning of it.
Rows are kept in the cache (another engine needs another). Nothing is corrected or calibrated.
`--save` writes results/score-physics.txt.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from score_budgets import SHORT
from score_design import DEVELOPMENT, PLANS, Unit, network, part_of, units
from score_plain import explained, no_rehearsal
from score_truth import default_cache, known
from torch import nn

from capacity.forecasting.calibration import asinh_half
from capacity.forecasting.engine import CheapForecast, forecast_cheaply
from capacity.forecasting.pseudo_kernel import forecast_by_flow
from capacity.forecasting.quantities import QUANTITIES, half_width
from capacity.networks.flat_model import FlatModel
from capacity.records.estimate import Estimate

BUDGET = 0.05
NAMED = {"new_accuracy": "b accuracy", "new_loss": "b"}
"""What rows call the new task's."""
RESULT = Path(__file__).parent / "results" / "score-physics.txt"


def estimates(said: CheapForecast) -> dict[str, Estimate]:
    """Name the engine's estimates.

    Args:
        said: What the engine says of a pair.

    Returns:
        The estimates, by quantity.
    """
    return {
        "drop": said.old[0].drop, "rise": said.old[0].rise,
        "new_accuracy": said.new.accuracy, "new_loss": said.new.loss,
    }  # fmt: skip


def numbers_of(said: CheapForecast) -> dict[str, Any]:
    """Write down what the engine says.

    Args:
        said: What it says of a pair.

    Returns:
        Numbers by name.
    """
    return {
        "drop": said.old[0].drop.value, "rise": said.old[0].rise.value,
        "b": said.new.loss.value, "b accuracy": said.new.accuracy.value,
        "steps": said.steps, "batch": said.batch, "gone": said.displacement,
        "gradients": said.gradients, "wander": said.wander,
        "halves": {q: half_width(e) for q, e in estimates(said).items()},
        "before": said.new_loss_before, "cost": said.cost_ratio.value, "share": said.share,
        "asks": said.enough,
    }  # fmt: skip


def row(unit: Unit, cell: dict, theta: torch.Tensor) -> dict:
    """Ask both about a network.

    Args:
        unit: The unit.
        cell: What was measured.
        theta: Parameters after the old task (P,).

    Returns:
        Numbers by name.
    """
    old, new = unit.stream.build()
    module = network(unit.network, unit.seed)
    nn.utils.vector_to_parameters(theta, module.parameters())
    model = FlatModel(module)
    point = model.initial()
    began = time.process_time()
    engine = forecast_cheaply(
        model, point, (old,), new, unit.training, budget=BUDGET, stretch=True, seed=unit.seed
    )
    between = time.process_time()
    with no_rehearsal():
        enough = forecast_cheaply(
            model, point, (old,), new, unit.training, budget="auto", seed=unit.seed
        )
    then = time.process_time()
    flow = forecast_by_flow(model, point, (old,), new, unit.training, seed=unit.seed)
    ended = time.process_time()

    def numbers(old_read: object, new_read: object) -> dict[str, float | None]:
        return {
            "drop": old_read.drop.value, "rise": old_read.rise.value,  # type: ignore[attr-defined]
            "b": new_read.loss.value, "b accuracy": new_read.accuracy.value,  # type: ignore[attr-defined]
        }  # fmt: skip

    return {
        "unit": unit.key, "optimizer": unit.optimizer, "epochs": unit.epochs,
        "family": unit.stream.family, "architecture": unit.architecture,
        "true": {
            q: cell[q][0] for q in ("drop", "rise", "new_accuracy", "new_loss")
        },
        "engine": {**numbers_of(engine), "seconds": between - began},
        "enough": {**numbers_of(enough), "seconds": then - between},
        "flow": {
            **numbers(flow.old[0], flow.new), "off": flow.off_line, "gone": flow.displacement,
            "learned": flow.learned, "samples": flow.samples, "time": flow.time,
            "spent": flow.spent, "seconds": ended - then,
        },
        "moved": numbers(flow.moved[0], flow.moved[-1]),
        "planned": unit.training.steps(len(new.train)),
    }  # fmt: skip


def rows(cache: Path, count: int) -> list[dict]:
    """Ask about networks whose truth is there, or read what was said before.

    Args:
        cache: The cache.
        count: Networks at most.

    Returns:
        Their rows.
    """
    part, made = part_of(), list[dict]()
    kept = cache / "physics.jsonl"
    lines = kept.read_text().splitlines() if kept.exists() else []
    before = {each["unit"]: each for each in map(json.loads, lines)}
    for unit in units("plain"):
        if part[unit.stream.name] != DEVELOPMENT or len(made) == count:
            continue
        truth = known(cache, unit)
        if truth is None or truth.record["cells"][0]["diverged"]:
            continue
        if unit.key not in before:
            before[unit.key] = row(unit, truth.record["cells"][0], truth.theta[0])
            with kept.open("a") as file:
                file.write(json.dumps(before[unit.key]) + "\n")
        made.append(before[unit.key])
    return made


def chosen(each: dict) -> dict:
    """The physics that says to have learned the new task better.

    Args:
        each: A row.

    Returns:
        What it says.
    """
    said = [each[name] for name in ("engine", "flow") if each[name]["drop"] is not None]
    return min(said, key=lambda one: one["b"])


READERS: dict[str, Callable[[dict], dict]] = {
    "engine": lambda each: each["engine"],
    "enough": lambda each: each["enough"],
    "flow": lambda each: each["flow"],
    "moved": lambda each: each["moved"],
    "learned B": chosen,
}


def table(found: Sequence[dict]) -> str:
    """Write R^2 of drop, and of rise on the scale of asinh, by optimiser and length.

    Args:
        found: The rows.

    Returns:
        The text.
    """
    lines = [f"{'':<22}{'n':>4}" + "".join(f"{name:>18}" for name in READERS)]
    for length, few in (("short plans", True), ("long plans", False)):
        group = [r for r in found if (r["epochs"] <= SHORT) == few]
        parts = [(length, group)]
        parts += [(f"  {o}", [r for r in group if r["optimizer"] == o]) for o in PLANS]
        kinds = sorted({r["architecture"] for r in group})
        parts += [(f"  {k}", [r for r in group if r["architecture"] == k]) for k in kinds]
        for name, some in parts:
            line = f"{name:<22}{len(some):>4}"
            for reader in READERS.values():
                pairs = [(reader(r), r["true"]) for r in some]
                good = [(s, t) for s, t in pairs if s["drop"] is not None and s["rise"] is not None]
                if len(good) < 3:
                    line += f"{'-':>18}"
                    continue
                said, true = (
                    {q: np.array([x[q] for x in side]) for q in ("drop", "rise")}
                    for side in zip(*good, strict=True)
                )
                drop = explained(said["drop"], true["drop"])
                rise = explained(np.arcsinh(said["rise"]), np.arcsinh(true["rise"]))
                line += f"{drop:>9.2f}{rise:>9.2f}"
            lines.append(line)
    return "\n".join(lines)


def bias(found: Sequence[dict]) -> str:
    """Write how far the engine is off, and how far beside what its intervals cover.

    Args:
        found: The rows.

    Returns:
        The text: root mean square errors, and the half-widths to add in squares for nine in ten, by
        whether the budget paid the steps that the training asks for.
    """
    said = [
        (each[name], each["true"])
        for each in found
        for name in ("engine", "enough")
        if each[name]["drop"] is not None
    ]
    groups = {
        "enough steps": [(s, t) for s, t in said if s["share"] >= s["asks"] - 1e-3],
        "fewer": [(s, t) for s, t in said if s["share"] < s["asks"] - 1e-3],
    }
    lines = []
    for head, of in (("Root mean square error", usual), ("Bias of nine in ten", nine_in_ten)):
        lines.append(f"{head:<24}{'n':>4}" + "".join(f"{q:>14}" for q in QUANTITIES))
        for name, some in groups.items():
            line = f"{name:<24}{len(some):>4}"
            for quantity in QUANTITIES:
                line += f"{of([off(s, t[quantity], quantity) for s, t in some]):>14.3f}"
            lines.append(line)
    return "\n".join(lines)


def off(said: dict, true: float, quantity: str) -> tuple[float, float]:
    """Say how far the engine was off.

    Args:
        said: What the engine says.
        true: What was measured.
        quantity: Of what.

    Returns:
        The error and the half-width that it states; of a rise or a loss on the scale of asinh.
    """
    value = said[NAMED.get(quantity, quantity)]
    half = said["halves"][quantity]
    if quantity in ("rise", "new_loss"):
        return math.asinh(value) - math.asinh(true), asinh_half(value, half)
    return value - true, half


def usual(errors: Sequence[tuple[float, float]]) -> float:
    """Root mean square of errors.

    Args:
        errors: Errors and stated half-widths.

    Returns:
        The root.
    """
    return math.sqrt(sum(error**2 for error, _ in errors) / len(errors))


def nine_in_ten(errors: Sequence[tuple[float, float]]) -> float:
    """Half-width to add to the stated ones, in squares, that nine errors in ten do not exceed.

    Args:
        errors: Errors and stated half-widths.

    Returns:
        The half-width, at the rank of split conformal prediction.
    """
    squares = sorted(error**2 - half**2 for error, half in errors)
    rank = min(len(squares), math.ceil(0.9 * (len(squares) + 1)))
    return math.sqrt(max(0.0, squares[rank - 1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=10**6, help="networks to ask")
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--save", action="store_true", help=f"write results/{RESULT.name}")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = rows(asked.cache, asked.units)
    text = f"{table(found)}\n\n{bias(found)}"
    print(text)
    if asked.save:
        RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()
