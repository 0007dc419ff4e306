"""Run directories made up after `result_schema.md`, without any training: one per kind of run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capacity.recipe import config
from report.fabricated_capacity import PARAMETERS, Record, capacity_record, estimate

CASES = (
    "finished",
    "diverged",
    "interrupted",
    "regression",
    "one_task",
    "one_replica",
    "refusals",
    "stopped_early",
)
LONG = 200
"""Tasks of the case `long`, which is of none of the tests that are run on every case."""
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)> & ${7*7}"


def accuracy(i: int, j: int) -> float:
    """Accuracy on task j after learning task i: 0.95, less 0.12 per later task."""
    return 0.95 - 0.12 * (i - j) if j <= i else 0.1


def loss(i: int, j: int) -> float:
    """Loss on task j after learning task i."""
    return 0.2 + 0.5 * (i - j) if j <= i else 2.3


def matrices(tasks: int, reached: int, replicas: int, value: Any) -> Record:
    """A matrix of the schema: rows from `reached` on are null; replicas differ by 0.01."""
    mean = [[value(i, j) if i < reached else None for j in range(tasks)] for i in range(tasks)]
    shift = [0.01 * (r - (replicas - 1) / 2) for r in range(replicas)]
    each = [[[None if v is None else v + d for v in row] for row in mean] for d in shift]
    error = None if replicas == 1 else 0.005
    return {
        "mean": mean,
        "stderr": [[None if v is None else error for v in row] for row in mean],
        "replicas": each,
    }


def forgetting(tasks: int, reached: int, replicas: int, value: Any, sign: float) -> Record:
    """Forgetting by both definitions, from a matrix that only falls."""
    error = None if replicas == 1 else 0.004
    table = [
        [
            estimate(sign * (value(j, j) - value(i, j)), error, n=replicas)
            if j < i < reached
            else None
            for j in range(tasks)
        ]
        for i in range(tasks)
    ]
    return {"last": table, "max": table}


def transition(i: int, replicas: int, *, measured: bool = True, classes: bool = True) -> Record:
    """What was said before task i, and what came of it."""
    error = None if replicas == 1 else 0.01
    careful = "The interval leaves the error of the linearisation out."

    def pair(j: int, shift: float, status: str, note: str) -> Record:
        drop = estimate(accuracy(i - 1, j) - accuracy(i, j) + shift, error, status, note)
        rise = estimate(loss(i, j) - loss(i - 1, j) + shift * (j + 1), error, status, note)
        return {
            "accuracy_drop": drop if classes else estimate(None, None, "not_defined", "regression"),
            "loss_increase": rise,
        }

    def new(shift: float, status: str) -> Record:
        right = estimate(accuracy(i, i) + shift, error, status)
        return {
            "accuracy": right if classes else estimate(None, None, "not_defined", "regression"),
            "loss": estimate(loss(i, i) + shift, error, status),
        }

    return {
        "task": i,
        "old": [
            {
                "task": j,
                "forecast": pair(j, 0.02, "uncalibrated", careful),
                "measured": pair(j, 0.0, "ok", "") if measured else None,
            }
            for j in range(i)
        ],
        "new": {
            "forecast": new(-0.01, "uncalibrated"),
            "measured": new(0.0, "ok") if measured else None,
        },
        "cost_ratio": estimate(0.4 + 0.01 * i),
        "by_strategy": by_strategy(i, classes=classes),
        "controls": {
            "new_task_loss": estimate(2.0 + 0.1 * i, error),
            "path_bound": estimate(80.0 + i, error),
        },
        **capacity_record(i, classes=classes),
    }


def by_strategy(i: int, *, classes: bool) -> list[Record]:
    """Three strategies before task i, the best first; replay wins back what was lost before."""

    def entry(name: str, drop: float, average: float) -> Record:
        both = {"accuracy_drop": estimate(drop, 0.01), "loss_increase": estimate(3 * drop, 0.01)}
        new = {"accuracy": estimate(0.9, 0.01), "loss": estimate(0.3, 0.01)}
        return {
            "name": name,
            "old": [{"task": j, "forecast": both} for j in range(i)],
            "new": new,
            "average_accuracy": estimate(average, 0.01),
            "average_loss": estimate(1 - average, 0.01),
            "cost_ratio": estimate(1.5),
        }

    made = [
        entry("joint", -0.2, 0.95),
        entry("replay" if i == 1 else "ewc, strength = 100.0", -0.1 if i == 1 else 0.06, 0.9),
        entry("naive", 0.14, 0.7),
    ]
    if not classes:
        for one in made:
            one["average_accuracy"] = estimate(None, None, "not_defined", "regression")
            for old in one["old"]:
                old["forecast"] = old["forecast"] | {"accuracy_drop": one["average_accuracy"]}
    return made


def phase(i: int, replicas: int) -> Record:
    """What learning task i did to theta."""
    error = None if replicas == 1 else 0.05
    singular = [
        {"value": 30.0 / (k + 1) + i, "residual": 1e-3 if k < 4 else 2.0, "resolved": k < 4}
        for k in range(6)
    ]
    return {
        "transport": {
            "log_volume": estimate(-80.0 - i, 1.5),
            "log_volume_total": estimate(-80.0 * (i + 1), 2.5),
            "frobenius_sq": estimate(4000.0, 70.0),
            "deviation_sq": estimate(900.0, 40.0),
            "singular_values": singular,
            "top_resolved": 4,
            "smallest": [
                {"value": 0.01 * (k + 1), "residual": 0.3, "resolved": False} for k in (0, 1)
            ],
            "parts": {
                "chaotic": estimate(1.0, 0.0),
                "bulk": estimate(PARAMETERS - 3.0, 0.4),
                "stable": estimate(
                    2.0, 0.8, "not_resolved", "Between 1 and 4; more sweeps narrow it."
                ),
                "chaotic_above": 1.1,
                "stable_below": 0.9,
            },
            "counts": [{"side": "below", "threshold": 0.5, "count": estimate(2.0, 0.8)}],
            "density": {
                "edges": [1.0],
                "counts": [2.0, 4.0],
                "stderr": [0.8, 0.8],
                "resolved": [True, True],
            },
            "moved": {
                **estimate(3.0, None, "not_resolved", "At least 3."),
                "interval": [3.0, float(PARAMETERS)],
            },
            "moved_above": 0.1,
            "alignment": estimate(0.97, 0.01),
            "effective_rank": estimate(3.4, 0.2),
            "stable_rank": estimate(2.2, 0.1),
            "dimension": float(PARAMETERS),
            "exact": False,
            "sweeps": 5,
            "sweeps_missing": estimate(7.0, None, "uncalibrated", "Extrapolated."),
            "tangents": 16,
            "products_forward": 80,
            "products_adjoint": 64,
            "method": "block Krylov on J'J",
        },
        "thermo": {
            "learning_time": 9.0,
            "inefficiency_path": estimate(1.9 + i, error),
            "loss_drop_ratio": estimate(1.8 + i, error),
            "action": estimate(19.0, error),
            "loss_drop": estimate(2.2, error),
            "displacement_sq": estimate(11.0, error),
            "length_ratio": estimate(3.1, error),
            "path_invariant": {"holds": True, "smallest_ratio": 12.5},
        },
    }


def scores(pairs: int, *, classes: bool) -> Record:
    """How well the forecasts ordered the pairs."""
    few = estimate(None, None, "not_defined", "Fewer than three pairs.")

    def score() -> Record:
        return {
            "spearman": estimate(0.93, 0.04, "uncalibrated") if pairs > 2 else few,
            "r2": estimate(0.91) if pairs > 2 else few,
            "mean_error": estimate(0.02, 0.003) if pairs else few,
        }

    absent = {key: estimate(None, None, "not_defined", "regression") for key in score()}
    control = {
        "accuracy_drop": estimate(0.21, 0.3, "uncalibrated") if pairs > 2 and classes else few,
        "loss_increase": estimate(-0.34, 0.3, "uncalibrated") if pairs > 2 else few,
    }
    return {
        "pairs": pairs,
        "accuracy_drop": score() if classes else absent,
        "loss_increase": score(),
        "controls": {"new_task_loss": control, "path_bound": control},
    }


def result(recipe: Mapping[str, Any], case: str) -> Record:
    """The `result.json` of a case."""
    tasks = {"one_task": 1, "long": LONG}.get(case, 3)
    replicas = 1 if case == "one_replica" else 4
    classes = case != "regression"
    reached = {"diverged": 1, "interrupted": 2}.get(case, tasks)
    forecast = min(reached + 1, tasks)
    state = case if case in {"diverged", "interrupted"} else "finished"
    none = estimate(None, None, "not_defined", "There is no earlier task.")
    shown = "accuracy" if classes else "loss"
    last = reached - 1
    made: Record = {
        "schema": "capacity/result",
        "schema_version": 1,
        "name": recipe["name"],
        "status": state,
        "seed": 0,
        "replicas": replicas,
        "recipe": recipe,
        "model": {"description": "Linear(2x2)", "parameters": PARAMETERS, "outputs": 2},
        "tasks": [
            {
                "name": f"task {i}: classes {2 * i}-{2 * i + 1} <b>",
                "classes": [2 * i, 2 * i + 1] if classes else None,
                "outputs": None,
                "train_samples": 100,
                "test_samples": 50,
                "steps": 40,
                "status": "learned"
                if i < reached
                else (state if i == reached and state != "finished" else "not_started"),
                "diverged": {"step": 7, "replicas": [2]}
                if case == "diverged" and i == reached
                else None,
            }
            for i in range(tasks)
        ],
        "accuracy": matrices(tasks, reached, replicas, accuracy),
        "loss": matrices(tasks, reached, replicas, loss),
        "forgetting": {
            "accuracy": forgetting(tasks, reached, replicas, accuracy, 1.0),
            "loss": forgetting(tasks, reached, replicas, loss, -1.0),
        },
        "final": {
            "accuracy": estimate(0.8, 0.01)
            if classes
            else estimate(None, None, "not_defined", "regression"),
            "loss": estimate(0.7, 0.02),
            "forgetting_last": estimate(0.15, 0.01) if last else none,
            "forgetting_max": estimate(0.16, 0.01) if last else none,
        },
        "transitions": [
            transition(i, replicas, measured=i < reached, classes=classes)
            for i in range(1, forecast)
        ],
        "phases": [phase(i, replicas) if i < reached else None for i in range(tasks)],
        "composed": {"tasks": reached, **phase(7, replicas)["transport"]}
        if case == "finished"
        else None,
        "scores": scores(reached * (reached - 1) // 2, classes=classes),
    }
    if not classes:
        made["accuracy"] = {"mean": None, "stderr": None, "replicas": []}
        empty = [[None] * tasks for _ in range(tasks)]
        made["forgetting"]["accuracy"] = {"last": empty, "max": empty}
        assert shown == "loss"
    if case == "refusals":
        _refuse(made)
    return made


def _refuse(made: Record) -> None:
    """Give every status but `ok` a place, each with a note of its own."""
    transport = made["phases"][0]["transport"]
    transport["log_volume"] = estimate(None, None, "not_defined", "NOTE-momentum-has-no-volume")
    transport["deviation_sq"] = estimate(5.0, None, "not_resolved", "NOTE-below-the-noise")
    made["phases"][1]["thermo"]["inefficiency_path"] = estimate(
        None, None, "diverged", "NOTE-thermo-diverged"
    )
    made["phases"][0]["thermo"]["loss_drop_ratio"] = estimate(
        -2.5, 0.5, "out_of_regime", "NOTE-steps-too-long"
    )
    first = made["transitions"][0]
    first["capacity"]["directions"] = estimate(900.0, 5.0, "not_converged", "NOTE-more-nodes")
    first["dimension"]["no_demand"] = True
    first["dimension"]["stable_rank"] = estimate(None, None, "not_defined", "NOTE-no-demand")
    second = made["transitions"][1]
    second["capacity"] = second["dimension"] = second["literal"] = None
    # As an older version of the library left it.
    for name in ("verdicts", "closures", "plasticity", "by_strategy"):
        del second[name]
    for old in second["old"]:
        old["forecast"] = None
    second["new"]["forecast"] = None


def path_costs(epoch: int, error: float | None) -> Record:
    """What the path of a task has cost up to an epoch; a single network has no lower bound."""
    values = {
        "action": 4.0 * epoch,
        "loss_drop": 0.4 * epoch,
        "displacement_sq": 0.5 * epoch,
        "w2_lower": 0.1 * epoch if error else None,
        "inefficiency_path": 1.0 + 0.8 * epoch,
        "loss_drop_ratio": 0.9 + 0.8 * epoch,
    }
    return {
        f"{name}{end}": None if not epoch or value is None else (error if end else value)
        for name, value in values.items()
        for end in ("", "_stderr")
    }


def metrics(case: str) -> list[Record]:
    """Rows of `metrics.jsonl`."""
    tasks = {"one_task": 1, "long": LONG}.get(case, 3)
    reached = {"diverged": 1, "interrupted": 2}.get(case, tasks)
    classes = case != "regression"
    error = None if case == "one_replica" else 0.01
    return [
        {
            "task": i,
            "epoch": epoch,
            "step": 40 * i + 10 * epoch,
            "learning_time": 4.0 * i + epoch,
            "lr": 0.1,
            "train_loss": 2.0 / (1 + epoch),
            "train_loss_stderr": error,
            "test_accuracy": [accuracy(i, j) - 0.02 * epoch * (j < i) for j in range(tasks)]
            if classes
            else None,
            "test_accuracy_stderr": [error] * tasks if classes else None,
            "test_loss": [loss(i, j) for j in range(tasks)],
            "test_loss_stderr": [error] * tasks,
            **(path_costs(epoch, error) if case != "refusals" else {}),
        }
        for i in range(reached)
        for epoch in range(5)
    ]


def write(folder: Path, case: str = "finished", **changes: Any) -> Path:
    """Write the run directory of a case.

    Args:
        folder: Where; it is made.
        case: One of `CASES`.
        **changes: Top-level fields of the recipe to change.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recipe = config.build(
        {"name": f"case {case}", "description": HOSTILE, **changes}, source="a test"
    )
    (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    env = {"packages": {"capacity": "0.1.0"}, "python": "3.11.7", "command": HOSTILE, "cpus": 2}
    message = {
        "diverged": "task 1 diverged at step 7: replica 2 is not finite",
        "interrupted": "Stopped by the user; what was measured is kept.",
        "stopped_early": "Stopped by the user; what was measured is kept.",
    }.get(case, "")
    state = {"stopped_early": "interrupted"}.get(case, case)
    status = {
        "state": state if message else "finished",
        "message": message,
        "started": "2030-01-01T00:00:00+00:00",
        "updated": "2030-01-01T00:01:00+00:00",
        "seconds": {"train": 1.5},
    }
    (folder / "env.json").write_text(json.dumps(env), encoding="utf-8")
    (folder / "status.json").write_text(json.dumps(status), encoding="utf-8")
    if case != "stopped_early":  # interrupted before the first task was learned
        record = result(recipe.model_dump(mode="json"), case)
        (folder / "result.json").write_text(json.dumps(record), encoding="utf-8")
    rows = [] if case == "stopped_early" else metrics(case)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
    return folder
