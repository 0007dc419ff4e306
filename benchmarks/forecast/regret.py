"""Does the forecast name the right strategy against forgetting? Points given away, held-out pairs.

    python benchmarks/forecast/regret.py [--units 20] [--cache DIR] [--save]

needs the truth of `score.py --grid plain --half held-out --phase truth`, or a beginning of it, for
the networks as they are after the old task. The new task is then forecast under six strategies, by
`auto`, by what `auto` does with long trainings (`auto, long`) and for 5 % each, and learned under
each of them. What counts is the mean accuracy over both tasks: what the strategy named gives away
against the best, how often it is within two points, and the same without replay among them; beside
it, always taking one strategy. Rows are kept in the
cache: a run that is interrupted goes on. `--save` writes results/regret.txt.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from score_design import HELD_OUT, STRATEGIES, Unit, network, part_of, strategies, units
from score_plain import LONG, no_rehearsal
from score_scores import naming
from score_truth import Known, default_cache, known, under
from torch import nn

import capacity
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.tasks.task import Task

BUDGETS = (0.05, LONG, "auto")
RESULT = Path(__file__).parent / "results" / "regret.txt"


def said(
    unit: Unit, module: nn.Module, old: Task, new: Task, budget: float | str
) -> dict[str, Any] | None:
    """Forecast a network under every strategy.

    Args:
        unit: The network on its pair.
        module: The network after the old task.
        old: The old task.
        new: The new one.
        budget: What may be spent; `score_plain.LONG` takes the training for a long one.

    Returns:
        The strategies, the best first, and processor seconds; None where the training is too small
        for a forecast within the budget.

    Raises:
        ValueError: If there is no forecast for another reason.
    """
    named, began = strategies(), time.process_time()
    with no_rehearsal() if budget == LONG else nullcontext():
        try:
            made = capacity.forecast(
                module, old=old, new=new, training=unit.training, strategies=list(named.values()),
                budget="auto" if budget == LONG else budget, seed=unit.seed, device="cpu",
            )  # fmt: skip
        except ValueError as error:
            if "pays no forecast" not in str(error):
                raise
            return None
    labels = {options.label: name for name, options in named.items()}
    return {
        "ranked": [labels[label] for label in made.by_strategy],
        "leaders": [labels[label] for label in made.leaders()],
        "seconds": time.process_time() - began,
    }


def row(unit: Unit, truth: Known) -> dict[str, Any]:
    """Forecast and measure a network under every strategy.

    Args:
        unit: The network on its pair.
        truth: Its parameters after the old task.

    Returns:
        Mean accuracies by strategy, said and measured, and processor seconds.
    """
    old, new = unit.stream.build()
    module = network(unit.network, unit.seed)
    nn.utils.vector_to_parameters(truth.theta[0], module.parameters())
    named = strategies()
    made: dict[str, Any] = {"unit": unit.key, "family": unit.stream.family}
    for budget in BUDGETS:
        asked = said(unit, module, old, new, budget)
        if asked is not None:
            made[str(budget)] = asked
    model = FlatModel(module)
    theta = model.initial()[None]
    then = float(evaluate(model, theta, old, old.test).accuracy)
    began, measured = time.process_time(), dict[str, float | None]()
    for name, options in named.items():
        end = under(options, model, theta, (old,), new, unit, 1)
        measured[name] = (
            None if end["diverged"] else (then - end["drop"][0] + end["new_accuracy"][0]) / 2
        )
    made["strategies"] = measured
    made["training_seconds"] = (time.process_time() - began) / len(named)
    return made


def rows(cache: Path, count: int) -> list[dict[str, Any]]:
    """Ask about networks whose truth is there, or read what was said before.

    Args:
        cache: The cache.
        count: Networks at most.

    Returns:
        Their rows.
    """
    part, kept = part_of(), cache / "regret.jsonl"
    lines = kept.read_text().splitlines() if kept.exists() else []
    before, made = {each["unit"]: each for each in map(json.loads, lines)}, list[dict[str, Any]]()
    for unit in units("plain"):
        truth = known(cache, unit) if part[unit.stream.name] == HELD_OUT else None
        if truth is None or truth.record["cells"][0]["diverged"] or len(made) == count:
            continue
        if unit.key not in before:
            before[unit.key] = row(unit, truth)
            with kept.open("a") as file:
                file.write(json.dumps(before[unit.key]) + "\n")
        made.append(before[unit.key])
    return made


def table(found: Sequence[dict[str, Any]]) -> str:
    """Write what is given away.

    Args:
        found: The rows.

    Returns:
        The text.
    """
    lines = [f"{'of six strategies':<24}{'n':>4}{'within two points':>20}{'points given away':>20}"]

    def line(name: str, cells: Sequence[dict[str, Any]], pick: Callable[[dict], str]) -> str:
        n, good, lost = naming(cells, pick)
        return f"{name:<24}{n:>4}{good:>20.3f}{lost:>20.2f}"

    for without in (None, "replay"):
        some = [
            {**r, "strategies": {n: v for n, v in r["strategies"].items() if n != without}}
            for r in found
        ]
        if without:
            lines.append(f"without {without} among them")
        for budget in map(str, BUDGETS):
            asked = [r for r in some if budget in r]

            def first(cell: dict, budget: str = budget) -> str:
                return next(n for n in cell[budget]["ranked"] if n in cell["strategies"])

            if asked:
                lines.append(line(f"forecast, {budget}", asked, first))
        for name in STRATEGIES:
            if name != without:
                lines.append(line(f"always {name}", some, lambda _, name=name: name))
    for budget in map(str, BUDGETS):
        asked = [r for r in found if budget in r]
        if asked:
            spent = [r[budget]["seconds"] / r["training_seconds"] for r in asked]
            held = [len(r[budget]["leaders"]) for r in asked]
            middle = sorted(spent)[len(spent) // 2]
            lines.append(
                f"forecast, {budget}: all seven took {middle:.2f} trainings of processor time "
                f"(median); it names {sum(held) / len(held):.1f} strategies on average"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=20, help="networks to ask")
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
