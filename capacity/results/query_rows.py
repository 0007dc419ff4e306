"""The tables that many runs are read into: their columns, and the rows that one run gives."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from capacity.results.recipe_differences import flat
from capacity.results.view import RunView, pick

Row = dict[str, Any]


def _pair(name: str) -> dict[str, str]:
    return {name: "DOUBLE", f"{name}_stderr": "DOUBLE"}


def _triple(name: str) -> dict[str, str]:
    return {**_pair(name), f"{name}_status": "VARCHAR"}


_RUN_ESTIMATES = {
    "accuracy": ("final", "accuracy"),
    "loss": ("final", "loss"),
    "forgetting_last": ("final", "forgetting_last"),
    "forgetting_max": ("final", "forgetting_max"),
    "accuracy_drop_spearman": ("scores", "accuracy_drop", "spearman"),
    "accuracy_drop_error": ("scores", "accuracy_drop", "mean_error"),
    "loss_increase_spearman": ("scores", "loss_increase", "spearman"),
    "loss_increase_error": ("scores", "loss_increase", "mean_error"),
}
_BEFORE = {
    "capacity_nats": ("capacity", "nats"),
    "capacity_directions": ("capacity", "directions"),
    "dimension_stable_rank": ("dimension", "stable_rank"),
    "dimension_intrinsic": ("dimension", "intrinsic"),
    "cost_ratio": ("cost_ratio",),
}
_REACHED = {
    "average_accuracy": ("average_accuracy",),
    "average_loss": ("average_loss",),
    "new_accuracy": ("new", "accuracy"),
    "new_loss": ("new", "loss"),
    "cost_ratio": ("cost_ratio",),
}
COLUMNS: dict[str, dict[str, str]] = {
    "runs": {
        "run": "INTEGER",
        "path": "VARCHAR",
        "name": "VARCHAR",
        "seed": "BIGINT",
        "status": "VARCHAR",
        "message": "VARCHAR",
        "verified": "BOOLEAN",
        "strategy": "VARCHAR",
        "replicas": "INTEGER",
        "parameters": "BIGINT",
        "tasks_total": "INTEGER",
        "tasks_learned": "INTEGER",
        **{c: k for name in _RUN_ESTIMATES for c, k in _triple(name).items()},
        "seconds": "DOUBLE",
        "fields": "MAP(VARCHAR, VARCHAR)",
        "recipe": "JSON",
    },
    "tasks": {
        "run": "INTEGER",
        "task": "INTEGER",
        "name": "VARCHAR",
        "status": "VARCHAR",
        "train_samples": "BIGINT",
        "test_samples": "BIGINT",
        "steps": "BIGINT",
        "accuracy_learned": "DOUBLE",
        "accuracy_final": "DOUBLE",
        "loss_learned": "DOUBLE",
        "loss_final": "DOUBLE",
        **_triple("forgetting"),
        **_triple("inefficiency"),
    },
    "transitions": {
        "run": "INTEGER",
        "task": "INTEGER",
        "old_task": "INTEGER",
        **{
            c: k
            for target in ("accuracy_drop", "loss_increase")
            for side in ("forecast", "measured")
            for c, k in _triple(f"{target}_{side}").items()
        },
        **{c: k for name in _BEFORE for c, k in _triple(name).items()},
        "verdict": "VARCHAR",
    },
    "strategies": {
        "run": "INTEGER",
        "task": "INTEGER",
        "rank": "INTEGER",
        "strategy": "VARCHAR",
        "mean_accuracy_drop": "DOUBLE",
        "mean_loss_increase": "DOUBLE",
        **{c: k for name in _REACHED for c, k in _triple(name).items()},
    },
    "metrics": {
        "run": "INTEGER",
        "task": "INTEGER",
        "epoch": "INTEGER",
        "step": "BIGINT",
        "learning_time": "DOUBLE",
        "lr": "DOUBLE",
        **_pair("train_loss"),
        "tested": "INTEGER",
        **_pair("test_accuracy"),
        **_pair("test_loss"),
    },
}
"""Every table's columns with their types."""

