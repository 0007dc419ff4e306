"""Estimates as entries of tables and words of sentences."""

from __future__ import annotations

from dataclasses import dataclass, replace

from capacity.records.estimate import Estimate
from capacity.records.numbers import MISSING, Bounds, clip, fixed, number, with_error, with_interval

POINTS = (-100.0, 100.0)
PERCENT = (0.0, 100.0)


@dataclass(frozen=True)
class Cell:
    """One entry of a table, or one number in a sentence.

    Attributes:
        text: What is printed.
        status: Words for a status that must be seen beside the value; empty for `ok`.
        note: The note of the estimate, for the footnotes and the hover title.
        numeric: Whether the entry is right-aligned with tabular digits.
        header: Whether the entry names its row.
        light: `good`, `warn`, `bad` or `off` for a light before the words; empty for none.
        small: A second line in small print, as an interval.
    """

    text: str
    status: str = ""
    note: str = ""
    numeric: bool = True
    header: bool = False
    light: str = ""
    small: str = ""


def text_cell(text: str, *, note: str = "") -> Cell:
    """Make an entry of words.

    Args:
        text: The words.
        note: What a reader should know, if anything.

    Returns:
        The entry.
    """
    return Cell(text, note=note, numeric=False)


def header_cell(text: str) -> Cell:
    """Make the entry that names its row.

    Args:
        text: The name.

    Returns:
        The entry.
    """
    return Cell(text, numeric=False, header=True)


def say(
    estimate: Estimate | None, *, scale: float = 1.0, interval: bool = False, bounds: Bounds = None
) -> str:
    """Write an estimate with what is known of its uncertainty.

    Args:
        estimate: The estimate, or None.
        scale: Factor on value and uncertainty; 100 for percent.
        interval: Show the interval instead of the standard error, where there is one.
        bounds: The values that are possible, after scaling.

    Returns:
        The text; a dash where there is no value.
    """
    if estimate is None or estimate.value is None:
        return MISSING
    value = estimate.value * scale
    if interval and estimate.interval is not None:
        low, high = (end * scale for end in estimate.interval)
        return with_interval(value, (low, high), bounds)
    if estimate.stderr is not None:
        return with_error(value, estimate.stderr * scale)
    return number(value)


def correlation(estimate: Estimate) -> str:
    """Write a correlation, which is read to two decimals whatever its interval.

    Args:
        estimate: The correlation.

    Returns:
        As `0.93 (0.85 to 0.97)`; a dash where there is no value.
    """
    if estimate.value is None:
        return MISSING
    if estimate.interval is None:
        return fixed(estimate.value, 2)
    low, high = clip(estimate.interval, (-1.0, 1.0))
    return f"{fixed(estimate.value, 2)} ({fixed(low, 2)} to {fixed(high, 2)})"


def cell(
    estimate: Estimate | None,
    *,
    scale: float = 1.0,
    interval: bool = False,
    bounds: Bounds = None,
    missing: str = "",
) -> Cell:
    """Make a table entry of an estimate, its status and its note.

    Args:
        estimate: The estimate, or None.
        scale: Factor on value and uncertainty; 100 for percent.
        interval: Show the interval instead of the standard error, where there is one.
        bounds: The values that are possible, after scaling.
        missing: What to say when there is no estimate at all.

    Returns:
        The entry.
    """
    if estimate is None:
        return Cell(missing or MISSING, numeric=not missing)
    text = say(estimate, scale=scale, interval=interval, bounds=bounds)
    return Cell(text, status=estimate.status.words, note=estimate.note)


def stacked(entry: Cell) -> Cell:
    """Put an entry's interval below its value, where columns are many.

    Args:
        entry: As `cell` makes it.

    Returns:
        The same on two lines; as it is where it has no interval.
    """
    value, opened, rest = entry.text.partition(" (")
    if not opened:
        return entry
    return replace(entry, text=value, small=rest.removesuffix(")"))
