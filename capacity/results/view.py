"""What a report is made from: the files of a run directory as one record."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

from capacity.base.printable import visible
from capacity.recipe.old_choice import read_choice
from capacity.records.estimate import Estimate, Status, from_samples, not_defined
from capacity.records.forecast_kind import physics_of
from capacity.results.schema import (
    Change,
    ForecastScores,
    ForgettingTables,
    Phase,
    Result,
    Scores,
    StrategyForecast,
    Task,
    Transition,
    Transport,
)
from capacity.results.shape import chosen_old

Record = Mapping[str, Any]
_PREFIX = re.compile(r"^task (\d+)\s*[:\u00b7-]\s*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class RunView:
    """The content of a run directory.

    Attributes:
        result: `result.json`; empty when the run stopped before it was written.
        recipe: The resolved recipe as plain data.
        recipe_text: `recipe.yaml` as it stands.
        env: `env.json`.
        status: `status.json`.
        rows: Rows of `metrics.jsonl`.
        log_volume_steps: Per task, log|det| of every step's Jacobian.
        verified: Whether its files were checked against the digests that they were written with.
    """

    result: Result = field(default_factory=lambda: cast(Result, {}))
    recipe: Record = field(default_factory=dict)
    recipe_text: str = ""
    env: Record = field(default_factory=dict)
    status: Record = field(default_factory=dict)
    rows: Sequence[Record] = ()
    log_volume_steps: Mapping[int, Sequence[float]] = field(default_factory=dict)
    verified: bool = True

    @property
    def state(self) -> str:
        """finished, diverged, interrupted, failed or running."""
        # status.json alone knows of a failure; result.json is what the numbers belong to.
        recorded = str(self.status.get("state", ""))
        if recorded in {"failed", "interrupted"}:
            return recorded
        return str(self.result.get("status") or recorded or "running")

    @property
    def name(self) -> str:
        """Name of the run."""
        return visible(str(self.result.get("name") or self.recipe.get("name") or "run"))

    @property
    def physics(self) -> tuple[str, ...]:
        """How forecasts were made: `rehearsed`, `compressed`, `linearised`, those that occur."""
        prices = [pick(transition, "cost_ratio") for transition in self.transitions]
        kinds = {physics_of(price.note) for price in prices if price}
        return tuple(kind for kind in ("rehearsed", "compressed", "linearised") if kind in kinds)

    @property
    def interval_covers(self) -> str:
        """Subordinate clause: what a forecast's interval knows of its error."""
        covers = {
            "rehearsed": "which covers what another data order changes",
            "compressed": "which earlier transitions calibrate, unless it is marked uncalibrated",
            "linearised": "which does not know the error of the linearisation",
        }
        return "; or ".join(covers[kind] for kind in self.physics) or covers["compressed"]

    @property
    def tasks(self) -> list[Task]:
        """The tasks in order."""
        return list(self.result.get("tasks") or [])

    @property
    def scored_on(self) -> str:
        """Which samples the scores are scores on: `test`, `training`, or both."""
        kinds = {str(task.get("scored_on") or "test") for task in self.tasks}
        return " or ".join(sorted(kinds)) or "test"

    @property
    def old_said(self) -> str:
        """Which old tasks were looked at, in words; empty where it was all of them."""
        return read_choice(chosen_old(self.result)).said

    @property
    def learned(self) -> int:
        """How many tasks were learned."""
        return sum(task["status"] == "learned" for task in self.tasks)

    @property
    def transitions(self) -> list[Transition]:
        """The transitions in order."""
        return list(self.result.get("transitions") or [])

    @property
    def phases(self) -> list[Phase | None]:
        """What each task did to theta; None where it was not learned."""
        return list(self.result.get("phases") or [])

    @property
    def transports(self) -> list[Transport | None]:
        """What each task did to theta, to first order; None where it was not measured."""
        return [None if phase is None else phase.get("transport") for phase in self.phases]

    @property
    def forecast_scores(self) -> ForecastScores:
        """How well the forecasts met what was measured."""
        return self.result.get("scores") or {"pairs": 0}

    def scores(self, kind: str) -> Scores:
        """Read the scores after every task.

        Args:
            kind: `accuracy` or `loss`.

        Returns:
            As the result has them; no mean where there are none.
        """
        both = {"accuracy": self.result.get("accuracy"), "loss": self.result.get("loss")}
        return both[kind] or {"mean": None}

    def forgotten(self, kind: str) -> ForgettingTables:
        """Read what was forgotten.

        Args:
            kind: `accuracy` or `loss`.

        Returns:
            As the result has it; empty where nothing was learned.
        """
        tables = self.result.get("forgetting") or {}
        return {"accuracy": tables.get("accuracy"), "loss": tables.get("loss")}[kind] or {}

    @property
    def replicas(self) -> int:
        """Networks trained side by side."""
        return int(self.result.get("replicas") or self.recipe.get("replicas") or 1)

    @property
    def classifies(self) -> bool:
        """Whether accuracy is defined; for regression the loss takes its place."""
        return self.scores("accuracy")["mean"] is not None

    @cached_property
    def names(self) -> list[str]:
        """Names of the tasks, without a running number that the report prints itself."""
        plain = [visible(str(task["name"])) for task in self.tasks]
        short = [_PREFIX.sub("", name).strip() for name in plain]
        # A task that was given no name of its own is called "task 0": count that from 1 too.
        bare = [name == f"task {i}" for i, name in enumerate(plain)]
        short = [f"task {i + 1}" if bare[i] else name for i, name in enumerate(short)]
        unique = max(Counter(short).values(), default=1) == 1
        return short if unique and all(short) else plain

    def label(self, i: int) -> str:
        """Name a task with its number, counted from 1.

        Args:
            i: Index of the task, counted from 0.

        Returns:
            As `2 · classes 2, 3`.
        """
        name = self.names[i]
        return name if name == f"task {i + 1}" else f"{i + 1} \u00b7 {name}"

    def spoken(self, i: int) -> str:
        """Name a task inside a sentence.

        Args:
            i: Index of the task, counted from 0.

        Returns:
            As `task 2 (classes 2, 3)`.
        """
        name = self.names[i]
        return name if name == f"task {i + 1}" else f"task {i + 1} ({name})"


