"""How good a predictor was: rank correlation, R^2 and error against what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from capacity.records.estimate import Estimate, Status, not_defined
from capacity.records.intervals import Z90

_FEW = 4


def spearman(predicted: Sequence[float], measured: Sequence[float]) -> Estimate:
    """Spearman's rank correlation with an approximate 90 % interval.

    The interval is Fisher's z with the variance 1.06/(n - 3) of ranks; it treats pairs as
    independent, which cells of one task sequence are not quite.

    Args:
        predicted: One prediction per cell.
        measured: One measurement per cell.

    Returns:
        The correlation; `not_defined` for fewer than four cells or a constant side.
    """
    n = len(predicted)
    if n < _FEW:
        return not_defined(
            f"{n} pair{'' if n == 1 else 's'}; a rank correlation needs at least {_FEW}."
        )
    if len(set(predicted)) < 2 or len(set(measured)) < 2:
        return not_defined("One side is constant, so it has no ranks.")
    rho = round(float(np.corrcoef(_ranks(predicted), _ranks(measured))[0, 1]), 12)  # 1 is 1
    # Two neighbours that swap ranks cost 12/(n(n^2 - 1)): a perfect order is known to half of that.
    finest = 1 - 6 / (n * (n**2 - 1))
    known = max(min(rho, finest), -finest)
    z, half = math.atanh(known), Z90 * math.sqrt(1.06 / (n - 3))
    low, high = math.tanh(z - half), math.tanh(z + half)
    return Estimate(
        value=rho,
        stderr=(1 - known**2) * math.sqrt(1.06 / (n - 3)),
        interval=(min(low, rho), max(high, rho)),
        status=Status.UNCALIBRATED,
        n=n,
        note="Pairs of one sequence are not independent; the interval treats them as if they were.",
    )


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    # scipy.stats has this, and takes a second to load; equal values get the mean of their ranks.
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: NDArray[np.float64] = np.cumsum(counts) - (counts - 1) / 2
    return means[where]


def r2(predicted: Sequence[float], measured: Sequence[float]) -> Estimate:
    """Share of the variance explained by the predictions as they are (no refit).

    Args:
        predicted: One prediction per cell.
        measured: One measurement per cell.

    Returns:
        1 - sum (m - p)^2 / sum (m - mean m)^2; negative when the mean predicts better.
    """
    m, p = np.asarray(measured, float), np.asarray(predicted, float)
    if len(m) < _FEW or float(np.ptp(m)) == 0:
        return not_defined(
            f"{len(m)} pairs with spread {np.ptp(m) if len(m) else 0:g}: too little."
        )
    value = 1 - float(((m - p) ** 2).sum() / ((m - m.mean()) ** 2).sum())
    return Estimate(value=value, n=len(m))


def mean_error(predicted: Sequence[float], measured: Sequence[float]) -> Estimate:
    """Mean absolute difference of predictions and measurements.

    Args:
        predicted: One prediction per cell.
        measured: One measurement per cell.

    Returns:
        The mean with its standard error; `not_defined` without a cell.
    """
    if not predicted:
        return not_defined("No pair of forecast and measurement.")
    error = np.abs(np.asarray(predicted, float) - np.asarray(measured, float))
    n = len(error)
    stderr = float(error.std(ddof=1) / math.sqrt(n)) if n > 1 else None
    return Estimate(value=float(error.mean()), stderr=stderr, n=n)