LISTS = ("test_accuracy", "test_accuracy_stderr", "test_loss", "test_loss_stderr")
"""Columns of `metrics` that a row of metrics.jsonl has for all tested tasks together."""
LOGGED: dict[str, Any] = {
    column: [kind] if column in LISTS else kind
    for column, kind in COLUMNS["metrics"].items()
    if column != "tested"
}
"""What is taken from a row of metrics.jsonl, beside the number of the run."""


def rows_of(view: RunView) -> dict[str, list[Row]]:
    """Give the rows of one run, without its number and its path, which the reader has.

    Args:
        view: Its content.

    Returns:
        Rows by table; those of `metrics` as they were logged, with lists over the tested tasks.
    """
    return {
        "runs": [_run(view)],
        "tasks": list(_tasks(view)),
        "transitions": list(_transitions(view)),
        "strategies": list(_strategies(view)),
        "metrics": [dict(row) for row in view.rows],
    }


def cells(name: str, record: Mapping[str, Any] | None, *path: str) -> Row:
    """Spread an estimate over its columns.

    Args:
        name: Of the column with its value.
        record: Where to start.
        *path: Names on the way to it.

    Returns:
        Value, standard error and status; nothing where there is no estimate.
    """
    found = pick(record, *path)
    if found is None:
        return {}
    return {
        name: found.value,
        f"{name}_stderr": found.stderr,
        f"{name}_status": str(found.status),
    }


def _run(view: RunView) -> Row:
    fields = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in flat(view.recipe).items()
    }
    row: Row = {
        "name": view.name,
        "seed": view.recipe.get("seed"),
        "status": view.state,
        "message": str(view.status.get("message") or ""),
        "verified": view.verified,
        "strategy": fields.get("training.strategy.name", "naive"),
        "replicas": view.replicas,
        "parameters": (view.result.get("model") or {}).get("parameters"),
        "tasks_total": len(view.tasks),
        "tasks_learned": view.learned,
        "seconds": sum((view.status.get("seconds") or {}).values()) or None,
        "fields": fields,
        "recipe": view.recipe,
    }
    for name, where in _RUN_ESTIMATES.items():
        row |= cells(name, view.result, *where)
    return row


def _tasks(view: RunView) -> Iterable[Row]:
    kind = "accuracy" if view.classifies else "loss"
    last = view.forgotten(kind).get("last") or []
    end = view.learned - 1
    for i, task in enumerate(view.tasks):
        row: Row = {"task": i}
        for name in ("name", "status", "train_samples", "test_samples", "steps"):
            row[name] = task[name]
        for score in ("accuracy", "loss"):
            mean = view.scores(score)["mean"]
            if mean and end >= 0:
                row[f"{score}_learned"], row[f"{score}_final"] = mean[i][i], mean[end][i]
        if 0 <= end < len(last):
            row |= cells("forgetting", {"e": last[end][i]}, "e")
        yield row | cells("inefficiency", view.phases[i], "thermo", "inefficiency_path")


def _transitions(view: RunView) -> Iterable[Row]:
    for transition in view.transitions:
        verdict = transition.get("verdicts") or transition.get("literal")
        before: Row = {"verdict": verdict and verdict["verdict"]}
        for name, where in _BEFORE.items():
            before |= cells(name, transition, *where)
        for old in transition["old"]:
            row: Row = {"task": transition["task"], "old_task": old["task"]}
            for target in ("accuracy_drop", "loss_increase"):
                for side in ("forecast", "measured"):
                    row |= cells(f"{target}_{side}", old[side], target)
            yield row | before


def _strategies(view: RunView) -> Iterable[Row]:
    for transition in view.transitions:
        for place, entry in enumerate(transition.get("by_strategy") or [], start=1):
            row: Row = {"task": transition["task"], "rank": place}
            row["strategy"] = entry["name"]
            for target in ("accuracy_drop", "loss_increase"):
                found = [pick(cell["forecast"], target) for cell in entry["old"]]
                known = [e.value for e in found if e is not None and e.value is not None]
                row[f"mean_{target}"] = math.fsum(known) / len(known) if known else None
            for name, where in _REACHED.items():
                row |= cells(name, entry, *where)
            yield row
