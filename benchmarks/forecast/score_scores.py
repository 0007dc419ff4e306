"""Scores of `score.py`: one number for a predictor over cells, and its bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from criterion_scores import FORGETS, auroc, bootstrap, rank_correlation

_UNKNOWN = (math.nan, math.nan)

Score = Callable[[np.ndarray, np.ndarray], float]
"""Of what was said and what was measured."""


def r_squared(said: np.ndarray, measured: np.ndarray) -> float:
    """Share of the variance explained by forecasts as they are, without a refit.

    Args:
        said: Forecasts.
        measured: Measurements.

    Returns:
        1 - squared error / variance; NaN for constant measurements.
    """
    spread = float(((measured - measured.mean()) ** 2).sum()) if len(measured) > 2 else 0.0
    return 1 - float(((measured - said) ** 2).sum()) / spread if spread else math.nan


def forgets(said: np.ndarray, measured: np.ndarray) -> float:
    """AUROC for a drop of more than five points.

    Args:
        said: Forecasts of the drop.
        measured: Measured drops.

    Returns:
        The area; NaN where all or none forget.
    """
    return auroc(said, measured > FORGETS)


@dataclass(frozen=True)
class Kind:
    """A kind of score.

    Attributes:
        name: For people.
        quantity: `drop` or `rise`.
        of: The score.
        fitted: Whether a number without unit needs a line first.
    """

    name: str
    quantity: str
    of: Score
    fitted: bool = False


KINDS = (
    Kind("R2 drop", "drop", r_squared, fitted=True),
    Kind("R2 rise", "rise", r_squared, fitted=True),
    Kind("rank drop", "drop", rank_correlation),
    Kind("rank rise", "rise", rank_correlation),
    Kind("AUROC", "drop", forgets),
)


def line(said: np.ndarray, measured: np.ndarray) -> tuple[float, float]:
    """Fit a line where there is something to fit.

    Args:
        said: Numbers without unit.
        measured: Measurements.

    Returns:
        Slope and offset.
    """
    good = np.isfinite(said) & np.isfinite(measured)
    if good.sum() < 3 or np.ptp(said[good]) == 0:
        return 0.0, float(measured[good].mean()) if good.any() else math.nan
    slope, offset = np.polyfit(said[good], measured[good], 1)
    return float(slope), float(offset)


def scored(
    cells: Sequence[dict], said: np.ndarray, kind: Kind, *, intervals: bool = True
) -> tuple[int, float, tuple[float, float]]:
    """Score a predictor where it says something.

    Args:
        cells: The cells.
        said: One number per cell, NaN where there is none.
        kind: The kind of score.
        intervals: Whether to draw the bootstrap.

    Returns:
        Cells scored, the score, and its 95 % interval over whole pairs of tasks.
    """
    have = np.flatnonzero(np.isfinite(said))
    some, own = [cells[i] for i in have], said[have]
    measured = np.array([cell[kind.quantity] for cell in some])
    value = kind.of(own, measured) if len(have) > 2 else math.nan
    ends = _UNKNOWN
    if intervals and math.isfinite(value):
        ends = bootstrap(some, lambda i: kind.of(own[i], measured[i]))
    return len(have), value, ends


def difference(
    cells: Sequence[dict], ours: np.ndarray, theirs: np.ndarray, kind: Kind
) -> tuple[int, float, tuple[float, float]]:
    """Compare two predictors on the cells of which both say something, drawn together.

    Args:
        cells: The cells.
        ours: One number per cell.
        theirs: The same of the other.
        kind: The kind of score.

    Returns:
        Cells compared, ours minus theirs, and its 95 % interval over whole pairs of tasks.
    """
    have = np.flatnonzero(np.isfinite(ours) & np.isfinite(theirs))
    some, a, b = [cells[i] for i in have], ours[have], theirs[have]
    measured = np.array([cell[kind.quantity] for cell in some])

    def apart(i: np.ndarray) -> float:
        return kind.of(a[i], measured[i]) - kind.of(b[i], measured[i])

    value = apart(np.arange(len(have))) if len(have) > 2 else math.nan
    return len(have), value, bootstrap(some, apart) if math.isfinite(value) else _UNKNOWN


def coverage(inside: np.ndarray, cells: Sequence[dict]) -> tuple[float, tuple[float, float]]:
    """Share of cells inside their intervals.

    Args:
        inside: Which are.
        cells: The cells.

    Returns:
        The share and its 95 % interval over whole pairs of tasks.
    """
    return float(inside.mean()), bootstrap(cells, lambda i: float(inside[i].mean()))


def naming(cells: Sequence[dict], pick: Callable[[dict], str | None]) -> tuple[int, float, float]:
    """Say how well the best strategy is named.

    Args:
        cells: Cells with strategies.
        pick: Names one, or None.

    Returns:
        Cells, the share in which the best one is named or one within two points of it, and the mean
        of what is given away, in points.
    """
    good, lost = [], []
    for cell in cells:
        measured = {n: -1.0 if v is None else v for n, v in cell["strategies"].items()}
        named = pick(cell)
        away = max(measured.values()) - measured.get(named or "", 0.0)
        good.append(away <= 0.02 + 1e-9)
        lost.append(100 * away)
    return len(good), float(np.mean(good)), float(np.mean(lost))
