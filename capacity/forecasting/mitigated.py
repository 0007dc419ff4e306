"""Strategies in a forecast: what they would remember of the old tasks, and under which names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from capacity.base.checks import one_of
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Strategy, Training
from capacity.recipe.strategy import strategy_class
from capacity.strategies import REGISTRY
from capacity.strategies.contribution import Contribution
from capacity.strategies.mitigation import Mitigation
from capacity.strategies.terms import Source
from capacity.tasks.task import Task


def without_past() -> tuple[str, ...]:
    """List the strategies of points that need no option, and only the network and the old data.

    Returns:
        Their names.
    """
    return tuple(
        name
        for name in REGISTRY.names()
        if (kind := strategy_class(name))
        and not kind.needs_path
        and not kind.of_beliefs
        and not kind.of_generators
        and not any(field.is_required() for field in kind.model_fields.values())
    )


def named_strategies(
    strategies: str | Sequence[str | Mapping[str, Any] | Strategy],
) -> dict[str, Strategy]:
    """Read what a user asks to compare.

    Args:
        strategies: `all`, or names, options as {"name": "ewc", "strength": 10}, or `Strategy`.

    Returns:
        Options by a name that says what differs from the defaults.

    Raises:
        ValueError: If a strategy or an option is unknown, or one comes twice.
    """
    if isinstance(strategies, str):
        chosen = without_past() if strategies == "all" else (strategies,)
        return named_strategies(list(chosen))
    if isinstance(strategies, Mapping) or not isinstance(strategies, Iterable):
        raise ValueError(
            f"strategies = {strategies!r} is no list; pass names or options, as "
            "['replay', {'name': 'ewc', 'strength': 10}], or 'all'"
        )
    found: dict[str, Strategy] = {}
    for given in strategies:
        options = _options(given)
        if options.label in found:
            raise ValueError(f"strategies holds {options.label!r} twice; give each once")
        found[options.label] = options
    return found


def contribution_of(
    options: Strategy,
    model: FlatModel,
    theta: Tensor,
    old: tuple[Task, ...],
    new: Task,
    training: Training,
    source: Source,
) -> Contribution:
    """Say what a strategy would add, remembering the old tasks from the network as it is.

    Importances, teachers, bases and old outputs are those at theta, for every old task: a strategy
    that had been there all along would have those of the end of each task.

    Args:
        options: The strategy.
        model: The network.
        theta: Parameters (R, P) after the old tasks.
        old: The old tasks, at least one.
        new: The new task.
        training: Its plan.
        source: Names the strategy's random streams.

    Returns:
        The contribution.

    Raises:
        ValueError: If the strategy needs the path along which the old tasks were learned.
    """
    if options.needs_path:
        raise ValueError(
            f"strategy {options.name!r} weighs parameters by the path along which the old tasks "
            "were learned, and the finished network does not tell it; forecast within "
            "capacity.run, which watches the path, or take strategy 'mas' or 'ewc'"
        )
    mitigation = Mitigation(options, model, source)
    for task in old:
        mitigation.learned(task, theta)
    return mitigation.plan(new, training)


def foreseen(contribution: Contribution) -> Contribution:
    """Give a memory's draws a stream of their own: nobody knows those of the training beforehand.

    Args:
        contribution: What a strategy adds.

    Returns:
        The same with other draws from the same memory.
    """
    made = {
        name: replace(memory, source=Source(memory.source.seed, (*memory.source.path, "forecast")))
        for name, memory in (
            ("replay", contribution.replay),
            ("reference", contribution.reference),
        )
        if memory is not None
    }
    return replace(contribution, **made)  # type: ignore[arg-type]


def _options(given: str | Mapping[str, Any] | Strategy) -> Strategy:
    if isinstance(given, Strategy):
        return Strategy.model_validate(given)
    fields = {"name": given} if isinstance(given, str) else given
    if not isinstance(fields, Mapping):
        raise ValueError(
            f"strategies holds {given!r}; each is a name or options as "
            "{'name': 'ewc', 'strength': 10}"
        )
    one_of("strategies: name", fields.get("name"), REGISTRY.names())
    try:
        return Strategy.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"strategies: {where}{said}") from None
