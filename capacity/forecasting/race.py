"""Compare strategies for less: a small forecast of each, and a good one of the better half.

All see the same samples in the same order, so what separates two strategies in small forecasts is
mostly the strategies (sequential halving with one round: Karnin, Koren & Somekh, ICML 2013). Where
a twentieth of the training is a good forecast, or all are rehearsed, there is nothing to race for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from capacity.forecasting.budget import AUTO, SHARE
from capacity.forecasting.record import Forecast, rank

FEWEST = 3
"""Strategies below which all are forecast as well as one."""


def raced(
    names: Sequence[str], forecast_of: Callable[[str, float | str], Forecast | None]
) -> dict[str, Forecast]:
    """Forecast strategies by `auto`, the worse half for no more than a twentieth.

    Args:
        names: The strategies.
        forecast_of: Forecasts a strategy within a budget; None where it cannot be.

    Returns:
        Forecasts by name, those of the better half first, each half the best first.
    """
    if len(names) < FEWEST:
        return rank(_each(names, forecast_of, AUTO))
    small = rank(_each(names, forecast_of, SHARE))
    better = dict[str, Forecast]()
    for name in list(small)[: (len(small) + 1) // 2]:
        made = forecast_of(name, AUTO)
        if made is None or (made is not small[name] and _price(made) <= _price(small[name])):
            break  # `auto` is a twentieth here, or what is small already is all that can be had
        better[name] = made
    return {**rank(better), **{name: made for name, made in small.items() if name not in better}}


def _price(made: Forecast) -> float:
    return made.cost_ratio.value or 0.0


def _each(
    names: Sequence[str],
    forecast_of: Callable[[str, float | str], Forecast | None],
    budget: float | str,
) -> dict[str, Forecast]:
    made = {name: forecast_of(name, budget) for name in names}
    return {name: one for name, one in made.items() if one is not None}
