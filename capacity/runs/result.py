"""From what a run has measured so far to the content of `result.json` (see `result_schema.md`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from capacity.forecasting.record import NO_ACCURACY, change
from capacity.networks.evaluate import Score
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Recipe, Training
from capacity.records.estimate import Status, from_samples
from capacity.results.recipe_of_result import SCHEMA, SCHEMA_VERSION
from capacity.runs import summary
from capacity.runs.observe import transport_entry
from capacity.runs.old_tasks import OldTasks
from capacity.runs.summary import Matrix
from capacity.tasks.scoring import task_record
from capacity.tasks.task import TaskSequence
from capacity.training.train import Divergence

NO_CAPACITY = dict.fromkeys((
    "capacity",
    "dimension",
    "literal",
    "verdicts",
    "closures",
    "plasticity",
))


@dataclass
class Measurements:
    """Everything a run has measured so far, by task, in plain JSON types but for the scores.

    Attributes:
        recipe: The recipe.
        model: The network.
        tasks: The tasks.
        states: State of every task, as the schema names them (or `training`).
        scores: Per learned task, the scores on every task.
        forecasts: What was forecast before a task, as `transition.forecast_transition` gives it.
        capacities: Capacity and dimension before a task; None where they could not be measured.
        notes: Why something of a transition is missing.
        planned: Plan of every task that is not the recipe's: a strategy may change it.
        costs: What learning a task cost.
        statistics: Running statistics after a task, as `statistics_record` gives them.
        transports: J_t of a task, as `PhaseTransport.finish` gives it.
        composed: The spectrum of J_t over all learned tasks, if it was asked for.
        calibrations: Calibration error of a belief on a task and the old ones looked at with it.
        generations: What the network made after each task, of tasks that generate.
        diverged: Where a task stopped being finite.
    """

    recipe: Recipe
    model: FlatModel
    tasks: TaskSequence
    states: list[str]
    scores: list[list[Score]] = field(default_factory=list)
    forecasts: dict[int, dict[str, Any]] = field(default_factory=dict)
    capacities: dict[int, dict[str, Any] | None] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)
    planned: dict[int, Training] = field(default_factory=dict)
    costs: dict[int, dict[str, Any]] = field(default_factory=dict)
    statistics: dict[int, dict[str, Any]] = field(default_factory=dict)
    transports: dict[int, dict[str, Any]] = field(default_factory=dict)
    composed: dict[str, Any] | None = None
    calibrations: dict[int, list[dict[str, Any]] | None] = field(default_factory=dict)
    generations: dict[int, dict[str, Any] | None] = field(default_factory=dict)
    diverged: dict[int, Divergence] = field(default_factory=dict)
    _entries: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    @cached_property
    def old(self) -> OldTasks:
        """Which old tasks are looked at."""
        return OldTasks(self.recipe.measure.old, len(self.tasks), self.recipe.seed)

    def _once(self, name: str, *key: int | str, make: Callable[[], Any]) -> Any:
        """Make an entry that never changes again; the result is written many times in a run."""
        if (name, *key) not in self._entries:
            self._entries[name, *key] = make()
        return self._entries[name, *key]

    def forgotten(self, i: int, j: int) -> dict[str, Any]:
        """Measure what learning task i did to task j.

        Args:
            i: The new task, learned.
            j: The old task.

        Returns:
            Accuracy drop and loss increase, as the schema has them.
        """
        before, after = self.scores[i - 1][j], self.scores[i][j]
        made = partial(change, self.tasks[j], before, after, status=Status.OK, predict=False)
        return self._once("forgotten", i, j, make=lambda: made().to_dict())

    def spoken(self, i: int) -> str:
        """Say what learning task i came to.

        Args:
            i: The latest task.

        Returns:
            A line for people.
        """
        task, latest = self.tasks[i], self.scores[-1]
        kind = "accuracy" if task.scored else "loss"
        text = f"learned: {task.scored_on} {kind} {float(getattr(latest[i], kind).mean()):.3f}"
        if i:
            change_of = "accuracy_drop" if task.scored else "loss_increase"
            old = self.old.before(i)
            mean = _mean([self.forgotten(i, j)[change_of] for j in old])
            text += f"; forgot {mean:.3f} of {kind} on {len(old)} earlier"
            if i in self.forecasts:
                mean = _mean([cell[change_of] for cell in self.forecasts[i]["old"]])
                text += f" (forecast {mean:.3f})"
        return text

    def result(self, status: str) -> dict[str, Any]:
        """Summarise everything that was measured so far.

        Args:
            status: State of the run to record.

        Returns:
            The content of `result.json` (see `result_schema.md`).
        """
        n = len(self.tasks)
        shape = (len(self.scores), n, self.recipe.replicas)
        accuracy, loss = (
            np.array([[getattr(s, kind).tolist() for s in row] for row in self.scores]).reshape(
                shape
            )
            for kind in ("accuracy", "loss")
        )
        transitions = [
            self._once("transition", i, make=partial(self._transition, i))
            if i < len(self.scores)
            else self._transition(i)
            for i in range(1, n)
            if i in self.capacities
        ]
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "name": self.recipe.name,
            "status": status,
            "seed": self.recipe.seed,
            "replicas": self.recipe.replicas,
            "recipe": self.recipe.model_dump(mode="json"),
            "model": {
                "description": self.model.describe(),
                "parameters": self.model.size,
                "outputs": self.tasks.n_outputs,
            },
            "tasks": [self._task(i) for i in range(n)],
            "accuracy": summary.matrix(accuracy, n),
            "loss": summary.matrix(loss, n),
            "forgetting": {
                "accuracy": self._forgetting("accuracy", summary.forgetting(accuracy, sign=1)),
                "loss": self._forgetting("loss", summary.forgetting(loss, sign=-1)),
            },
            "final": summary.final(accuracy, loss, self.old.scored(len(self.scores) - 1)),
            "transitions": transitions,
            "phases": [self._phase(i) for i in range(n)],
            "composed": None
            if self.composed is None
            else {"tasks": len(self.scores), **self.composed},
            "scores": summary.scores(transitions, accuracy),
        }

    def _forgetting(self, kind: str, values: Mapping[str, Matrix]) -> dict[str, Any]:
        """Write both forgettings: [i][j] an estimate or null."""
        n = len(self.tasks)
        made: dict[str, Any] = {}
        for name, array in values.items():
            rows = [
                self._once(
                    kind, name, i,
                    make=partial(summary.forgetting_row, array, i, self.old.scored(i)),
                )
                for i in range(len(array))
            ]  # fmt: skip
            made[name] = rows + [[None] * n for _ in range(n - len(rows))]
        return made

    def _task(self, i: int) -> dict[str, Any]:
        task, lost = self.tasks[i], self.diverged.get(i)
        return {
            **task_record(task),
            "classes": list(task.classes),
            "outputs": None if task.outputs is None else list(task.outputs),
            "steps": self.planned.get(i, self.recipe.training).steps(len(task.train)),
            "status": "interrupted" if self.states[i] == "training" else self.states[i],
            "diverged": None
            if lost is None
            else {"step": lost.step, "replicas": list(lost.replicas)},
        }

    def _transition(self, i: int) -> dict[str, Any]:
        made = self.forecasts.get(i)
        learned, assessed = i < len(self.scores), self.capacities[i]
        new: dict[str, Any] = {"forecast": None, "measured": None}
        if made is not None:
            new["forecast"] = made["new"]
        if learned:
            reached = self.scores[i][i]
            accuracy = from_samples(reached.accuracy.tolist())
            new["measured"] = {
                "accuracy": (accuracy if self.tasks[i].scored else NO_ACCURACY).to_dict(),
                "loss": from_samples(reached.loss.tolist()).to_dict(),
            }
        return {
            "task": i,
            "old": [
                {
                    "task": j,
                    "forecast": None if made is None else made["old"][k],
                    "measured": self.forgotten(i, j) if learned else None,
                    **_own_controls(made, k),
                }
                for k, j in enumerate(self.old.before(i))
            ],
            "new": new,
            "cost_ratio": None if made is None else made["cost_ratio"],
            "controls": None if made is None else made["controls"],
            "by_strategy": [] if made is None else made["by_strategy"],
            "note": self.notes.get(i, ""),
            **(NO_CAPACITY if assessed is None else assessed),
        }

    def _phase(self, i: int) -> dict[str, Any] | None:
        if self.states[i] != "learned":
            return None
        known = self.calibrations.get(i)
        entry = {"thermo": self.costs[i]} | ({} if known is None else {"calibration": known})
        made = self.generations.get(i)
        entry |= {} if made is None else {"generation": made}
        if self.statistics.get(i):
            entry["statistics"] = self.statistics[i]
        if i not in self.transports:
            return {"transport": None, **entry}
        parts = [self.transports[k] for k in range(i + 1)]
        transport = self._once("transport", i, make=partial(transport_entry, parts))
        return {"transport": transport, **entry}


def _own_controls(made: dict[str, Any] | None, k: int) -> dict[str, Any]:
    """Say what simpler predictors say of the k-th old task, where that is not said of all."""
    each = [] if made is None else made.get("old_controls", [])
    return {"controls": each[k]} if k < len(each) and each[k] else {}


def _mean(cells: list[dict[str, Any]]) -> float:
    values = [cell["value"] for cell in cells if cell["value"] is not None]
    return float(np.mean(values)) if values else float("nan")
