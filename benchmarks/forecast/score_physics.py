"""Which of the two physics is right where, on the development half, short plans included?

The compressed training, the flow, and what each says of itself; and how the first betrays itself.

    python benchmarks/forecast/score_physics.py [--units 70] [--cache DIR] [--save]

needs the truth of `score.py --grid plain --half development --phase truth`, or a beginning of it.
Rows are kept in the cache. Nothing is corrected or calibrated. `--save` writes
results/score-physics.txt.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from score_budgets import SHORT
from score_design import DEVELOPMENT, PLANS, Unit, network, part_of, units
from score_plain import explained
from score_truth import default_cache, known
from torch import nn

from capacity.forecasting.calibration import UNLEARNED
from capacity.forecasting.engine import forecast_cheaply
from capacity.forecasting.pseudo_kernel import forecast_by_flow
from capacity.networks.flat_model import FlatModel

BUDGET = 0.05
RESULT = Path(__file__).parent / "results" / "score-physics.txt"


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
        "engine": {
            **numbers(engine.old[0], engine.new), "steps": engine.steps, "batch": engine.batch,
            "gone": engine.displacement, "gradients": engine.gradients, "wander": engine.wander,
            "before": engine.new_loss_before, "cost": engine.cost_ratio.value,
            "share": engine.share, "seconds": between - began,
        },
        "flow": {
            **numbers(flow.old[0], flow.new), "off": flow.off_line, "gone": flow.displacement,
            "learned": flow.learned, "samples": flow.samples, "time": flow.time,
            "spent": flow.spent, "seconds": ended - between,
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


def betrayed(found: Sequence[dict]) -> str:
    """Write the engine's errors by how much of the new task's loss its copy left.

    Args:
        found: The rows.

    Returns:
        The text.
    """
    lines = [
        f"{'Left of the new loss':<22}{'n':>4}{'rms error of the drop':>24}{'B learned less':>18}"
    ]
    made = [r for r in found if r["engine"]["drop"] is not None]
    for length, few in (("short", True), ("long", False)):
        for name, high in ((f"at most {UNLEARNED:g}", False), ("more", True)):
            some = [
                r
                for r in made
                if (r["epochs"] <= SHORT) == few
                and (r["engine"]["b"] > UNLEARNED * r["engine"]["before"]) == high
            ]
            off = np.array([r["engine"]["drop"] - r["true"]["drop"] for r in some])
            less = [r["true"]["new_accuracy"] - r["engine"]["b accuracy"] for r in some]
            error, lost = float(np.sqrt(np.square(off).mean())), float(np.mean(less))
            lines.append(
                f"{f'{length} plans, {name}':<22}{len(some):>4}{error:>24.3f}{lost:>18.3f}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=10**6, help="networks to ask")
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--save", action="store_true", help=f"write results/{RESULT.name}")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = rows(asked.cache, asked.units)
    text = f"{table(found)}\n\n{betrayed(found)}"
    print(text)
    if asked.save:
        RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()
