"""What every predictor says of every cell of `score.py`, before the new task is trained.

A column is one predictor or one group of them, a file per network in its own folder, so that one
column can be made anew (`--columns engine --again`) while all others stay. Only the post-hoc
ceilings and the marginals of earlier pairs read any truth: that of the cell, and that of the
development half's other pairs.
"""

from __future__ import annotations

import math
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from score_design import DEVELOPMENT, Unit, network, part_of, strategies, units
from score_truth import Known, in_turn, known, place, read, write
from torch import nn

import capacity
from capacity.forecasting.corpus import Conditions, numbers
from capacity.forecasting.engine import forecast_cheaply
from capacity.forecasting.quantities import half_width, mean
from capacity.forecasting.record import Forecast
from capacity.forecasting.within_budget import from_readings
from capacity.networks.flat_model import FlatModel
from capacity.predictors.predictor import Pair, Prediction, Setting
from capacity.predictors.registry import PREDICTORS, predict
from capacity.recipe.config import Strategy
from capacity.tasks.task import Task

BUDGET = 0.05
_ORDERS = 1
"""Data orders of the full simulation."""
_MARGINALS, _SIMULATION = "additive_marginals", "linearized"
_CONTROLS = ("capacity_alone", "dimension_alone")
"""Dear ones, in a column of their own."""
_ASKED = (1, 5, 9)
"""Transitions of a long sequence at which the registry is asked: the price is per old task."""


@dataclass(frozen=True)
class Moment:
    """A network before a transition, and what is known of it afterwards."""

    unit: Unit
    module: nn.Module
    old: tuple[Task, ...]
    new: Task
    known: Known
    index: int

    @property
    def truth(self) -> dict:
        """What was measured."""
        return self.known.record["cells"][self.index]


def _forecast(moment: Moment, strategy: Strategy | None, budget: float) -> dict:
    # The engine is asked where `capacity.forecast(budget=...)` asks it, before the corpus, which is
    # made of its answers, corrects and calibrates them. A refusal is recorded with its reason.
    unit = moment.unit
    start = time.process_time()
    flat = FlatModel(moment.module)
    try:
        readings = forecast_cheaply(
            flat, flat.initial(), moment.old, moment.new, unit.training,
            budget=budget, strategy=strategy, seed=unit.seed,
        )  # fmt: skip
    except ValueError as error:
        # A tiny task: the smallest budget that pays a forecast is named, and taken, and counted.
        named = re.search(r"the smallest that does is ([0-9.]+)", str(error))
        if named is None or float(named[1]) <= budget:
            return {"refused": str(error)}
        return _forecast(moment, strategy, float(named[1]))
    conditions = Conditions(
        training=unit.training, strategy="naive" if strategy is None else strategy.name,
        samples=len(moment.new.train), parameters=flat.size, budget=budget,
        losses=frozenset(task.loss for task in (*moment.old, moment.new)),
        architecture=unit.architecture, old_tasks=len(moment.old),
    )  # fmt: skip
    asked = None if math.isinf(budget) else budget
    return {
        **said(from_readings(readings.old, readings.new, readings.cost_ratio)),
        **numbers(readings, conditions),
        "asked": asked, "seconds": time.process_time() - start,
    }  # fmt: skip


def said(made: Forecast) -> dict[str, object]:
    """Read a forecast: means over old tasks; half-widths are those of the tasks, averaged.

    Args:
        made: The forecast.

    Returns:
        One number per quantity; None where it gives none.
    """
    drops = [each.accuracy_drop for each in made.old]
    rises = [each.loss_increase for each in made.old]
    return {
        "drop": mean([e.value for e in drops]), "rise": mean([e.value for e in rises]),
        "drop_half": mean([half_width(e) for e in drops]),
        "rise_half": mean([half_width(e) for e in rises]),
        "new_accuracy": made.new_accuracy.value, "new_loss": made.new_loss.value,
        "new_accuracy_half": half_width(made.new_accuracy),
        "new_loss_half": half_width(made.new_loss),
        "average_accuracy": made.average_accuracy.value,
        "average_loss": made.average_loss.value,
        "cost": made.cost_ratio.value, "note": made.cost_ratio.note,
    }  # fmt: skip


def _engine(moment: Moment) -> dict:
    return _with_strategies(moment, BUDGET)


def _with_strategies(moment: Moment, budget: float) -> dict:
    made = _forecast(moment, None, budget)
    if moment.unit.compared:
        made["strategies"] = {
            name: _forecast(moment, options, budget) for name, options in strategies().items()
        }
    return made


def _simulation(moment: Moment) -> dict:
    start = time.process_time()
    try:
        made = capacity.forecast(
            moment.module, old=list(moment.old), new=moment.new, training=moment.unit.training,
            orders=_ORDERS, budget=None, seed=moment.unit.seed, device="cpu",
        )  # fmt: skip
    except ValueError as error:
        return {"refused": str(error)}
    return {**said(made), "asked": None, "seconds": time.process_time() - start}


def _rehearsal(moment: Moment) -> dict:
    return _forecast(moment, None, math.inf)


def _baselines(moment: Moment) -> dict:
    apart = {_MARGINALS, _SIMULATION, *_CONTROLS}
    return _of_registry(moment, [name for name in PREDICTORS if name not in apart])


def _controls(moment: Moment) -> dict:
    return _of_registry(moment, _CONTROLS)


