"""Numbers as people read them: as many digits as the uncertainty allows."""

from __future__ import annotations

import math
from collections.abc import Sequence

MINUS = "\u2212"
NARROW_SPACE = "\u202f"
MISSING = "\u2013"
Bounds = tuple[float, float] | None

_SUPERSCRIPT = str.maketrans("-0123456789", "\u207b⁰¹²³⁴⁵⁶⁷⁸⁹")
_LARGE, _SMALL = 1e6, 1e-3
_ROUNDING = 1e-12


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
        return fixed(value, 0)
    if magnitude >= 6 or abs(value) < _SMALL:
        return _scientific(value, None, digits - 1)
    return fixed(value, max(digits - 1 - magnitude, 0))


def with_error(value: float, stderr: float) -> str:
    """Write a number with its standard error, rounded to what the error allows.

    Args:
        value: The number.
        stderr: Its standard error, not negative.

    Returns:
        As `96.4 ± 0.3`; one or two digits of the error are kept. Equal samples have no error to
        print: the number alone.
    """
    # Equal values whose mean is rounded have an error of the last bits: nobody reads those digits.
    if max(abs(value), stderr) <= _ROUNDING:
        return "0"
    if stderr <= _ROUNDING * abs(value):
        return number(value)
    top = max(abs(value), stderr)
    if top >= _LARGE or top < _SMALL:
        exponent = math.floor(math.log10(top))
        return _scientific(value, stderr, max(_decimals(stderr) + exponent, 0))
    places = _decimals(stderr)
    return f"{fixed(value, places)} ± {fixed(stderr, places)}"


def with_interval(value: float, interval: tuple[float, float], bounds: Bounds = None) -> str:
    """Write a number with its interval.

    Args:
        value: The number.
        interval: Lower and upper end.
        bounds: The values that are possible; an interval that reaches beyond is cut there.

    Returns:
        As `31 (24 to 38)`; the number alone where the ends read like it.
    """
    half = (interval[1] - interval[0]) / 2
    low, high = clip(interval, bounds)
    top = max(abs(value), abs(low), abs(high))
    if half <= 0:
        parts = [number(value), number(low), number(high)]
    elif top >= _LARGE or top < _SMALL:
        parts = [number(value), number(low, 2), number(high, 2)]
    else:
        # An interval that is almost a point would ask for digits that nobody reads.
        places = min(_decimals(half), 3 - math.floor(math.log10(top)))
        parts = [fixed(part, places) for part in (value, low, high)]
    if parts[0] == parts[1] == parts[2]:
        return parts[0]
    return "{} ({} to {})".format(*parts)


def span(values: Sequence[float], digits: int = 2) -> str:
    """Write what numbers go from and to.

    Args:
        values: The numbers, at least one.
        digits: Significant digits.

    Returns:
        As `3.1 to 12`; one number where both ends read alike.
    """
    low, high = number(min(values), digits), number(max(values), digits)
    return low if low == high else f"{low} to {high}"


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


def fixed(value: float, places: int) -> str:
    """Write a number with so many decimals.

    Args:
        value: The number.
        places: Decimals; negative ones round before the point.

    Returns:
        As `-1.25`, with a true minus sign.
    """
    rounded = round(value, places)
    text = f"{abs(rounded):,.{max(places, 0)}f}"
    # Four digits read well as they are; from five on, groups help.
    text = text.replace(",", NARROW_SPACE if abs(rounded) >= 1e4 else "")
    negative = rounded < 0 and float(f"{rounded:.{max(places, 0)}f}") != 0
    return f"{MINUS}{text}" if negative else text


def _scientific(value: float, stderr: float | None, places: int) -> str:
    exponent = math.floor(math.log10(max(abs(value), stderr or 0.0)))
    unit = 10.0**exponent
    mantissa = fixed(value / unit, places)
    power = f"10{str(exponent).translate(_SUPERSCRIPT)}"
    if stderr is None:
        return f"{mantissa} × {power}"
    return f"({mantissa} ± {fixed(stderr / unit, places)}) × {power}"


def spell(seconds: float) -> str:
    """Write a duration for people.

    Args:
        seconds: It.

    Returns:
        As `8 s`, `3 min` or `1.5 h`.
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
