"""Schedules, warmup, weight decay, clipping, AdamW, adapters, tokens, GPM: what else is calibrated?

The corpus of `corpus.py` holds constant rates, SGD, heavy ball and Adam, on whole networks. Here
every pair of the scored grid gets one more network, learned by a plan of another kind, drawn by a
hash of names: the pairs of the development half make the second corpus that ships with the package,
those of the held-out half are what it is scored on.

    measure  trains A, then B in two data orders, and under GPM for half of the networks; on the
             development half it asks the engine before, for 5 % and for what a long training gets
    corpus   decides about the learned correction, and writes corpus_plans.json (--save)
    table    asks `capacity.forecast` on the held-out half, and scores it (--save)

    python benchmarks/forecast/score_plans.py --phase measure [--half held-out] [--cells 150]
        [--cache DIR]

Every cell is kept in the cache as soon as it is known, so a run that is stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import corpus as main_corpus
import torch
from score_design import DEVELOPMENT, HELD_OUT
from score_physics import NAMED, nine_in_ten, numbers_of, off
from score_plain import LONG, asked, line, no_rehearsal
from score_plans_design import (
    CLIPS,
    DECAYS,
    SCHEDULES,
    WARMUPS,
    Cell,
    cells,
    fresh,
    learned,
    with_adapters,
)
from score_predict import BUDGET
from score_truth import ORDERS, default_cache, learn, outcome, write

from capacity.forecasting import corpus
from capacity.forecasting.architecture import architecture_of
from capacity.forecasting.corpus import Conditions, numbers
from capacity.forecasting.engine import forecast_cheaply
from capacity.forecasting.mitigated import contribution_of
from capacity.forecasting.quantities import QUANTITIES
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Strategy
from capacity.strategies.step import StrategyStep
from capacity.strategies.terms import Source
from capacity.tasks.task import Task

GPM = Strategy.model_validate({"name": "gpm"})
FILE = Path(corpus.__file__).with_name("corpus_plans.json")
RESULT = Path(__file__).parent / "results" / "score-plans.txt"


def measured(cell: Cell, cache: Path, ask: bool) -> dict[str, Any]:
    """Train a cell, and ask the engine before B is learned.

    Args:
        cell: The cell.
        cache: Where the network after A is kept.
        ask: Whether the engine is asked.

    Returns:
        What was measured and said, in plain JSON types.
    """
    old, new = cell.stream.build()
    module = learned(cell, old)
    path = cell.place(cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(module.state_dict(), path.with_suffix(".pt"))
    model = FlatModel(module)
    theta = model.initial()[None]
    made: dict[str, Any] = {"cell": cell.key, "parameters": model.size}
    made["architecture"] = architecture_of(model, theta[0], new.train.x)
    phase = learn(model, theta.expand(ORDERS, -1), new, cell.training, cell.seed, 1)
    made["naive"] = outcome(model, theta, phase, [old], new)
    contribution = None
    if cell.compared:
        try:
            contribution = contribution_of(
                GPM, model, theta, (old,), new, cell.training, Source(cell.seed, ("strategy", 1))
            )
        except ValueError as error:
            made["no gpm"] = str(error)
    if contribution is not None:
        step = StrategyStep(model, new, contribution, 1)
        phase = learn(model, theta, new, contribution.training, cell.seed, 1, strategy=step)
        made["gpm"] = outcome(model, theta, phase, [old], new)
    if ask:
        made["said"] = {}
        for name in ("naive", "gpm"):
            if name in made:
                strategy = GPM if name == "gpm" else None
                made["said"][name] = said(cell, model, old, new, strategy, made["architecture"])
        with no_rehearsal():
            longer = forecast_cheaply(
                model, theta[0], (old,), new, cell.training, budget="auto", seed=cell.seed
            )
        made["long"] = numbers_of(longer)
    return made


def said(
    cell: Cell, model: FlatModel, old: Task, new: Task, strategy: Strategy | None, kind: str
) -> dict[str, Any]:
    """Ask the engine for 5 %, before any corpus corrects and calibrates it.

    Args:
        cell: The cell.
        model: Its network after A.
        old: A.
        new: B.
        strategy: What is done against forgetting.
        kind: Kind of network.

    Returns:
        Its numbers; the reason where the budget pays no forecast.
    """
    theta = model.initial()
    try:
        found = forecast_cheaply(
            model, theta, (old,), new, cell.training,
            budget=BUDGET, strategy=strategy, seed=cell.seed,
        )  # fmt: skip
    except ValueError as error:
        return {"refused": str(error)}
    conditions = Conditions(
        training=cell.training, strategy="naive" if strategy is None else strategy.name,
        samples=len(new.train), parameters=model.size, budget=BUDGET,
        losses=frozenset({old.loss, new.loss}), architecture=kind, old_tasks=1,
    )  # fmt: skip
    return numbers(found, conditions)


def known(cache: Path, cell: Cell) -> dict[str, Any] | None:
    """Read what is known of a cell.

    Args:
        cache: The cache.
        cell: The cell.

    Returns:
        Its record; None where it was not measured yet.
    """
    path = cell.place(cache).with_suffix(".json")
    return json.loads(path.read_text()) if path.exists() else None


def fill(cache: Path, half: str, count: int) -> None:
    """Measure what is missing of the first cells.

    Args:
        cache: The cache.
        half: Of which half.
        count: How many.
    """
    start = time.perf_counter()
    for number, cell in enumerate(cells(half)[:count], start=1):
        if known(cache, cell) is None:
            record = measured(cell, cache, ask=half == DEVELOPMENT)
            write(cell.place(cache).with_suffix(".json"), record)
            spent = time.perf_counter() - start
            print(f"{number}/{count} {spent:.0f} s {cell.key}", file=sys.stderr, flush=True)


def rows(cache: Path) -> Iterator[dict[str, object]]:
    """List forecasts of the development half within the budget beside what was measured.

    Args:
        cache: The cache.

    Yields:
        A row per cell, and one where it was learned under GPM.
    """
    for cell in cells(DEVELOPMENT):
        record = known(cache, cell)
        for name, forecast in (record or {}).get("said", {}).items():
            truth = record[name]
            if "refused" in forecast or truth["diverged"]:
                continue
            row = {
                "pair": cell.stream.name, "family": cell.stream.family,
                "architecture": record["architecture"], **forecast,
                **{f"measured_{q}": truth[q][0] for q in QUANTITIES},
            }  # fmt: skip
            if corpus.complete(row):
                yield row


def head(cache: Path) -> dict[str, object]:
    """Say what the corpus holds."""
    return {
        "about": "Made by benchmarks/forecast/score_plans.py from its development half",
        "budget": BUDGET,
        "old_tasks": 1,
        "labels": {options.name: options.label for options in (Strategy(), GPM)},
        "bias": bias(cache),
        "plans": {
            "schedules": SCHEDULES,
            "warmup": max(WARMUPS),
            "weight_decay": {name: max(decays) for name, decays in DECAYS.items()},
            "clip_norm": min(norm for norm in CLIPS if norm is not None),
        },
    }


def bias(cache: Path) -> dict[str, tuple[float, float]]:
    """Say how far the engine is off beside what its intervals cover, without a strategy.

    Args:
        cache: The cache.

    Returns:
        Half-widths to add in squares for nine in ten, by quantity: with as many steps as the
        training asks for, and with fewer.
    """
    found = [record for cell in cells(DEVELOPMENT) if (record := known(cache, cell))]
    found = [record for record in found if not record["naive"]["diverged"]]
    enough = [(r["long"], r["naive"]) for r in found if r["long"]["drop"] is not None]
    fewer = [
        (as_numbers(r["said"]["naive"]), r["naive"])
        for r in found
        if "refused" not in r["said"]["naive"] and r["long"]["share"] > BUDGET
    ]
    print(f"bias: of {len(enough)} forecasts with enough steps, {len(fewer)} with fewer")
    made = {}
    for quantity in QUANTITIES:
        each = [
            nine_in_ten([off(said, true[quantity][0], quantity) for said, true in some])
            for some in (enough, fewer)
        ]
        made[quantity] = (round(each[0], 3), round(each[1], 3))
        print(f"  {quantity}: {made[quantity]}, of bare constant rates {corpus.BIAS[quantity]}")
    return made


def as_numbers(row: dict[str, Any]) -> dict[str, Any]:
    """Name a row's numbers as `score_physics.numbers_of` does.

    Args:
        row: As `corpus.numbers` gives it.

    Returns:
        The numbers.
    """
    values = {NAMED.get(quantity, quantity): row[quantity] for quantity in QUANTITIES}
    return values | {"halves": {quantity: row[f"{quantity}_half"] for quantity in QUANTITIES}}


def scored(cache: Path, count: int) -> Iterator[dict[str, Any]]:
    """Ask `capacity.forecast` about the held-out half.

    Args:
        cache: The cache.
        count: Cells at most.

    Yields:
        What was said and measured, by cell, budget and strategy.
    """
    for cell in cells(HELD_OUT)[:count]:
        record = known(cache, cell)
        if record is None:
            continue
        module = fresh(cell)
        module = with_adapters(module, cell.seed) if cell.adapted else module
        module.load_state_dict(torch.load(cell.place(cache).with_suffix(".pt")))
        old, new = cell.stream.build()
        for strategy, budget in (("naive", BUDGET), ("naive", LONG), ("gpm", BUDGET)):
            if strategy not in record or record[strategy]["diverged"]:
                continue
            plan = cell.training
            if strategy == "gpm":
                plan = plan.model_copy(update={"strategy": GPM})
            made = asked(module, budget, old=old, new=new, training=plan, seed=cell.seed)
            truth = record[strategy]
            yield {
                "budget": f"{strategy}, {budget}", "optimizer": cell.options["optimizer"],
                "schedule": cell.options["schedule"], "epochs": cell.options["epochs"],
                "family": cell.stream.family, "architecture": record["architecture"],
                "adapted": "adapters" if cell.adapted else "whole networks",
                "said": {"drop": made.accuracy_drop, "rise": made.loss_increase},
                "cost": made.cost_ratio.value,
                "true": {q: (truth[q] * 2)[:2] for q in ("drop", "rise")},
            }  # fmt: skip


def table(found: Sequence[dict[str, Any]]) -> str:
    """Write the scores.

    Args:
        found: As `scored` yields them.

    Returns:
        The text.
    """
    heads = ("drop", "rise", "asinh", "ceiling", "in drop", "in rise", "ok", "cost")
    lines = [
        "Held-out pairs, other plans: R^2 of drop and rise, that of the drop in another data order",
        "(without a strategy); how often 90 % intervals hold; share with the status ok;",
        "operations, of a training. For 5 %, or the least that pays a forecast",
    ]
    for budget in dict.fromkeys(row["budget"] for row in found):
        own = [row for row in found if row["budget"] == budget]
        lines += ["", f"{budget:<22}{'n':>4}" + "".join(f"{h:>9}" for h in heads), line("all", own)]
        for status in ("ok", "uncalibrated"):
            lines.append(line(status, [r for r in own if r["said"]["drop"].status == status]))
        for key in ("optimizer", "schedule", "adapted", "architecture", "family"):
            kinds = sorted({row[key] for row in own})
            lines += [line(f"  {kind}", [r for r in own if r[key] == kind]) for kind in kinds]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phase", choices=("measure", "corpus", "table"), required=True)
    parser.add_argument("--half", choices=(DEVELOPMENT, HELD_OUT), default=DEVELOPMENT)
    parser.add_argument("--cells", type=int, default=10**6, help="cells to measure or to score")
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--jobs", type=int, default=1, help="processes (corpus)")
    parser.add_argument("--save", action="store_true", help=f"write {FILE.name}, {RESULT.name}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.phase == "measure":
        fill(options.cache, options.half, options.cells)
    elif options.phase == "corpus":
        main_corpus.build(
            list(rows(options.cache)),
            head(options.cache),
            FILE if options.save else None,
            options.jobs,
        )
    else:
        text = table(list(scored(options.cache, options.cells)))
        print(text)
        if options.save:
            RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()
