"""Numbers as people read them: as many digits as the uncertainty allows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from capacity.estimate import Estimate, Status

MINUS = "\u2212"
NARROW_SPACE = "\u202f"
MISSING = "\u2013"
POINTS = (-100.0, 100.0)
PERCENT = (0.0, 100.0)
Bounds = tuple[float, float] | None

_SUPERSCRIPT = str.maketrans("-0123456789", "\u207b⁰¹²³⁴⁵⁶⁷⁸⁹")
_LARGE, _SMALL = 1e6, 1e-3
_ROUNDING = 1e-12

STATUS_WORDS = {
    Status.OK: "",
    Status.UNCALIBRATED: "uncalibrated",
    Status.NOT_RESOLVED: "not resolved",
    Status.NOT_CONVERGED: "not converged",
    Status.NOT_DEFINED: "not defined",
    Status.OUT_OF_REGIME: "out of regime",
    Status.DIVERGED: "diverged",
}


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


def number(value: float | None, digits: int = 3) -> str:
    """Write a number whose uncertainty is not known.

    Args:
        value: The number, or None.
        digits: Significant digits.

    Returns:
        The number with `digits` significant digits, or a dash.
    """
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if isinstance(value, int) and magnitude < 6:
        return _fixed(value, 0)
    if magnitude >= 6 or abs(value) < _SMALL:
        return _scientific(value, None, digits - 1)
    return _fixed(value, max(digits - 1 - magnitude, 0))


def with_error(value: float, stderr: float) -> str:
    """Write a number with its standard error, rounded to what the error allows.

    Args:
        value: The number.
        stderr: Its standard error, not negative.

    Returns:
        As `96.4 ± 0.3`; one or two digits of the error are kept.
    """
    # Equal values whose mean is rounded have an error of the last bits: nobody reads those digits.
    if max(abs(value), stderr) <= _ROUNDING:
        return "0 ± 0"
    if stderr <= _ROUNDING * abs(value):
        return f"{number(value)} ± 0"
    top = max(abs(value), stderr)
    if top >= _LARGE or top < _SMALL:
        exponent = math.floor(math.log10(top))
        return _scientific(value, stderr, max(_decimals(stderr) + exponent, 0))
    places = _decimals(stderr)
    return f"{_fixed(value, places)} ± {_fixed(stderr, places)}"


def with_interval(value: float, interval: tuple[float, float], bounds: Bounds = None) -> str:
    """Write a number with its interval.

    Args:
        value: The number.
        interval: Lower and upper end.
        bounds: The values that are possible; an interval that reaches beyond is cut there.

    Returns:
        As `31 (24 to 38)`.
    """
    half = (interval[1] - interval[0]) / 2
    low, high = clip(interval, bounds)
    if half <= 0:
        return f"{number(value)} ({number(low)} to {number(high)})"
    top = max(abs(value), abs(low), abs(high))
    if top >= _LARGE or top < _SMALL:
        return f"{number(value)} ({number(low, 2)} to {number(high, 2)})"
    # An interval that is almost a point would ask for digits that nobody reads.
    places = min(_decimals(half), 3 - math.floor(math.log10(top)))
    parts = (_fixed(part, places) for part in (value, low, high))
    return "{} ({} to {})".format(*parts)


def clip(interval: tuple[float, float], bounds: Bounds) -> tuple[float, float]:
    """Cut an interval at the values that are possible.

    Args:
        interval: Lower and upper end.
        bounds: The possible values, or None.

    Returns:
        The interval inside the bounds.
    """
    if bounds is None:
        return interval
    low, high = (min(max(end, bounds[0]), bounds[1]) for end in interval)
    return low, high


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
        return _fixed(estimate.value, 2)
    low, high = clip(estimate.interval, (-1.0, 1.0))
    return f"{_fixed(estimate.value, 2)} ({_fixed(low, 2)} to {_fixed(high, 2)})"


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
    return Cell(text, status=STATUS_WORDS[estimate.status], note=estimate.note)


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


def plural(count: int, noun: str) -> str:
    """Count a noun.

    Args:
        count: How many.
        noun: Its singular; the plural takes an s.

    Returns:
        As `1 task` or `3 tasks`.
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _decimals(error: float) -> int:
    """Decimals that keep two digits of an error that starts below 3, else one; may be negative."""
    exponent = math.floor(math.log10(error))
    return -exponent + (1 if error / 10.0**exponent < 2.95 else 0)


def _fixed(value: float, places: int) -> str:
    rounded = round(value, places)
    text = f"{abs(rounded):,.{max(places, 0)}f}"
    # Four digits read well as they are; from five on, groups help.
    text = text.replace(",", NARROW_SPACE if abs(rounded) >= 1e4 else "")
    negative = rounded < 0 and float(f"{rounded:.{max(places, 0)}f}") != 0
    return f"{MINUS}{text}" if negative else text


def _scientific(value: float, stderr: float | None, places: int) -> str:
    exponent = math.floor(math.log10(max(abs(value), stderr or 0.0)))
    unit = 10.0**exponent
    mantissa = _fixed(value / unit, places)
    power = f"10{str(exponent).translate(_SUPERSCRIPT)}"
    if stderr is None:
        return f"{mantissa} × {power}"
    return f"({mantissa} ± {_fixed(stderr / unit, places)}) × {power}"
