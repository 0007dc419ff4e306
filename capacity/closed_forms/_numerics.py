"""Differences that lose their digits when written naively."""

from __future__ import annotations

import numpy as np
from scipy.special import exprel

from capacity.closed_forms._inputs import Array

_SMALL = 0.5
_TERMS = 20


def x_minus_log1p(x: Array) -> Array:
    """Return x - log(1 + x) to full relative precision, x > -1."""
    small = np.abs(x) < _SMALL
    # log(1+x) = 2 atanh(r), r = x/(2+x), and x - 2r = x r: the leading x cancels on paper.
    r = np.where(small, x, 0.0) / (2 + np.where(small, x, 0.0))
    square = r * r
    tail = np.zeros_like(r)
    for k in range(_TERMS, 0, -1):
        tail = square * (1 / (2 * k + 1) + tail)
    series = np.where(small, x, 0.0) * r - 2 * r * tail
    return np.where(small, series, x - np.log1p(np.where(small, 0.0, x)))


def grown(rate: Array, time: Array) -> Array:
    """Return the integral of exp(-rate s) over s from 0 to `time`; any sign of the rate."""
    return time * exprel(-rate * time)