def estimate(record: Record | None) -> Estimate | None:
    """Read an estimate of a result.

    Args:
        record: The estimate as JSON has it, or None.

    Returns:
        The estimate, or None.
    """
    return None if record is None else Estimate.from_dict(dict(record))


def pick(record: Record | None, *path: str) -> Estimate | None:
    """Read an estimate that lies deeper, where any part on the way may be null.

    Args:
        record: Where to start.
        path: Names on the way.

    Returns:
        The estimate, or None.
    """
    part: Any = record
    for name in path:
        part = None if part is None else part.get(name)
    return estimate(part)


def forecast_mean(transition: Transition | StrategyForecast, target: str) -> Estimate | None:
    """Average a transition's forecast over its old tasks.

    The ends of the intervals are averaged too: that is the interval of the mean if the old tasks
    err together, and wider than the truth if they do not.

    Args:
        transition: One transition of the result, or one of its forecasts under a strategy.
        target: `accuracy_drop` or `loss_increase`.

    Returns:
        The average, or None if nothing was forecast.
    """
    return cells_mean([cell["forecast"] for cell in transition["old"]], target)


def old_numbers(transition: Transition) -> Sequence[int]:
    """List the old tasks that a transition is about.

    Args:
        transition: One transition of the result, or of a summary, which keeps one mean of them.

    Returns:
        Their numbers, rising.
    """
    kept = cast(Record, transition).get("old_numbers")
    return [cell["task"] for cell in transition["old"]] if kept is None else kept


def measured_mean(view: RunView, transition: Transition, target: str) -> Estimate | None:
    """Average what was measured over the old tasks, replica by replica.

    Args:
        view: The run.
        transition: One transition of the result.
        target: `accuracy_drop` or `loss_increase`.

    Returns:
        The average with its spread over replicas, or None if nothing was measured.
    """
    cells = [cell["measured"] for cell in transition["old"]]
    if not any(cells):
        return None
    i, old = int(transition["task"]), old_numbers(transition)
    kind, sign = ("accuracy", 1.0) if target == "accuracy_drop" else ("loss", -1.0)
    samples = []
    for scores in view.scores(kind).get("replicas") or []:
        pairs = [(scores[i - 1][j], scores[i][j]) for j in old]
        moved = [
            before - after for before, after in pairs if before is not None and after is not None
        ]
        if len(moved) == len(old):
            samples.append(sign * sum(moved) / len(old))
    return from_samples(samples) if samples else cells_mean(cells, target)


def cells_mean(cells: Sequence[Change | None], target: str) -> Estimate | None:
    """Average over the old tasks of a transition, as `forecast_mean` does.

    Args:
        cells: What was forecast, or measured, of each.
        target: `accuracy_drop` or `loss_increase`.

    Returns:
        The average, or None if there is none.
    """
    found = [pick(cell, target) for cell in cells]
    known = [e for e in found if e is not None]
    if not known:
        return None
    values = [e for e in known if e.value is not None]
    if not values:
        return known[0] if known[0].value is None else not_defined("No value.")
    count = len(values)
    bands = [e.interval for e in values]
    errors = [e.stderr for e in values]
    whole = all(band is not None for band in bands)
    worst = next((e.status for e in values if e.status is not Status.OK), Status.OK)
    return Estimate(
        value=sum(e.value or 0.0 for e in values) / count,
        stderr=sum(s or 0.0 for s in errors) / count if None not in errors else None,
        status=worst,
        interval=(
            sum(band[0] for band in bands if band) / count,
            sum(band[1] for band in bands if band) / count,
        )
        if whole
        else None,
        level=values[0].level,
        n=values[0].n,
        note=values[0].note,
    )
