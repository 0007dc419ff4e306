"""Does a project's own history make its forecasts better, the longer it goes on?

One network learns 30 tasks, permutations of the digits, and forecasts each within a budget. Every
forecast is then made again with the transitions before it as its history
(`capacity.history`), as if each had been asked for on its day. Printed for each third of the
sequence, over pairs of a new and an old task: the mean error of the forecast as it was made and
with its history, how often 90 % intervals held, and how wide they were at the median.

    python benchmarks/forecast/own_history.py [--tasks 30] [--budget 0.2] [--out DIR] [--save]

The run stays in DIR, and goes on where it was ended.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import capacity
from capacity.forecasting.history import History
from capacity.forecasting.record import Forecast, Forgetting
from capacity.recipe import config
from capacity.records.estimate import Estimate
from capacity.records.forecast_kind import plain_strategy

RESULT = Path(__file__).parent / "results" / "own-history.txt"
KEYS = {"drop": "accuracy_drop", "rise": "loss_increase"}
COLUMNS = ("raw error", "error", "raw held", "held", "raw width", "width")


def record(transition: dict) -> Forecast:
    """Read a forecast back.

    Args:
        transition: An entry of `result.json`.

    Returns:
        The forecast.
    """
    new, price = transition["new"]["forecast"], Estimate.from_dict(transition["cost_ratio"])
    nothing = Estimate(value=None, status=capacity.Status.NOT_DEFINED, note="not kept")
    return Forecast(
        old=tuple(
            Forgetting(**{key: Estimate.from_dict(old["forecast"][key]) for key in KEYS.values()})
            for old in transition["old"]
        ),
        new_accuracy=Estimate.from_dict(new["accuracy"]),
        new_loss=Estimate.from_dict(new["loss"]),
        cost_ratio=price,
        average_accuracy=nothing,
        average_loss=nothing,
    )


def pairs(run: capacity.Run, past: History) -> list[dict]:
    """Lay every forecast beside what was measured, and beside itself with its history.

    Args:
        run: The run.
        past: Its history; each forecast is given what was measured before it.

    Returns:
        A row per quantity, new task and old task.
    """
    rows = []
    plan = plain_strategy(run.result["recipe"]["training"]["strategy"])
    size = run.result["model"]["parameters"]
    order = list(dict.fromkeys(each.transition for each in past.past))
    for k, transition in enumerate(run.result["transitions"]):
        made = record(transition)
        before = set(order[:k])
        known = replace(past, past=tuple(e for e in past.past if e.transition in before))
        again = known.calibrated(made, strategy=plan, parameters=size)
        for j, old in enumerate(transition["old"]):
            for name, key in KEYS.items():
                rows.append({
                    "transition": k, "quantity": name,
                    "true": old["measured"][key]["value"],
                    "raw": getattr(made.old[j], key), "own": getattr(again.old[j], key),
                })  # fmt: skip
    return rows


def numbers(rows: Sequence[dict]) -> list[float]:
    """Score some pairs.

    Args:
        rows: The pairs.

    Returns:
        `COLUMNS`.
    """
    made = []
    for side in ("raw", "own"):
        ends = [(r[side].interval, r["true"]) for r in rows]
        error = np.mean([abs(r[side].value - r["true"]) for r in rows])
        held = np.mean([e is not None and e[0] <= t <= e[1] for e, t in ends])
        width = np.median([e[1] - e[0] for e, _ in ends if e is not None])
        made.append((float(error), float(held), float(width)))
    return [value for both in zip(*made, strict=True) for value in both]


def table(rows: Sequence[dict], tasks: int) -> str:
    """Write the scores of each third.

    Args:
        rows: The pairs.
        tasks: Tasks of the sequence.

    Returns:
        The text.
    """
    lines = [f"{'':<24}{'pairs':>6}" + "".join(f"{name:>11}" for name in COLUMNS)]
    for name in KEYS:
        for third in range(3):
            first, last = (round(n * (tasks - 1) / 3) for n in (third, third + 1))
            some = [r for r in rows if r["quantity"] == name and first <= r["transition"] < last]
            text = "".join(f"{value:>11.3f}" for value in numbers(some))
            lines.append(
                f"{name}, tasks {first + 2} to {last + 1}".ljust(24) + f"{len(some):>6}{text}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=30)
    parser.add_argument("--budget", type=float, default=0.2)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "own-history")
    parser.add_argument("--save", action="store_true", help=f"write results/{RESULT.name}")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    fields = [
        "measure.level=forecast", f"measure.forecast_budget={asked.budget}", "tasks.samples=600",
        f"tasks.experiences={asked.tasks}", "training.epochs=10", "training.lr=0.1",
        "training.batch_size=32", "replicas=1",
    ]  # fmt: skip
    recipe = config.load("permuted-digits", fields)
    run = capacity.resume(asked.out) if asked.out.exists() else capacity.run(recipe, out=asked.out)
    text = "\n".join([
        f"{asked.tasks} permutations of the digits, {run.result['model']['description']}, forecast "
        f"within {100 * asked.budget:g} %",
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread",
        "",
        table(pairs(run, capacity.history(run)), asked.tasks),
    ])
    print(text)
    if asked.save:
        RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()
