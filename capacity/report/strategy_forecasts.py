"""Strategies against forgetting as they were forecast: read, ranked, and said in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from capacity.recipe.strategy import PLAIN, strategy_class
from capacity.records.estimate import Estimate
from capacity.records.number_format import say
from capacity.records.numbers import Bounds, number, plural, with_interval
from capacity.report.capacity_detail import capital
from capacity.report.tables import drop_target
from capacity.results.schema import StrategyForecast, Transition
from capacity.results.view import RunView, forecast_mean, pick
from capacity.strategies import REGISTRY


@dataclass(frozen=True, kw_only=True)
class Foreseen:
    """A strategy as it was forecast for one transition.

    Attributes:
        name: Its name in the result.
        label: The same for people.
        drop: Mean over the old tasks of the accuracy drop, or of the rise of the loss.
        average: Mean accuracy (or loss) over all old tasks and the new one.
        new: Accuracy (or loss) on the new task.
        cost: Cost of the forecast over that of the training.
    """

    name: str
    label: str
    drop: Estimate
    average: Estimate | None
    new: Estimate | None
    cost: Estimate | None

    @property
    def mitigates(self) -> bool:
        """Whether it is something to do, rather than nothing, or an upper reference."""
        known = strategy_class(_base(self.name))
        return known is None or known.mitigates


def _base(name: str) -> str:
    return name.partition(",")[0].strip()


def spoken(name: str) -> str:
    """Name a strategy for people.

    Args:
        name: As the result has it, with what differs from the defaults.

    Returns:
        The name.
    """
    base, comma, rest = name.partition(",")
    known = strategy_class(base)  # a run may come from where more are registered
    return ((known and known.title) or base.replace("_", " ")) + comma + rest


def foreseen(transition: Transition, target: str) -> list[Foreseen]:
    """Read a transition's forecasts under strategies.

    Args:
        transition: One transition of the result.
        target: `accuracy_drop` or `loss_increase`.

    Returns:
        The strategies that have a value, the best average first.
    """
    kind = "accuracy" if target == "accuracy_drop" else "loss"
    made = []
    for entry in _entries(transition):
        drop = forecast_mean(entry, target)
        if drop is None or drop.value is None:
            continue
        made.append(
            Foreseen(
                name=str(entry["name"]),
                label=spoken(str(entry["name"])),
                drop=drop,
                average=pick(entry, f"average_{kind}"),
                new=pick(entry, "new", kind),
                cost=pick(entry, "cost_ratio"),
            )
        )
    return made


def without_value(transition: Transition, target: str) -> list[tuple[str, Estimate | None]]:
    """Find the strategies whose forecast came to nothing: most often it diverged.

    Args:
        transition: One transition of the result.
        target: `accuracy_drop` or `loss_increase`.

    Returns:
        Labels, and what there is instead of a drop.
    """
    found = [(spoken(str(e["name"])), forecast_mean(e, target)) for e in _entries(transition)]
    return [(label, drop) for label, drop in found if drop is None or drop.value is None]


def _entries(transition: Transition) -> Sequence[StrategyForecast]:
    return transition.get("by_strategy") or []


def best_mitigation(transition: Transition, target: str) -> Foreseen | None:
    """Find the strategy that was forecast to end with the best average.

    Args:
        transition: One transition of the result.
        target: `accuracy_drop` or `loss_increase`.

    Returns:
        The strategy; None where none was forecast. Plain and joint training are no strategies.
    """
    return next((s for s in foreseen(transition, target) if s.mitigates), None)


def strategy_sentence(view: RunView, transition: Transition) -> str:
    """Say what the best strategy was forecast to cost instead.

    Args:
        view: The run.
        transition: One transition of the result.

    Returns:
        One sentence with a space before it; empty where no strategy was forecast.
    """
    target, scale, bounds = drop_target(view)
    order = foreseen(transition, target)
    best = best_mitigation(transition, target)
    if best is None:
        return ""
    counted = sum(s.mitigates for s in order)
    if view.classifies:
        said = f" {capital(best.label)} was forecast to {_change(best.drop, scale, bounds)}"
        reached = "" if best.average is None else say(best.average, scale=scale)
    else:
        said = (
            f" Under {best.label} it was forecast to {_change(best.drop, scale, bounds, rise=True)}"
        )
        reached = ""
    if counted > 1:
        said += f"; of {counted} strategies it would end with the best average"
        said += f", {reached} %" if reached else ""
    if _base(order[0].name) == PLAIN:
        said += (
            ", below that of plain training" if view.classifies else "; plain training is better"
        )
    return said + "."


def _change(found: Estimate, scale: float, bounds: Bounds, *, rise: bool = False) -> str:
    """Say cost or gain: a memory wins back what this run had forgotten before."""
    low, high = found.interval or (found.value or 0.0,) * 2
    if high >= 0:
        return f"{'rise by' if rise else 'cost'} {_amount(found, scale, bounds)}"
    gain = replace(found, value=-(found.value or 0.0), interval=(-high, -low))
    said = _amount(gain, scale, bounds)
    return f"fall by {said}" if rise else f"win back {said} points on them"


def _amount(found: Estimate, scale: float, bounds: Bounds) -> str:
    value = (found.value or 0.0) * scale
    if found.interval is None:
        return number(value)
    return with_interval(value, tuple(end * scale for end in found.interval), bounds)  # type: ignore[arg-type]


def ranked(view: RunView) -> list[tuple[str, float, float]]:
    """Rank strategies over all transitions that forecast them.

    Args:
        view: The run.

    Returns:
        Label, mean drop and mean average in print units, the best average first; a strategy that
        some transition lacks is ranked by those that have it.
    """
    target, scale, _ = drop_target(view)
    drops: dict[str, list[float]] = {}
    averages: dict[str, list[float]] = {}
    for transition in view.transitions:
        for found in foreseen(transition, target):
            drops.setdefault(found.label, []).append(found.drop.value or 0.0)
            if found.average is not None and found.average.value is not None:
                averages.setdefault(found.label, []).append(found.average.value)
    sign = -1.0 if view.classifies else 1.0
    made = [
        (label, scale * _mean(values), scale * _mean(averages.get(label, [])))
        for label, values in drops.items()
    ]
    return sorted(made, key=lambda entry: sign * entry[2])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def strategies_sentence(view: RunView) -> str:
    """Say which strategy the forecasts recommend over the whole sequence.

    Args:
        view: The run.

    Returns:
        A sentence or two; empty where no strategy was forecast.
    """
    order = ranked(view)
    if not order:
        return ""
    unit = " points" if view.classifies else ""
    own = str((view.recipe.get("training") or {}).get("strategy", {}).get("name", PLAIN))
    best = next((entry for entry in order if entry[0] not in _references()), order[0])
    transitions = sum(bool(t.get("by_strategy")) for t in view.transitions)
    said = (
        f"Over {plural(transitions, 'transition')}, {best[0]} is forecast to end with the best "
        f"average and to {_mean_cost(best[1], unit)} on the old tasks with each new one"
    )
    plain = next((entry for entry in order if entry[0] == spoken(own)), None)
    if plain is not None and plain is not best:
        said += f"; {plain[0]}, as in this run, to {_mean_cost(plain[1], unit)}"
    return f"{said}. These are forecasts: capacity compare sets trained runs side by side."


def _references() -> set[str]:
    """Labels of what is no strategy, but what one could reach at most."""
    names = [name for name in REGISTRY.names() if name != PLAIN]
    return {spoken(n) for n in names if (kind := strategy_class(n)) and not kind.mitigates}


def _mean_cost(drop: float, unit: str) -> str:
    return f"win back {number(-drop)}{unit}" if drop < 0 else f"lose {number(drop)}{unit}"
