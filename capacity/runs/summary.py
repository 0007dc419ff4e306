"""From scores per task and replica to the matrices, forgettings and scores of `result.json`."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capacity.forecasting.scores import mean_error, r2, spearman
from capacity.predictors.registry import run_controls
from capacity.records.estimate import Estimate, from_samples, not_defined
from capacity.records.plain import plain

Matrix = NDArray[np.float64]
"""Scores (learned tasks, tasks, replicas): [i, j] on task j after training task i."""


def matrix(scores: Matrix, n_tasks: int) -> dict[str, Any]:
    """Write a score matrix with its spread over replicas.

    Args:
        scores: Scores of the learned tasks (rows may be fewer than `n_tasks`).
        n_tasks: Tasks of the sequence; unreached rows are null.

    Returns:
        mean, stderr and replicas, as the schema has them; each null where nothing is defined.
    """
    if scores.size and np.isnan(scores).all():
        return {"mean": None, "stderr": None, "replicas": None}
    replicas = scores.shape[2]
    rest = [[None] * n_tasks for _ in range(n_tasks - len(scores))]

    def plain(values: Matrix) -> list[list[float | None]]:
        return [[v if math.isfinite(v) else None for v in row] for row in values.tolist()]

    stderr = (
        plain(scores.std(axis=2, ddof=1) / math.sqrt(replicas)) + rest
        if replicas > 1
        else [[None] * n_tasks for _ in range(n_tasks)]
    )
    return {
        "mean": plain(scores.mean(axis=2)) + rest,
        "stderr": stderr,
        "replicas": [plain(scores[:, :, r]) + rest for r in range(replicas)],
    }


def forgetting(scores: Matrix, *, sign: int) -> dict[str, NDArray[np.float64]]:
    """Compute both forgettings of every earlier task, per replica (theory.md#forgetting).

    Args:
        scores: Scores (learned tasks, tasks, replicas).
        sign: 1 where more is better (accuracy), -1 where less is better (loss).

    Returns:
        `last` and `max`, arrays (learned, tasks, replicas); NaN for j >= i.
    """
    learned, n_tasks, _ = scores.shape
    row, column = np.arange(learned)[:, None, None], np.arange(n_tasks)[None, :, None]
    earlier = column < row
    good = sign * scores
    # A task counts from when it was learned: nothing before that is its best.
    # A score that was not taken, NaN, is no best either.
    since = np.fmax.accumulate(np.where(column <= row, good, -np.inf), axis=0)
    own, k = np.zeros(scores.shape[1:]), np.arange(min(learned, n_tasks))
    own[k] = good[k, k]
    last, best = np.full_like(scores, np.nan), np.full_like(scores, np.nan)
    np.subtract(own, good, out=last, where=earlier)
    np.subtract(since, good, out=best, where=earlier)
    return {"last": last, "max": best}


def forgetting_row(
    values: NDArray[np.float64], i: int, scored: Collection[int]
) -> list[dict[str, Any] | None]:
    """Write what was forgotten when a task was learned as estimates.

    Args:
        values: `last` or `max`, as `forgetting` gives them.
        i: The learned task.
        scored: The tasks that were scored after it.

    Returns:
        [j] an estimate, or null where task j is not an earlier one, or was not scored.
    """
    return [
        from_samples(cell).to_dict() if j < i and j in scored else None
        for j, cell in enumerate(values[i].tolist())
    ]


def final(
    accuracy: Matrix, loss: Matrix, scored: Collection[int] | None = None
) -> dict[str, Any] | None:
    """Average over tasks after the last learned one.

    Args:
        accuracy: Accuracy matrix; NaN for regression.
        loss: Loss matrix.
        scored: The tasks that were scored then; None for all.

    Returns:
        Mean accuracy and loss over the tasks learned so far, and the mean forgettings over the
        earlier ones, of those that were scored; null before the first task is learned.
    """
    learned = len(loss)
    if learned == 0:
        return None
    known = range(accuracy.shape[1]) if scored is None else sorted(scored)
    classifies = not np.isnan(accuracy[-1, known]).any()
    now = [j for j in known if j < learned]
    earlier = [j for j in now if j < learned - 1]
    source, sign = (accuracy, 1) if classifies else (loss, -1)
    record = {
        "accuracy": _mean(accuracy[-1, now])
        if classifies
        else not_defined("Accuracy is not defined for regression."),
        "loss": _mean(loss[-1, now]),
    }
    for kind, values in forgetting(source, sign=sign).items():
        record[f"forgetting_{kind}"] = (
            _mean(values[-1, earlier])
            if earlier
            else not_defined("There is no earlier task to forget.")
        )
    return {name: plain(estimate) for name, estimate in record.items()}


def scores(
    transitions: Sequence[Mapping[str, Any]], accuracy: Matrix | None = None
) -> dict[str, Any]:
    """Hold forecasts, simpler predictors and guesses against what was measured.

    Args:
        transitions: The transitions of the result.
        accuracy: Accuracies of the learned tasks, as `matrix` takes them; NaN, or None, where there
            are none.

    Returns:
        The `scores` entry of the result.
    """
    record: dict[str, Any] = {"pairs": 0, "controls": {}}
    for target in ("accuracy_drop", "loss_increase"):
        pairs = [
            (cell["forecast"][target]["value"], cell["measured"][target]["value"])
            for transition in transitions
            for cell in transition["old"]
            if cell["forecast"] is not None and cell["measured"] is not None
        ]
        pairs = [(p, m) for p, m in pairs if p is not None and m is not None]
        predicted, measured = [p for p, _ in pairs], [m for _, m in pairs]
        record["pairs"] = max(record["pairs"], len(pairs))
        record[target] = plain({
            "spearman": spearman(predicted, measured),
            "r2": r2(predicted, measured),
            "mean_error": mean_error(predicted, measured),
        })
        for name in (*run_controls(), *_MEASURED):
            cells = [
                (_control(name, transition, cell, target), cell["measured"][target]["value"])
                for transition in transitions
                for cell in transition["old"]
                if cell["measured"] is not None
            ]
            known = [(p, m) for p, m in cells if p is not None and m is not None]
            rank = spearman([p for p, _ in known], [m for _, m in known])
            record["controls"].setdefault(name, {})[target] = rank.to_dict()
    record["guesses"] = _guesses(transitions, accuracy)
    return record


def _guesses(
    transitions: Sequence[Mapping[str, Any]], accuracy: Matrix | None
) -> dict[str, dict[str, Any]]:
    """Hold what anybody could say against what was measured: that all is lost, or nothing."""
    pairs = [
        (transition, cell)
        for transition in transitions
        for cell in transition["old"]
        if cell["measured"] is not None
    ]
    made: dict[str, dict[str, Any]] = {"everything_lost": {}, "nothing_lost": {}}
    for target in ("accuracy_drop", "loss_increase"):
        known = [pair for pair in pairs if pair[1]["measured"][target]["value"] is not None]
        came = [cell["measured"][target]["value"] for _, cell in known]
        made["nothing_lost"][target] = mean_error([0.0] * len(came), came).to_dict()
        if target == "accuracy_drop" and known and accuracy is not None:
            before = [float(accuracy[t["task"] - 1, cell["task"]].mean()) for t, cell in known]
            made["everything_lost"][target] = mean_error(before, came).to_dict()
    return made


def _control(
    name: str, transition: Mapping[str, Any], cell: Mapping[str, Any], target: str
) -> float | None:
    """Read what a simpler predictor says of one old task: its own number, or that of all."""
    own = cell.get("controls", {}).get(name)
    if own is not None:
        return own[target]["value"]
    return _value(transition, *_MEASURED.get(name, ("controls", name)))


def _value(transition: Mapping[str, Any], section: str, name: str) -> float | None:
    part = transition[section]
    return None if part is None or name not in part else part[name]["value"]


_MEASURED = {
    "dimension_stable_rank": ("dimension", "stable_rank"),
    "capacity_directions": ("capacity", "directions"),
}
"""What is measured anyway, taken as a predictor."""


def _mean(values: NDArray[np.float64]) -> Estimate:
    """Average over tasks, then spread over replicas."""
    return from_samples(values.mean(axis=0).tolist())
