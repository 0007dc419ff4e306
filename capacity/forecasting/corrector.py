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
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor, VotingRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FOLDS = 10
"""Most folds of a cross-validation over groups."""

FEATURES = (
    "drop", "rise", "new_accuracy", "new_loss", "drop_half", "rise_half", "old_accuracy",
    "old_loss", "steps", "samples", "learning_time", "parameters", "forecast_steps",
    "forecast_batch", "displacement", "wander", "first_gradient", "largest_gradient",
    "last_gradient", "new_loss_before", "momentum", "adam",
)  # fmt: skip
"""What a correction may look at: what the forecast says and where it starts, the plan, and how the
forecast was made. A strategy's name comes on top of them."""

_OPTIMIZERS = {"momentum": {"momentum"}, "adam": {"adam", "adamw"}}
"""Which optimisers these two features stand for."""
KEPT = tuple(name for name in FEATURES if name not in _OPTIMIZERS)
"""Those that a corpus keeps under the same name: the others tell its `optimizer`."""


class LevelTrees(RegressorMixin, BaseEstimator):
    """Trees that learn what is measured itself, and correct by what they say beyond the physics.

    Where the physics is far off they do not follow it, as trees for its error do.

    Args:
        quantity: What is forecast.
    """

    def __init__(self, quantity: str = "drop") -> None:
        self.quantity = quantity

    def fit(self, X: NDArray[np.float64], y: NDArray[np.float64]) -> LevelTrees:
        """Fit.

        Args:
            X: Rows as `features` lays them out.
            y: Corrections, as `residual` gives them.

        Returns:
            Itself.
        """
        self.trees_ = _trees().fit(X, y + self._physics(X))
        return self

    def predict(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Correct.

        Args:
            X: Rows as `features` lays them out.

        Returns:
            Corrections, as `residual` gives them.
        """
        return self.trees_.predict(X) - self._physics(X)

    def _physics(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        own = np.asarray(X)[:, FEATURES.index(self.quantity)]
        if self.quantity in _HEAVY:
            return own
        scale, _ = _scale(self.quantity)
        return scale(10**own - _SMALLEST if self.quantity in _LOGARITHMIC else own)


def _trees() -> ExtraTreesRegressor:
    # As few as do: they are fitted when a forecast is first corrected.
    return ExtraTreesRegressor(50, min_samples_leaf=2, max_features=0.7, random_state=0)


_PARTS = {"both": ("trees", "levels"), "blend": ("trees", "levels", "boosting")}
"""Means of several candidates."""


def _mean_of(name: str) -> Callable[[str], RegressorMixin]:
    return lambda quantity: VotingRegressor([
        (part, CANDIDATES[part](quantity)) for part in _PARTS[name]
    ])


CANDIDATES: dict[str, Callable[[str], RegressorMixin]] = {
    "line": lambda quantity: make_pipeline(
        ColumnTransformer([("own", StandardScaler(), [FEATURES.index(quantity)])]), Ridge(alpha=3.0)
    ),
    "ridge": lambda _: make_pipeline(StandardScaler(), Ridge(alpha=30.0)),
    "boosting": lambda _: GradientBoostingRegressor(
        n_estimators=100, max_depth=2, learning_rate=0.05, subsample=0.7, random_state=0
    ),
    "trees": lambda _: _trees(),
    "levels": LevelTrees,
    **{name: _mean_of(name) for name in _PARTS},
}
"""Regressions that may stand for a trial, by name; each is built for a quantity."""

_HEAVY = frozenset({"rise", "rise_half", "old_loss"})
"""What has a heavy tail: a loss grows without bound where a class is lost."""
_LOGARITHMIC = frozenset({
    "new_loss", "steps", "samples", "learning_time", "parameters", "forecast_steps",
    "forecast_batch", "displacement", "wander", "first_gradient", "largest_gradient",
    "last_gradient", "new_loss_before",
})  # fmt: skip
_SMALLEST = 1e-2
"""Added before a logarithm."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How a correction did on what it had not seen.

    Attributes:
        used: Name of the candidate that is used; None where the physics alone stays.
        errors: Root mean square errors by part and kind of groups, then by name; `physics` among
            them. On the scale of `residual`: in a loss's own unit a few cells would decide alone.
    """

    used: str | None
    errors: dict[tuple[str, str], dict[str, float]]


def features(said: Mapping[str, Any], strategies: Sequence[str] = ()) -> list[float]:
    """Lay a forecast out as a row.

    Args:
        said: The forecast's numbers and the plan's by name; `optimizer` and `strategy` among them.
        strategies: Strategies to tell apart.

    Returns:
        One number per name of `FEATURES`, then one per strategy.
    """
    made = []
    for name in FEATURES:
        if name in _OPTIMIZERS:
            made.append(float(said["optimizer"] in _OPTIMIZERS[name]))
        elif name in _LOGARITHMIC:
            made.append(math.log10(max(float(said[name]), 0.0) + _SMALLEST))
        else:
            number = float(said[name])
            made.append(math.asinh(number) if name in _HEAVY else number)
    return made + [float(said["strategy"] == name) for name in strategies]


def residual(
    quantity: str, physics: NDArray[np.float64], measured: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Say what a correction should have been, on the scale on which errors are alike.

    That is asinh's for losses, which have a heavy tail, and the root's for a drop, where one point
    more matters most near none.

    Args:
        quantity: What is forecast.
        physics: Forecasts (n,).
        measured: What came (n,).

    Returns:
        Corrections (n,).
    """
    scale, _ = _scale(quantity)
    return scale(measured) - scale(physics)


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
    scale, back = _scale(quantity)
    return back(scale(physics) + correction)


_Scale = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def _scale(quantity: str) -> tuple[_Scale, _Scale]:
    if quantity in {"rise", "new_loss"}:
        return np.arcsinh, np.sinh
    if quantity == "drop":
        return lambda x: np.sign(x) * np.sqrt(np.abs(x)), lambda x: np.sign(x) * x**2
    return lambda x: x, lambda x: x


def attempt(
    quantity: str,
    rows: NDArray[np.float64],
    physics: NDArray[np.float64],
    measured: NDArray[np.float64],
    groupings: Mapping[str, Sequence[object]],
    parts: Sequence[str] | None = None,
) -> Trial:
    """Try every candidate on what it has not seen.

    Args:
        quantity: What is forecast, one of `FEATURES`.
        rows: Features (n, len(FEATURES) or more).
        physics: Forecasts (n,).
        measured: What came (n,).
        groupings: Group of every row by kind of groups; each group is left out as a whole.
        parts: Part of every row: errors are counted in each part; None counts them together.

    Returns:
        The trial: used is a candidate that errs less than the physics in *every* part and for
        *every* kind of groups, and of several the one that errs least compared with it, on average
        over these.

    Raises:
        ValueError: If a kind of groups has fewer than two.
    """
    errors: dict[tuple[str, str], dict[str, float]] = {}
    wanted = residual(quantity, physics, measured)
    part_of = np.array(["all"] * len(rows) if parts is None else parts)
    for kind, groups in groupings.items():
        if len(set(groups)) < 2:
            raise ValueError(f"groupings: {kind!r} has a single group; give at least two")
        more = {"physics": np.zeros(len(rows))}
        for name in CANDIDATES:
            means = [more[one] for one in _PARTS.get(name, ())]
            more[name] = (
                np.mean(means, axis=0) if means else left_out(name, quantity, rows, wanted, groups)
            )
        for part in dict.fromkeys(part_of.tolist()):
            own = part_of == part
            errors[part, kind] = {name: _root((wanted - m)[own]) for name, m in more.items()}
    ratios = {
        name: [found[name] / max(found["physics"], 1e-300) for found in errors.values()]
        for name in CANDIDATES
    }
    good = [name for name, each in ratios.items() if max(each) < 1]
    best = min(good, key=lambda name: sum(ratios[name]), default=None)
    return Trial(used=best, errors=errors)


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
        rows: Features (n, len(FEATURES) or more).
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
