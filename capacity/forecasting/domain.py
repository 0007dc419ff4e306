"""Where earlier transitions speak of a new forecast: what network it is, and how near they are.

A calibration holds for cases like those that it was fitted on. Like is what the engine itself sees:
a forecast is a point in the space of what a correction may look at (`corrector.features`), each
number over its spread among the earlier transitions. A point is inside where its nearest neighbours
are no further than those of 95 % of the earlier transitions, with the whole pair of tasks that
these belong to left out: near copies of itself speak for nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capacity.forecasting.corrector import FEATURES, features

NEIGHBOURS = 5
"""Earlier transitions whose mean distance counts."""
INSIDE = 0.95
"""Share of the earlier transitions that count as inside, seen from other pairs."""


class Domain:
    """The region of forecasts that some earlier transitions speak of.

    Args:
        rows: Their numbers, `pair` among them.
        strategies: Strategies to tell apart.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], strategies: Sequence[str]) -> None:
        self._strategies = tuple(strategies)
        self._names = (*FEATURES, *(f"strategy {name}" for name in strategies))
        made = np.array([features(row, self._strategies) for row in rows])
        spread = made.std(0)
        # What never varied says nothing: it may not differ at all, and counts in its own unit.
        self._scale = np.where(spread > 1e-9, spread, 1.0)
        self._points = made / self._scale
        pairs = np.unique([row["pair"] for row in rows], return_inverse=True)[1]
        own = np.array([
            self._nearest(point, pairs != pair)[0]
            for point, pair in zip(self._points, pairs, strict=True)
        ])
        self.radius = float(np.quantile(own, INSIDE))
        """Mean distance of the nearest neighbours up to which a point is inside."""

    def distance(self, row: Mapping[str, Any]) -> float:
        """Measure how far a forecast is from the earlier transitions.

        Args:
            row: Its numbers, as `corpus.numbers` gives them.

        Returns:
            Mean distance of its nearest neighbours, in spreads.
        """
        return self._nearest(self._of(row), None)[0]

    def why_outside(self, row: Mapping[str, Any]) -> str | None:
        """Say why a forecast is not like the earlier transitions.

        Args:
            row: Its numbers, as `corpus.numbers` gives them.

        Returns:
            The reason, for people; None where it is like them.
        """
        point = self._of(row)
        distance, near = self._nearest(point, None)
        if distance <= self.radius:
            return None
        off = np.abs(point - self._points[near].mean(0))
        furthest = [self._names[k].replace("_", " ") for k in np.argsort(-off)[:2]]
        return (
            f"the nearest of {len(self._points)} earlier transitions are {distance:.2g} spreads "
            f"away, beyond the {self.radius:.2g} within which {100 * INSIDE:.0f} % of them lie, "
            f"most of all in {' and '.join(furthest)}"
        )

    def _of(self, row: Mapping[str, Any]) -> NDArray[np.float64]:
        return np.array(features(row, self._strategies)) / self._scale

    def _nearest(
        self, point: NDArray[np.float64], allowed: NDArray[np.bool_] | None
    ) -> tuple[float, NDArray[np.intp]]:
        squared = np.square(self._points - point).sum(1)
        if allowed is not None:
            squared = np.where(allowed, squared, np.inf)
        near = np.argsort(squared)[:NEIGHBOURS]
        return float(np.sqrt(squared[near]).mean()), near
