"""What `capacity.forecast` says of pairs held out, for 5 % and by itself (`auto`), short plans too.

    python benchmarks/forecast/score_plain.py [--units 70] [--skip 24] [--cache DIR] [--save]

needs the truth of `score.py --grid plain --half held-out --phase truth`, or a beginning of it; the
first networks in the grid's order, a fair sample, are asked. `--skip` leaves out the first of them,
on which an earlier engine was scored. For 5 % means: or for the least that pays a forecast, where
that is more. By itself means a rehearsal of trainings as short as these. What it does with longer
ones is the column `auto, long`: no rehearsal and no ten seconds, but as many steps as compressing
the training asks for. What was said is kept in the cache, for as long as its file is there: a run
that is interrupted goes on. `--save` writes results/score-plain.txt.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from score_budgets import SHORT
from score_design import HELD_OUT, PLANS, Unit, network, part_of, units
from score_truth import Known, default_cache, known
from torch import nn

import capacity
from capacity.forecasting import budget as spending
from capacity.records.estimate import Estimate

LONG = "auto, long"
BUDGETS = (0.05, LONG, "auto")
QUANTITIES = ("drop", "rise")
RESULT = Path(__file__).parent / "results" / "score-plain.txt"


@contextmanager
def no_rehearsal() -> Iterator[None]:
    """Let `auto` take every training for a long one."""
    with (
        mock.patch.object(spending, "_SHORT", 0.0),
        mock.patch.object(spending, "_SECONDS", 0.0),
    ):
        yield


def asked(module: nn.Module, budget: float | str, **plan: object) -> capacity.Forecast:
    """Forecast within a budget, or the smallest that pays a forecast.

    Args:
        module: The network.
        budget: The budget.
        plan: Tasks, training and seed.

    Returns:
        The forecast.

    Raises:
        ValueError: If there is no forecast at any budget.
    """
    if budget == LONG:
        with no_rehearsal():
            return capacity.forecast(module, budget="auto", device="cpu", **plan)
    try:
        return capacity.forecast(module, budget=budget, device="cpu", **plan)
    except ValueError as error:
        named = re.search(r"the smallest that does is ([0-9.]+)", str(error))
        if named is None:
            raise
        return capacity.forecast(module, budget=float(named[1]), device="cpu", **plan)


def cells(cache: Path, count: int, skip: int = 0) -> Iterator[dict[str, Any]]:
    """Ask about networks whose truth is there.

    Args:
        cache: The cache.
        count: Networks at most.
        skip: Networks to leave out first.

    Yields:
        What was said and measured.
    """
    part, kept = part_of(), cache / "plain-said.jsonl"
    lines = kept.read_text().splitlines() if kept.exists() else []
    before = {(each["unit"], each["budget"]): each for each in map(json.loads, lines)}
    for unit in units("plain"):
        truth = known(cache, unit) if part[unit.stream.name] == HELD_OUT and count > 0 else None
        if truth is None or truth.record["cells"][0]["diverged"]:
            continue
        if skip > 0:
            skip -= 1
            continue
        count -= 1
        for budget in BUDGETS:
            if (unit.key, budget) not in before:
                before[unit.key, budget] = said(unit, truth, budget)
                with kept.open("a") as file:
                    file.write(json.dumps(before[unit.key, budget]) + "\n")
            row = before[unit.key, budget]
            yield {**row, "said": {q: Estimate.from_dict(e) for q, e in row["said"].items()}}


def said(unit: Unit, truth: Known, budget: float | str) -> dict[str, Any]:
    """Ask about a network.

    Args:
        unit: The network on its pair.
        truth: What was measured.
        budget: What the forecast may spend.

    Returns:
        What was said and measured, in plain JSON types.
    """
    old, new = unit.stream.build()
    cell = truth.record["cells"][0]
    module = network(unit.network, unit.seed)
    nn.utils.vector_to_parameters(truth.theta[0], module.parameters())
    made = asked(module, budget, old=old, new=new, training=unit.training, seed=unit.seed)
    return {
        "unit": unit.key, "budget": budget, "optimizer": unit.optimizer, "epochs": unit.epochs,
        "family": unit.stream.family, "architecture": unit.architecture,
        "said": {"drop": made.accuracy_drop.to_dict(), "rise": made.loss_increase.to_dict()},
        "cost": made.cost_ratio.value,
        "true": {name: cell[name] for name in QUANTITIES},
    }  # fmt: skip


def explained(said: np.ndarray, measured: np.ndarray) -> float:
    """Give R^2 of forecasts as they are.

    Args:
        said: Forecasts (n,).
        measured: Measurements (n,).

    Returns:
        The share of the variance.
    """
    return float(1 - np.square(said - measured).sum() / np.square(measured - measured.mean()).sum())


def line(name: str, rows: Sequence[dict]) -> str:
    """Score some cells.

    Args:
        name: What they are.
        rows: Cells of one budget.

    Returns:
        A line of the table.
    """
    good = [r for r in rows if all(r["said"][q].value is not None for q in QUANTITIES)]
    if len(good) < 3:
        return f"{name:<22}{len(good):>4}"
    drop, rise = (np.array([r["said"][q].value for r in good]) for q in QUANTITIES)
    lost, risen = (np.array([r["true"][q][0] for r in good]) for q in QUANTITIES)
    again = np.array([r["true"]["drop"][1] for r in good])
    held = []
    for quantity in QUANTITIES:
        ends = [(r["said"][quantity].interval, r["true"][quantity][0]) for r in good]
        held.append(float(np.mean([e is not None and e[0] <= t <= e[1] for e, t in ends])))
    ok = float(np.mean([r["said"]["drop"].status == "ok" for r in good]))
    cost = [r["cost"] for r in good]
    scores = (
        explained(drop, lost), explained(rise, risen),
        explained(np.arcsinh(rise), np.arcsinh(risen)), explained(again, lost),
        *held, ok, float(np.median(cost)),
    )  # fmt: skip
    return f"{name:<22}{len(good):>4}" + "".join(f"{s:>9.3f}" for s in scores)


def table(rows: Sequence[dict]) -> str:
    """Write the scores.

    Args:
        rows: Cells as `cells` yields them.

    Returns:
        The text.
    """
    heads = ("drop", "rise", "asinh", "ceiling", "in drop", "in rise", "ok", "cost")
    lines = [
        "Held-out pairs: R^2 of drop and rise, that of the drop in another data order;",
        "how often 90 % intervals hold; share with the status ok; operations, of a training",
    ]
    for budget in BUDGETS:
        own = [r for r in rows if r["budget"] == budget]
        name = budget if isinstance(budget, str) else f"{100 * budget:g} %"
        lines += ["", f"{name:<22}{'n':>4}" + "".join(f"{h:>9}" for h in heads), line("all", own)]
        lines.append(line("status ok", [r for r in own if r["said"]["drop"].status == "ok"]))
        for length, few in (("short plans", True), ("long plans", False)):
            group = [r for r in own if (r["epochs"] <= SHORT) == few]
            lines.append(line(length, group))
            lines += [line(f"  {o}", [r for r in group if r["optimizer"] == o]) for o in PLANS]
        for key in ("architecture", "family"):
            kinds = sorted({r[key] for r in own})
            lines += [line(f"{kind}", [r for r in own if r[key] == kind]) for kind in kinds]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=10**6, help="networks to ask")
    parser.add_argument("--skip", type=int, default=0, help="networks to leave out first")
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--save", action="store_true", help=f"write results/{RESULT.name}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = table(list(cells(options.cache, options.units, options.skip)))
    print(text)
    if options.save:
        RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()
