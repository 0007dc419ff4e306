"""Arrays at the door: each failure names the argument, what came and what is accepted.

These stand beside `capacity.base.checks`, which imports torch; the closed forms do without it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def finite(argument: str, value: ArrayLike) -> Array:
    """Check that every entry is a finite real number."""
    return _check(argument, value, np.isfinite, "a finite number")


def non_negative(argument: str, value: ArrayLike) -> Array:
    """Check that every entry is finite and not below zero."""
    return _check(
        argument, value, lambda x: np.isfinite(x) & (x >= 0), "a finite number, 0 or more"
    )


def positive(argument: str, value: ArrayLike) -> Array:
    """Check that every entry is finite and above zero."""
    return _check(argument, value, lambda x: np.isfinite(x) & (x > 0), "a finite number above 0")


def number(argument: str, value: ArrayLike) -> float:
    """Check that there is one number, finite and above zero."""
    array = positive(argument, value)
    if array.ndim:
        raise ValueError(f"{argument} has shape {array.shape}; give one number")
    return float(array)


def below(argument: str, value: Array, bound: ArrayLike, said: str) -> Array:
    """Check that no entry reaches a bound that hangs on other arguments."""
    worst = value[value >= np.broadcast_to(bound, value.shape)]
    if worst.size:
        raise ValueError(f"{argument} = {worst.flat[0]:g} must be below {said}")
    return value


def together(**arrays: Array) -> list[Array]:
    """Broadcast arguments against each other."""
    try:
        return list(np.broadcast_arrays(*arrays.values()))
    except ValueError as error:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(
            f"shapes do not broadcast: {shapes}; give numbers or equal shapes"
        ) from error


def _check(
    argument: str, value: ArrayLike, good: Callable[[Array], NDArray[np.bool_]], accepted: str
) -> Array:
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "iuf":
            raise TypeError(array.dtype)
        array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{argument} = {value!r} must be {accepted} or an array of such"
        ) from error
    if array.size == 0:
        raise ValueError(f"{argument} is empty (shape {array.shape}); give at least one number")
    bad = np.flatnonzero(~good(array))
    if bad.size:
        where = f" (entry {bad[0]} of {array.size})" if array.ndim else ""
        raise ValueError(f"{argument} = {array.flat[bad[0]]:g}{where} must be {accepted}")
    return array
