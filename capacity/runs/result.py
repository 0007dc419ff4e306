"""From what a run has measured so far to the content of `result.json` (see `result_schema.md`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from capacity.compatibility.transition import CapacityRecord
from capacity.config import Recipe, Training
from capacity.dynamics.evaluate import Score
from capacity.dynamics.flat import FlatModel
from capacity.dynamics.train import Divergence
from capacity.estimate import Status, from_samples
from capacity.forecasting.forecast import NO_ACCURACY, Forecast, change
from capacity.runs import summary
from capacity.runs.observe import PhaseTransport, composed_log_volume
from capacity.tasks.task import TaskSequence
from capacity.thermo.path import PathCost
from capacity.transport.spectrum_record import Spectrum

SCHEMA_VERSION = 1
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
    """Everything a run has measured so far, by task.

    Attributes:
        recipe: The recipe.
        model: The network.
        tasks: The tasks.
        states: State of every task, as the schema names them (or `training`).
        scores: Per learned task, the scores on every task.
        forecasts: What was forecast before a task.
        controls: The simpler predictors' values before a task.
        capacities: Capacity and dimension before a task; None where they could not be measured.
        notes: Why something of a transition is missing.
        planned: Plan of every task that is not the recipe's: a strategy may change it.
        costs: What learning a task cost.
        transports: J_t of a task.
        composed: The spectrum of J_t over all learned tasks, if it was asked for.
        diverged: Where a task stopped being finite.
    """

    recipe: Recipe
    model: FlatModel
    tasks: TaskSequence
    states: list[str]
    scores: list[list[Score]] = field(default_factory=list)
    forecasts: dict[int, Forecast] = field(default_factory=dict)
    controls: dict[int, dict[str, Any]] = field(default_factory=dict)
    capacities: dict[int, CapacityRecord | None] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)
    planned: dict[int, Training] = field(default_factory=dict)
    costs: dict[int, PathCost] = field(default_factory=dict)
    transports: dict[int, PhaseTransport] = field(default_factory=dict)
    composed: Spectrum | None = None
    diverged: dict[int, Divergence] = field(default_factory=dict)

    def forgotten(self, i: int, j: int) -> dict[str, Any]:
        """Measure what learning task i did to task j.

        Args:
            i: The new task, learned.
            j: The old task.

        Returns:
            Accuracy drop and loss increase, as the schema has them.
        """
        before, after = self.scores[i - 1][j], self.scores[i][j]
        made = change(self.tasks[j], before, after, status=Status.OK, predict=False)
        return made.to_dict()

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
        transitions = [self._transition(i) for i in range(1, n) if i in self.capacities]
        return {
            "schema": "capacity/result",
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
                "accuracy": summary.forgetting_record(summary.forgetting(accuracy, sign=1), n),
                "loss": summary.forgetting_record(summary.forgetting(loss, sign=-1), n),
            },
            "final": summary.final(accuracy, loss),
            "transitions": transitions,
            "phases": [self._phase(i) for i in range(n)],
            "composed": None
            if self.composed is None
            else {"tasks": len(self.scores), **self.composed.to_dict()},
            "scores": summary.scores(transitions),
        }

    def _task(self, i: int) -> dict[str, Any]:
        task, lost = self.tasks[i], self.diverged.get(i)
        return {
            "name": task.name,
            "classes": list(task.classes),
            "outputs": None if task.outputs is None else list(task.outputs),
            "train_samples": len(task.train),
            "test_samples": len(task.test),
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
            new["forecast"] = {
                "accuracy": made.new_accuracy.to_dict(),
                "loss": made.new_loss.to_dict(),
            }
        if learned:
            reached = self.scores[i][i]
            accuracy = from_samples(reached.accuracy.tolist())
            new["measured"] = {
                "accuracy": (accuracy if self.tasks[i].classifies else NO_ACCURACY).to_dict(),
                "loss": from_samples(reached.loss.tolist()).to_dict(),
            }
        return {
            "task": i,
            "old": [
                {
                    "task": j,
                    "forecast": None if made is None else made.old[j].to_dict(),
                    "measured": self.forgotten(i, j) if learned else None,
                }
                for j in range(i)
            ],
            "new": new,
            "cost_ratio": None if made is None else made.cost_ratio.to_dict(),
            "controls": self.controls.get(i),
            "note": self.notes.get(i, ""),
            **(NO_CAPACITY if assessed is None else assessed.to_dict()),
        }

    def _phase(self, i: int) -> dict[str, Any] | None:
        if self.states[i] != "learned":
            return None
        transport = self.transports.get(i)
        return {
            "transport": None
            if transport is None or not transport.finished
            else transport.to_dict(composed_log_volume([self.transports[k] for k in range(i + 1)])),
            "thermo": self.costs[i].to_dict(),
        }
