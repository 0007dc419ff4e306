"""Strategies against forgetting as they were forecast: read, and ranked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean

from capacity.recipe.strategy import PLAIN, strategy_class
from capacity.records.estimate import Estimate
from capacity.report.tables import drop_target
from capacity.results.schema import StrategyForecast, Transition
from capacity.results.view import RunView, forecast_mean, pick
from capacity.strategies.strategy import Strategy


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

    @property
    def plain(self) -> bool:
        """Whether it is nothing at all."""
        return _base(self.name) == PLAIN


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


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A strategy over all transitions that forecast it; numbers in print units.

    Attributes:
        label: Its name for people.
        mitigates: Whether it is something to do, rather than nothing, or an upper reference.
        plain: Whether it is nothing at all.
        drop: Mean loss on the old tasks with each new one.
        average: Mean score over all tasks that it would end with.
        new: Mean score on the new task; None where it was not forecast.
        work: What it takes, in plain trainings; None where that is not known.
    """

    label: str
    mitigates: bool
    plain: bool
    drop: float
    average: float
    new: float | None
    work: float | None


def ranked(view: RunView) -> list[Ranked]:
    """Rank strategies over all transitions that forecast them.

    Args:
        view: The run.

    Returns:
        The best average first; a strategy that some transition lacks is ranked by those that have
        it.
    """
    target, scale, _ = drop_target(view)
    found: dict[str, list[tuple[int, Foreseen]]] = {}
    for transition in view.transitions:
        for one in foreseen(transition, target):
            found.setdefault(one.name, []).append((int(transition["task"]), one))
    options = _options(view)
    batch = int((view.recipe.get("training") or {}).get("batch_size") or 0)
    made = []
    for name, every in found.items():
        averages = [e.average.value for _, e in every if e.average and e.average.value is not None]
        new = [e.new.value for _, e in every if e.new and e.new.value is not None]
        known = options.get(name)
        work = [known.steps_worth(batch, old) for old, _ in every] if known and batch else []
        made.append(
            Ranked(
                label=every[0][1].label,
                mitigates=every[0][1].mitigates,
                plain=every[0][1].plain,
                drop=scale * fmean(e.drop.value or 0.0 for _, e in every),
                average=scale * fmean(averages) if averages else 0.0,
                new=scale * fmean(new) if new else None,
                work=fmean(work) if work else None,
            )
        )
    return sorted(made, key=lambda one: -one.average if view.classifies else one.average)


def _options(view: RunView) -> dict[str, Strategy]:
    """Give the strategies that were compared by their names in the result."""
    measured = (view.recipe.get("measure") or {}).get("strategies") or []
    own = (view.recipe.get("training") or {}).get("strategy")
    made: dict[str, Strategy] = {}
    for options in [*measured, *([own] if own else []), {"name": PLAIN}]:
        kind = strategy_class(str(options.get("name")))
        if kind is None:
            continue
        # A run may come from where the strategy had other options.
        with suppress(ValueError):
            one = kind.model_validate(options)
            if isinstance(one, Strategy):
                made[one.label] = one
    return made
