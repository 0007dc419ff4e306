"""Intervals with a known coverage, from errors that earlier forecasts made: split-conformal.

An error is divided by what is expected of it (`difficulty`), and the quantile of the ratios on
earlier transitions stretches the expected error of a new forecast (normalised conformal, as in Lei
et al. 2018). Transitions of one pair of tasks resemble each other, so every *pair* has one vote,
however many transitions it has: the pooled distribution of Dunn, Wasserman & Ramdas (2022), which
covers a further, unseen pair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

_SHARE = 0.1
"""Where the search for b begins."""
_SMALLEST = 1e-4


class GroupedConformal(RegressorMixin, BaseEstimator):
    """Conformal intervals around predictions that are already made, grouped.

    A row of X is a prediction, the half-width that its maker gives it, and what else may tell how
    hard it is (z). The expected error is s = sqrt(half^2 + a^2 + (b prediction)^2) exp(c z), with
    a, b and c those under which the errors of the calibration rows are likeliest (Laplace).

    Attributes:
        floor_: a, in the unit of the prediction.
        share_: b.
        slopes_: c, one per further column.
        scores_: Errors over s of the calibration rows, ascending.
        weights_: Their weights; every group's sum to one.
        groups_: Number of groups.
    """

    floor_: float
    share_: float
    slopes_: NDArray[np.float64]
    scores_: NDArray[np.float64]
    weights_: NDArray[np.float64]
    groups_: int

    def fit(
        self, X: ArrayLike, y: ArrayLike, groups: Sequence[object] | None = None
    ) -> GroupedConformal:
        """Calibrate.

        Args:
            X: Predictions, half-widths and what else there is (n, 2 or more).
            y: What was measured (n,).
            groups: Group of every row; None takes every row as one of its own.

        Returns:
            Itself.

        Raises:
            ValueError: If the shapes do not fit, or a number is not finite.
        """
        rows, measured = _rows(X), np.asarray(y, float)
        if measured.shape != (len(rows),) or not np.isfinite(measured).all():
            raise ValueError(
                f"y has shape {measured.shape}, X {rows.shape}; pass one finite number per row"
            )
        names: list[object] = list(range(len(rows)) if groups is None else groups)
        if len(names) != len(rows):
            raise ValueError(f"groups has {len(names)} entries for {len(rows)} rows; give one each")
        error = np.abs(measured - rows[:, 0])
        self.floor_, self.share_, self.slopes_ = _likeliest(rows, error)
        members = {name: names.count(name) for name in names}
        scores = error / self.difficulty(rows)
        order = np.argsort(scores)
        self.scores_ = scores[order]
        self.weights_ = np.array([1.0 / members[names[k]] for k in order])
        self.groups_ = len(members)
        return self

    def difficulty(self, X: ArrayLike) -> NDArray[np.float64]:
        """Say what error is expected.

        Args:
            X: Rows as for `fit`.

        Returns:
            s (n,), above 0.
        """
        check_is_fitted(self, "share_")
        rows = _rows(X)
        inner = rows[:, 1] ** 2 + self.floor_**2 + (self.share_ * rows[:, 0]) ** 2
        return np.maximum(np.sqrt(inner) * np.exp(rows[:, 2:] @ self.slopes_), _SMALLEST)

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Give the predictions back.

        Args:
            X: Rows as for `fit`.

        Returns:
            The predictions (n,).
        """
        return _rows(X)[:, 0]

    def stretch(self, level: float) -> float:
        """Find how far an error may be beyond what is expected.

        Args:
            level: Coverage, in (0, 1).

        Returns:
            The quantile of the scores, a group more at infinity counted in; infinite where there
            are too few groups for the level.
        """
        check_is_fitted(self, "scores_")
        reached = np.cumsum(self.weights_) / (self.groups_ + 1)
        place = int(np.searchsorted(reached, level - 1e-12))
        return float(self.scores_[place]) if place < len(self.scores_) else math.inf

    def predict_interval(self, X: ArrayLike, level: float = 0.9) -> NDArray[np.float64]:
        """Give an interval to every prediction.

        Args:
            X: Rows as for `fit`.
            level: Coverage, in (0, 1).

        Returns:
            Lower and upper ends (n, 2); infinite where there are too few groups for the level.
        """
        half = self.stretch(level) * self.difficulty(X)
        return np.stack([self.predict(X) - half, self.predict(X) + half], axis=1)


def _rows(X: ArrayLike) -> NDArray[np.float64]:
    rows = np.asarray(X, float)
    if rows.ndim != 2 or rows.shape[1] < 2 or not np.isfinite(rows).all():
        raise ValueError(
            f"X has shape {rows.shape}; pass finite predictions and half-widths (n, 2 or more)"
        )
    return rows


def _likeliest(
    rows: NDArray[np.float64], error: NDArray[np.float64]
) -> tuple[float, float, NDArray[np.float64]]:
    """Floor, share and slopes of the expected error under which the errors are likeliest."""
    spread = max(float(error.mean()), _SMALLEST)
    middle = rows[:, 2:].mean(0)

    def surprise(asked: NDArray[np.float64]) -> float:
        floor, share, width = np.exp(asked[:3])
        inner = (width * rows[:, 1]) ** 2 + (floor * spread) ** 2 + (share * rows[:, 0]) ** 2
        s = np.sqrt(inner) * np.exp((rows[:, 2:] - middle) @ asked[3:])
        s = np.maximum(s, _SMALLEST)
        return float((np.log(s) + error / s).mean()) + 1e-3 * float((asked**2).mean())

    begin = np.concatenate([np.log([1.0, _SHARE, 1.0]), np.zeros(rows.shape[1] - 2)])
    found = minimize(surprise, begin, method="Nelder-Mead", options={"maxiter": 4000})
    floor, share, width = np.exp(found.x[:3])
    # The common scale is the stretch's business: only ratios to the half-width count.
    return float(floor * spread / width), float(share / width), found.x[3:]
