"""The cells of `score.py`: what was measured, and what every predictor said, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from score_design import SEEDS, Unit, part_of
from score_predict import COLUMNS, column
from score_truth import known

from capacity.forecasting.corpus import (
    Corpus,
    complete,
)
from capacity.forecasting.corrector import KEPT
from capacity.forecasting.quantities import QUANTITIES
from capacity.forecasting.shipped import shipped
from capacity.predictors.registry import PREDICTORS

FORECAST, ENGINE, REHEARSAL, SIMULATION = "forecast", "engine", "rehearsal", "simulation"
"""What `capacity.forecast(budget=0.05)` says, the corpus's correction included; the engine behind
it; the engine with an unlimited budget; and the exact simulation of the linearised training."""


def collect(cache: Path, wanted: Sequence[Unit], *, correct: str | None = None) -> list[dict]:
    """Read all cells whose truth is there; those whose training diverged are left out.

    Args:
        cache: The cache.
        wanted: The units.
        correct: The half of which `capacity.forecast`'s correction is added; None adds none.

    Returns:
        One record per transition, in the grid's order.
    """
    part, found = part_of(), []
    for unit in wanted:
        truth = known(cache, unit)
        if truth is None:
            continue
        said = {name: column(cache, unit, name) for name in COLUMNS}
        for index, cell in enumerate(truth.record["cells"]):
            if cell["diverged"]:
                continue
            here = {name: made[index] for name, made in said.items() if made is not None}
            samples = len(unit.stream.build()[index + 1].train)
            found.append({
                "stream": unit.stream.name, "family": unit.stream.family,
                "half": part[unit.stream.name], "network": unit.network,
                "architecture": unit.architecture, "optimizer": unit.optimizer,
                "epochs": unit.epochs, "seed": unit.seed % SEEDS,
                "steps": unit.training.steps(samples), "samples": samples,
                "parameters": truth.record["parameters"], "transition": cell["transition"],
                "old_accuracy": cell["old_accuracy"], "old_loss": cell["old_loss"],
                "training_s": cell["training_s"],
                **{q: cell[q][0] for q in ("drop", "rise", "new_accuracy", "new_loss")},
                "drop_again": cell["drop"][1], "rise_again": cell["rise"][1],
                "strategies": {
                    name: worth(cell["old_accuracy"], made, cell["transition"])
                    for name, made in cell.get("strategies", {}).items()
                },
                "strategy_outcomes": cell.get("strategies", {}),
                "said": _by_predictor(here),
            })  # fmt: skip
    _correct([cell for cell in found if cell["half"] == correct])
    return found


def _correct(cells: Sequence[dict]) -> None:
    """Add what `capacity.forecast` says: the engine, corrected as the corpus teaches."""
    records = []
    for cell in cells:
        engine = cell["said"].get(ENGINE)
        if engine is None or engine["drop"] is None:
            continue
        own = {name: dict(one) for name, one in engine.get("strategies", {}).items()}
        made = {**engine, "strategies": own}
        cell["said"] = {FORECAST: made, **cell["said"]}
        records += [(one, cell["transition"]) for one in (made, *own.values())]
    corpus = shipped()
    if corpus is None:
        return
    some = [
        (one, tasks)
        for one, tasks in records
        # Outside of what the corpus speaks of, the forecast stays the engine's own.
        if "refused" not in one
        and complete({key: one[key] for key in KEPT})
        and corpus.why_far(one) is None
    ]
    _move([one for one, _ in some], [tasks for _, tasks in some], corpus)


def _move(said: list[dict], old_tasks: list[int], corpus: Corpus) -> None:
    found = {name: corpus.corrected(name, said) for name in QUANTITIES}
    for k, (one, tasks) in enumerate(zip(said, old_tasks, strict=True)):
        kept = tasks * (one["drop"] - found["drop"][k])
        more = found["new_accuracy"][k] - one["new_accuracy"]
        one["average_accuracy"] += (kept + more) / (tasks + 1)
        one.update({name: found[name][k] for name in QUANTITIES})


def worth(old_accuracy: float, outcome: dict, old_tasks: int) -> float | None:
    """Mean accuracy over all tasks that a measured training leaves; None where it diverged.

    Args:
        old_accuracy: Mean accuracy on the old tasks before.
        outcome: What was measured, one replica.
        old_tasks: How many there are.

    Returns:
        The mean.
    """
    if outcome["diverged"]:
        return None
    kept = old_accuracy - outcome["drop"][0]
    return (old_tasks * kept + outcome["new_accuracy"][0]) / (old_tasks + 1)


def _by_predictor(columns: dict[str, dict]) -> dict[str, dict]:
    made = {}
    for name, record in columns.items():
        if name in {ENGINE, REHEARSAL, SIMULATION}:
            if "refused" not in record:
                made[name] = {**record, "in_units": ["accuracy_drop", "loss_increase"]}
        else:
            made |= record
    return made


def title(name: str) -> str:
    """Name a predictor for people.

    Args:
        name: Its key.

    Returns:
        Code and name.
    """
    if name not in PREDICTORS:
        return {
            FORECAST: "capacity.forecast, 5 %",
            ENGINE: "engine alone",
            REHEARSAL: "unlimited: rehearsal",
            SIMULATION: "linearised simulation",
        }[name]
    predictor = PREDICTORS[name]
    return " ".join(part for part in (predictor.code, name) if part)


def order(cells: Sequence[dict]) -> list[str]:
    """List the predictors that said something, the engine first, ceilings last.

    Args:
        cells: The cells.

    Returns:
        Their keys.
    """
    have = {name for cell in cells for name in cell["said"]}
    rest = [n for n in PREDICTORS if n in have]
    rest.sort(key=lambda n: (PREDICTORS[n].post_hoc, PREDICTORS[n].code or "Z"))
    return [n for n in (FORECAST, ENGINE, REHEARSAL, SIMULATION) if n in have] + rest


def values(cells: Sequence[dict], name: str, quantity: str) -> list[float]:
    """List what a predictor says; NaN where it says nothing.

    Args:
        cells: The cells.
        name: The predictor.
        quantity: `drop` or `rise`.

    Returns:
        One number per cell.
    """
    found = [cell["said"].get(name, {}).get(quantity) for cell in cells]
    return [math.nan if value is None else value for value in found]


def in_units(cells: Sequence[dict], name: str, quantity: str) -> bool:
    """Say whether a predictor has the quantity's unit, in every cell.

    Args:
        cells: The cells.
        name: The predictor.
        quantity: `drop` or `rise`.

    Returns:
        Whether it has.
    """
    field = {"drop": "accuracy_drop", "rise": "loss_increase"}[quantity]
    said = [cell["said"][name] for cell in cells if cell["said"].get(name)]
    return bool(said) and all(field in one["in_units"] for one in said)