def _of_registry(moment: Moment, names: Sequence[str], history: tuple[Pair, ...] = ()) -> dict:
    if moment.truth["transition"] not in _ASKED and not history:
        return {}
    setting = Setting(
        model=FlatModel(moment.module),
        theta=moment.known.theta[moment.index][None],
        old=moment.old,
        new=moment.new,
        training=moment.unit.training,
        seed=moment.unit.seed,
        history=history,
        displacement=moment.truth["displacement"],
        after=moment.known.after[moment.index][None],
    )
    made = {}
    for name in names:
        start = time.process_time()
        found = predict(setting, [name])[name]
        made[name] = {**_of_prediction(found), "seconds": time.process_time() - start}
    return made


def _of_prediction(found: Sequence[Prediction]) -> dict[str, object]:
    units_of = found[0].in_units
    return {
        "drop": mean([each.accuracy_drop.value for each in found]),
        "rise": mean([each.loss_increase.value for each in found]),
        "in_units": sorted(units_of),
    }


@dataclass(frozen=True)
class _Marginals:
    """B0, from what the development half's other pairs measured."""

    history: dict[str, tuple[Pair, ...]]

    def __call__(self, moment: Moment) -> dict:
        own = moment.unit.stream.name
        others = tuple(p for name, some in self.history.items() if name != own for p in some)
        return _of_registry(moment, [_MARGINALS], others)


def _marginals(cache: Path) -> _Marginals:
    part, history = part_of(), dict[str, tuple[Pair, ...]]()
    for unit in units():
        found = known(cache, unit) if part[unit.stream.name] == DEVELOPMENT else None
        if found is None:
            continue
        names = [task.name for task in unit.stream.build()]
        here = [
            Pair(names[0], names[cell["transition"]], cell["drop"][0], cell["rise"][0])
            for cell in found.record["cells"]
            if not cell["diverged"]
        ]
        history[unit.stream.name] = (*history.get(unit.stream.name, ()), *here)
    return _Marginals(history)


COLUMNS: dict[str, Callable[[Path], Callable[[Moment], dict]]] = {
    "engine": lambda _: _engine,
    "rehearsal": lambda _: _rehearsal,
    "simulation": lambda _: _simulation,
    "baselines": lambda _: _baselines,
    "controls": lambda _: _controls,
    "marginals": _marginals,
}
"""Who fills a column, given the cache."""
VERSIONS = {
    "engine": 4, "rehearsal": 1, "simulation": 1, "baselines": 1, "controls": 1, "marginals": 2,
}  # fmt: skip
"""Raised when a column means something else: files of other versions are not read."""


_OF_DEVELOPMENT: dict[str, int | None] = {"engine": None, "baselines": 100}
"""Of how many units of the development half a column is asked: all for the corpus, some for the
lines of predictors without a unit, none elsewhere."""


def asked_of(wanted: Sequence[Unit], name: str) -> list[Unit]:
    """List the units of which a column is asked.

    Args:
        wanted: Units, in the grid's order.
        name: The column.

    Returns:
        All that are held out, and as many of the others as the column needs.
    """
    part, most = part_of(), _OF_DEVELOPMENT.get(name, 0)
    early = [unit for unit in wanted if part[unit.stream.name] == DEVELOPMENT]
    left = set(early if most is None else early[:most])
    return [u for u in wanted if u in left or part[u.stream.name] != DEVELOPMENT]


def folder(column: str) -> str:
    return f"{column}-{VERSIONS[column]}"


def column(cache: Path, unit: Unit, name: str) -> list[dict] | None:
    """Read what a column says of a unit's cells.

    Args:
        cache: The cache.
        unit: The unit.
        name: The column.

    Returns:
        A record per transition; None where it was not filled yet.
    """
    found = read(place(cache, unit, folder(name)).with_suffix(".json"))
    return None if found is None else found["cells"]


def predictions(
    cache: Path, wanted: Sequence[Unit], names: Sequence[str], *, jobs: int, again: bool
) -> None:
    """Fill what is missing of some columns, where they are asked and the truth is there.

    Args:
        cache: The cache.
        wanted: The units.
        names: The columns.
        jobs: Processes.
        again: Throw away what they said of any unit before.
    """
    for name in names:
        if again:
            shutil.rmtree(cache / folder(name), ignore_errors=True)
        missing = [
            unit
            for unit in asked_of(wanted, name)
            if column(cache, unit, name) is None
            and place(cache, unit, "truth").with_suffix(".json").exists()
        ]
        fill = _Fill(cache, name, COLUMNS[name](cache))
        in_turn(fill, missing, jobs=jobs, what=name)


@dataclass(frozen=True)
class _Fill:
    cache: Path
    name: str
    ask: Callable[[Moment], dict]

    def __call__(self, unit: Unit) -> None:
        found = known(self.cache, unit)
        assert found is not None
        tasks, module = unit.stream.build(), network(unit.network, unit.seed)
        made = []
        for index in range(len(found.record["cells"])):
            nn.utils.vector_to_parameters(found.theta[index], module.parameters())
            old, new = tasks[: index + 1], tasks[index + 1]
            moment = Moment(unit, module, old, new, found, index)
            made.append(self.ask(moment))
        path = place(self.cache, unit, folder(self.name)).with_suffix(".json")
        write(path, {"unit": unit.key, "cells": made})


def names_of(text: str) -> list[str]:
    """Read a list of columns.

    Args:
        text: Names with commas between, or `all`.

    Returns:
        The names.

    Raises:
        SystemExit: If a name is none.
    """
    names = list(COLUMNS) if text == "all" else text.split(",")
    for name in names:
        if name not in COLUMNS:
            raise SystemExit(f"--columns: {name!r} is none; accepted: {', '.join(COLUMNS)}, or all")
    return names
