"""Intervals around a value: one level, one Student-t quantile."""

from __future__ import annotations

from functools import lru_cache

LEVEL = 0.9
"""Nominal coverage of an interval, wherever nothing else is said."""

BOUND_LEVEL = 0.95
"""Nominal coverage of the speed limits and their parts: a bound that does not hold is news."""

Z90 = 1.645
"""Half-width of the normal 90 % interval in standard errors."""


@lru_cache(maxsize=1024)
def student(degrees: float, level: float = LEVEL) -> float:
    """Half-width of a Student-t interval in standard errors.

    Args:
        degrees: Degrees of freedom, above 0; need not be whole.
        level: Nominal coverage.

    Returns:
        The quantile.
    """
    from scipy.special import stdtrit  # scipy.stats takes seconds to import, and 0.2 ms a quantile

    return float(stdtrit(degrees, 0.5 + level / 2))


def interval(
    value: float, stderr: float, *, degrees: float | None = None, level: float = LEVEL
) -> tuple[float, float]:
    """Lay an interval around a value.

    Args:
        value: The value.
        stderr: Its standard error.
        degrees: Degrees of freedom behind the standard error; None takes the normal interval, which
            knows `LEVEL` alone.
        level: Nominal coverage.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: If a normal interval of another level is asked for.
    """
    if degrees is None and level != LEVEL:
        raise ValueError(
            f"level = {level!r}: without degrees of freedom only level = {LEVEL} is known; "
            "give degrees"
        )
    half = (Z90 if degrees is None else student(degrees, level)) * stderr
    return value - half, value + half
