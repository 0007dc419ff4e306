"""A learned correction of forecasts, and the trial that it must pass before it is used.

The physics forecasts; a small regression learns from earlier transitions what is left of the error.
It is used only where it beats the physics alone on what it has not seen: pairs of tasks, kinds of
data and architectures, each left out in turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

FOLDS = 10
"""Most folds of a cross-validation over groups."""

FEATURES = (
    "drop", "rise", "new_accuracy", "new_loss", "drop_half", "rise_half", "steps", "parameters",
    "momentum", "adam",
)  # fmt: skip
"""What a correction may look at: what the forecast says, and the plan."""

CANDIDATES: dict[str, Callable[[str], RegressorMixin]] = {
    "line": lambda quantity: make_pipeline(
        ColumnTransformer([("own", StandardScaler(), [FEATURES.index(quantity)])]), Ridge(alpha=3.0)
    ),
    "ridge": lambda _: make_pipeline(StandardScaler(), Ridge(alpha=30.0)),
    "quadratic": lambda _: make_pipeline(
        StandardScaler(), PolynomialFeatures(2, include_bias=False), Ridge(alpha=30.0)
    ),
    "boosting": lambda _: GradientBoostingRegressor(
        n_estimators=100, max_depth=2, learning_rate=0.05, subsample=0.7, random_state=0
    ),
}
"""Regressions that may stand for a trial, by name; each is built for a quantity."""

_HEAVY = frozenset({"rise", "rise_half", "new_loss"})
"""What has a heavy tail: a loss grows without bound where a class is lost."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How a correction did on what it had not seen.

    Attributes:
        used: Name of the candidate that is used; None where the physics alone stays.
        errors: Root mean square errors by kind of groups, then by name; `physics` among them.
    """

    used: str | None
    errors: dict[str, dict[str, float]]


def features(said: Mapping[str, Any]) -> list[float]:
    """Lay a forecast out as a row.

    Args:
        said: The forecast's numbers by name, `steps`, `parameters` and `optimizer` of the plan.

    Returns:
        One number per name of `FEATURES`.
    """
    plan = {
        "steps": math.log10(said["steps"]),
        "parameters": math.log10(said["parameters"]),
        "momentum": float(said["optimizer"] == "momentum"),
        "adam": float(said["optimizer"] == "adam"),
    }
    numbers = [plan[name] if name in plan else float(said[name]) for name in FEATURES]
    return [
        math.asinh(number) if name in _HEAVY else number
        for name, number in zip(FEATURES, numbers, strict=True)
    ]


def residual(
    quantity: str, physics: NDArray[np.float64], measured: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Say what a correction should have been, on asinh's scale where there is a heavy tail.

    Args:
        quantity: What is forecast.
        physics: Forecasts (n,).
        measured: What came (n,).

    Returns:
        Corrections (n,).
    """
    if quantity in _HEAVY:
        return np.arcsinh(measured) - np.arcsinh(physics)
    return measured - physics


def corrected(
    quantity: str, physics: NDArray[np.float64], correction: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Correct forecasts.

    Args:
        quantity: What is forecast.
        physics: Forecasts (n,).
        correction: Corrections (n,), as `residual` gives them.

    Returns:
        Forecasts in the quantity's own unit (n,).
    """
    if quantity in _HEAVY:
        return np.sinh(np.arcsinh(physics) + correction)
    return physics + correction


def attempt(
    quantity: str,
    rows: NDArray[np.float64],
    physics: NDArray[np.float64],
    measured: NDArray[np.float64],
    groupings: Mapping[str, Sequence[object]],
) -> Trial:
    """Try every candidate on what it has not seen.

    Args:
        quantity: What is forecast, one of `FEATURES`. Errors count in its own unit.
        rows: Features (n, len(FEATURES)).
        physics: Forecasts (n,).
        measured: What came (n,).
        groupings: Group of every row by kind of groups; each group is left out as a whole.

    Returns:
        The trial: used is the candidate that errs less than the physics for *every* kind of groups,
        and of several the one whose least gain is the largest.

    Raises:
        ValueError: If a kind of groups has fewer than two.
    """
    errors: dict[str, dict[str, float]] = {}
    for kind, groups in groupings.items():
        if len(set(groups)) < 2:
            raise ValueError(f"groupings: {kind!r} has a single group; give at least two")
        errors[kind] = {"physics": _root(measured - physics)}
        for name in CANDIDATES:
            wanted = residual(quantity, physics, measured)
            more = left_out(name, quantity, rows, wanted, groups)
            errors[kind][name] = _root(measured - corrected(quantity, physics, more))
    worst = {
        name: max(found[name] / max(found["physics"], 1e-300) for found in errors.values())
        for name in CANDIDATES
    }
    best = min(worst, key=lambda name: worst[name])
    return Trial(used=best if worst[best] < 1 else None, errors=errors)


def left_out(
    name: str,
    quantity: str,
    rows: NDArray[np.float64],
    wanted: NDArray[np.float64],
    groups: Sequence[object],
) -> NDArray[np.float64]:
    """Correct every row by a regression that has not seen its group.

    Args:
        name: Key of `CANDIDATES`.
        quantity: What is forecast.
        rows: Features (n, len(FEATURES)).
        wanted: What corrections should have been (n,).
        groups: Group of every row.

    Returns:
        Corrections (n,).
    """
    codes = np.unique([str(group) for group in groups], return_inverse=True)[1]
    count = int(codes.max()) + 1
    split = LeaveOneGroupOut() if count <= FOLDS else GroupKFold(FOLDS)
    made = np.zeros(len(rows))
    for seen, unseen in split.split(rows, wanted, codes):
        model = CANDIDATES[name](quantity).fit(rows[seen], wanted[seen])
        made[unseen] = model.predict(rows[unseen])
    return made


def _root(error: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(error**2)))
