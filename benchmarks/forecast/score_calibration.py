"""Intervals of `score.py`: how often they cover, bare and calibrated on the corpus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from score_cells import ENGINE
from score_scores import coverage

from capacity.forecasting.corpus import PLAIN, conformal_row
from capacity.forecasting.quantities import QUANTITIES
from capacity.forecasting.shipped import shipped

LEVELS = (0.5, 0.7, 0.8, 0.9, 0.95)


def intervals(cells: Sequence[dict], name: str, level: float) -> np.ndarray:
    """Give the calibrated intervals of forecasts, as `capacity.forecast` gives them.

    Args:
        cells: Cells of which the engine said something, with an interval.
        name: The quantity.
        level: Nominal coverage.

    Returns:
        Lower and upper ends (n, 2).

    Raises:
        ValueError: If the package has no corpus.
    """
    corpus = shipped()
    if corpus is None:
        raise ValueError("the package has no corpus; build it with corpus.py --save")
    said = [cell["said"][ENGINE] for cell in cells]
    model = corpus.conformal(name, PLAIN)
    inputs = [
        conformal_row(value, one[f"{name}_half"], cell["steps"])
        for value, one, cell in zip(corpus.corrected(name, said), said, cells, strict=True)
    ]
    return model.predict_interval(inputs, level)


def usable(cells: Sequence[dict], name: str) -> list[dict]:
    """List the cells of which the engine gives a quantity with an interval.

    Args:
        cells: The cells.
        name: The quantity.

    Returns:
        Those cells.
    """
    said = [cell["said"].get(ENGINE, {}) for cell in cells]
    return [
        cell
        for cell, one in zip(cells, said, strict=True)
        if one.get(name) is not None and one.get(f"{name}_half") is not None
    ]


def inside(cells: Sequence[dict], name: str, level: float) -> np.ndarray:
    """Say which measurements lie inside their calibrated intervals.

    Args:
        cells: Usable cells.
        name: The quantity.
        level: Nominal coverage.

    Returns:
        Booleans (n,).
    """
    ends = intervals(cells, name, level)
    measured = np.array([cell[name] for cell in cells])
    return (ends[:, 0] <= measured) & (measured <= ends[:, 1])


def covered(cells: Sequence[dict], name: str, level: float = 0.9) -> float | None:
    """Share of cells inside their calibrated intervals.

    Args:
        cells: The cells.
        name: The quantity.
        level: Nominal coverage.

    Returns:
        The share; None without a corpus or a cell.
    """
    some = usable(cells, name)
    return float(inside(some, name, level).mean()) if shipped() and some else None


def calibration_lines(cells: Sequence[dict]) -> Iterator[str]:
    """Write how often intervals cover, by quantity and level.

    Args:
        cells: The cells.

    Yields:
        Lines.
    """
    head = "".join(f"{f'{100 * level:.0f} %':>8}" for level in LEVELS)
    yield f"{'Intervals cover':<16}{'bare 90 %':>10}{head}{'of 90 %':>20}{'width':>8}"
    for name in QUANTITIES:
        some = usable(cells, name)
        if not some:
            continue
        said = [cell["said"][ENGINE] for cell in some]
        off = np.array([abs(s[name] - c[name]) for s, c in zip(said, some, strict=True)])
        half = np.array([one[f"{name}_half"] for one in said])
        text = f"{name:<16}{float((off <= half).mean()):>10.3f}"
        if shipped() is None:
            yield f"{text}   (no corpus)"
            continue
        shares = [coverage(inside(some, name, level), some)[0] for level in LEVELS]
        text += "".join(f"{share:>8.3f}" for share in shares)
        _, (low, high) = coverage(inside(some, name, 0.9), some)
        width = float(np.median(np.diff(intervals(some, name, 0.9), axis=1)))
        yield f"{text}{f'[{low:.3f}, {high:.3f}]':>20}{width:>8.3f}"
    yield "bare: the engine's own; then conformal, fitted on the development half; median width."
