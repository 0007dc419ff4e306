"""Forecast within a budget: the engine, and what earlier transitions say of its forecast."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from capacity.base.randomness import kept_random_state
from capacity.base.slow_paths import noting
from capacity.forecasting.architecture import architecture_of
from capacity.forecasting.budget import AUTO, automatic, copies, operations
from capacity.forecasting.engine import REHEARSED, CheapForecast, forecast_cheaply
from capacity.forecasting.lesson import Lesson, price_of_training
from capacity.forecasting.mitigated import foreseen
from capacity.forecasting.record import NO_ACCURACY, Forecast, Forgetting, said_of_all
from capacity.forecasting.rehearsal import over_orders, rehearsed, unlike_measured
from capacity.forecasting.task_reading import (
    NEW_PASSES,
    OLD_PASSES,
    Reading,
    read_new,
    read_old,
)
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Strategy, Training
from capacity.records.estimate import Estimate, Status
from capacity.strategies.contribution import Contribution
from capacity.strategies.step import StrategyStep
from capacity.tasks.task import Task
from capacity.training.data_order import DataOrder
from capacity.training.train import train

_FORWARD = 16
"""Samples whose forward pass is counted, to price the reading of all."""


@noting(said_of_all)
def forecast_within(
    model: FlatModel,
    theta: Tensor,
    old: tuple[Task, ...],
    new: Task,
    training: Training,
    *,
    budget: float | str,
    seeds: Sequence[int],
    forecasts: int = 1,
    stretch: bool = False,
    strategy: Strategy | None = None,
    contribution: Contribution | None = None,
) -> Forecast:
    """Forecast for networks, each by itself, and average.

    Args:
        model: The network.
        theta: Parameters of the networks at the end of the old tasks (R, P).
        old: The old tasks.
        new: The new task.
        training: The new task's planned training, one that the engine knows.
        budget: Share of the training's operations to spend at most on each, or `auto`.
        seeds: Seed of each network's samples (R,).
        forecasts: How many forecasts of each network share what `auto` spends.
        stretch: Take the smallest forecast that there is where the budget pays none.
        strategy: What is done against forgetting; None takes the training's.
        contribution: What that adds, where it remembers the old tasks already.

    Returns:
        The forecast: calibrated where earlier transitions speak of it. With several networks the
        value is their mean, and the interval on average that of one. A budget that pays no estimate
        is a ValueError that names the smallest that does.
    """
    made = [
        forecast_one(
            model.of_replica(replica), point, old, new, training,
            budget=budget, seed=seed, forecasts=forecasts * len(theta), stretch=stretch,
            strategy=strategy, contribution=contribution, replica=replica, replicas=len(theta),
        )[0]
        for replica, (point, seed) in enumerate(zip(theta, seeds, strict=True))
    ]  # fmt: skip
    return _mean(made)


def is_short(
    model: FlatModel, theta: Tensor, new: Task, training: Training, *, forecasts: int
) -> bool:
    """Say whether `auto` rehearses a training.

    Args:
        model: The network.
        theta: Parameters of the networks (R, P).
        new: The new task.
        training: Its planned training.
        forecasts: How many forecasts of each network there are.

    Returns:
        Whether all of them together take less than about a minute.
    """
    whole, steps = _size(model, theta, new, training)
    return math.isinf(automatic(whole, steps, forecasts=forecasts * len(theta)))


def rehearsals(
    model: FlatModel,
    theta: Tensor,
    new: Task,
    training: Training,
    *,
    budget: float | str,
    forecasts: int,
) -> int:
    """Say how many copies of a network rehearse a training.

    Args:
        model: The network.
        theta: Its parameters (1, P).
        new: The new task.
        training: Its planned training.
        budget: Share of the training's operations, or `auto`.
        forecasts: How many forecasts share what `auto` spends.

    Returns:
        The copies; 0 where the budget pays no rehearsal.
    """
    if budget not in (AUTO, math.inf):
        return 0
    whole, steps = _size(model, theta, new, training)
    if budget == AUTO and not math.isinf(automatic(whole, steps, forecasts=forecasts)):
        return 0
    return copies(whole, steps, forecasts=forecasts)


def _size(model: FlatModel, theta: Tensor, new: Task, training: Training) -> tuple[float, int]:
    """Operations and steps of a training."""
    lesson = Lesson(model.apart(), new, Contribution(training=training))
    return price_of_training(lesson, theta[0])[0], training.steps(len(new.train))


@noting(said_of_all)
def rehearse_in_turn(
    model: FlatModel,
    theta: Tensor,
    old: tuple[Task, ...],
    new: Task,
    training: Training,
    *,
    seeds: Sequence[int],
    strategy: Strategy,
) -> Forecast:
    """Rehearse with one copy of a network after the other, each in a data order of its own.

    Args:
        model: The network, of any kind.
        theta: Its parameters at the end of the old tasks (P,).
        old: The old tasks.
        new: The new task.
        training: Its planned training.
        seeds: Seed of each copy's data order.
        strategy: What is done against forgetting.

    Returns:
        The forecast.
    """
    each = [
        forecast_one(
            model, theta, old, new, training, budget=math.inf, seed=seed, strategy=strategy
        )[0]
        for seed in seeds
    ]
    return over_orders(each)


@noting(said_of_all)
def rehearse_together(
    model: FlatModel,
    theta: Tensor,
    old: tuple[Task, ...],
    new: Task,
    contribution: Contribution,
    order: DataOrder,
    *,
    alike: bool = False,
) -> Forecast:
    """Rehearse with copies of all networks at once, as ensembles are trained.

    Args:
        model: A network that trains as it is evaluated.
        theta: Parameters of the networks at the end of the old tasks (R, P).
        old: The old tasks.
        new: The new task.
        contribution: Its planned training, with what a strategy adds.
        order: Data order of the copies, no network's own.
        alike: Whether the networks are one, several times: its copies differ in data order alone.

    Returns:
        The forecast. With several networks the value is their mean, and the interval on average
        that of one.
    """
    plan = foreseen(contribution)
    step = None if plan.plain else StrategyStep(model, new, plan, len(theta))
    phase = train(model, theta, new, plan.training, order.under(plan.training), strategy=step)
    lesson = Lesson(model, new, plan, replicas=len(theta))
    whole, _ = price_of_training(lesson, theta[0])
    few = new.test.x[:_FORWARD]
    forward = operations(lambda: model.outputs(theta[0], few)) / len(few)
    read = OLD_PASSES * sum(len(task.test) for task in old) + NEW_PASSES * len(new.test)
    ratio = 1 + forward * read / whole
    cost = Estimate(
        value=ratio,
        cost=ratio * plan.training.steps(len(new.train)),
        note=f"Counted floating-point operations. {REHEARSED}",
    )
    unlike = unlike_measured(architecture_of(model, theta[0], few), model.size)
    made = []
    for replica, (before, end) in enumerate(zip(theta, phase.theta, strict=True)):
        one = model.of_replica(replica)
        reads = [
            read_old((one, one), (before, end, end), task, task.test, REHEARSED) for task in old
        ]
        fresh, _ = read_new((one, one), (before, end), new, new.test, REHEARSED)
        made.append(rehearsed(from_readings(reads, fresh, cost), unlike))
    return over_orders(made) if alike else _mean(made)


def forecast_one(
    model: FlatModel,
    theta: Tensor,
    old: tuple[Task, ...],
    new: Task,
    training: Training,
    *,
    budget: float | str,
    seed: int,
    stretch: bool = False,
    forecasts: int = 1,
    strategy: Strategy | None = None,
    contribution: Contribution | None = None,
    replica: int = 0,
    replicas: int = 1,
) -> tuple[Forecast, CheapForecast]:
    """Forecast for one network.

    Args:
        model: The network.
        theta: Its parameters at the end of the old tasks (P,).
        old: The old tasks.
        new: The new task.
        training: The new task's planned training, one that the engine knows.
        budget: Share of the training's operations to spend at most, or `auto`.
        seed: Seed of the samples drawn.
        stretch: Take the smallest forecast that there is where the budget pays none.
        forecasts: How many forecasts share what `auto` spends.
        strategy: What is done against forgetting; None takes the training's.
        contribution: What that adds, where it remembers the old tasks already.
        replica: Which of the contribution's networks this is.
        replicas: How many the contribution has.

    Returns:
        The forecast, calibrated where earlier transitions speak of it; and the engine's own.
    """
    # Here, since scikit-learn takes a second to load.
    with kept_random_state():  # what scikit-learn imports draws from Python's generator
        from capacity.forecasting.calibration import calibrated
    from capacity.forecasting.corpus import Conditions

    options = training.strategy if strategy is None else strategy
    said = forecast_cheaply(
        model, theta, old, new, training,
        budget=budget, stretch=stretch, forecasts=forecasts, strategy=options,
        contribution=contribution, replica=replica, replicas=replicas, seed=seed,
    )  # fmt: skip
    made = from_readings(said.old, said.new, said.cost_ratio)
    architecture = architecture_of(model, theta, new.train.x)
    if said.rehearsed:
        return rehearsed(made, unlike_measured(architecture, model.size)), said
    conditions = Conditions(
        training=training,
        strategy=options.name,
        label=options.label,
        samples=len(new.train),
        parameters=model.size,
        budget=max(said.share, said.cost_ratio.value or said.share),
        losses=frozenset(task.loss for task in (*old, new)),
        architecture=architecture,
        old_tasks=len(old),
    )
    return calibrated(made, said, conditions), said


def _mean(made: Sequence[Forecast]) -> Forecast:
    if len(made) == 1:
        return made[0]
    first = made[0]
    return Forecast(
        old=tuple(
            Forgetting(
                accuracy_drop=_average([one.old[k].accuracy_drop for one in made]),
                loss_increase=_average([one.old[k].loss_increase for one in made]),
            )
            for k in range(len(first.old))
        ),
        new_accuracy=_average([one.new_accuracy for one in made]),
        new_loss=_average([one.new_loss for one in made]),
        cost_ratio=_average([one.cost_ratio for one in made]),
        average_accuracy=_average([one.average_accuracy for one in made]),
        average_loss=_average([one.average_loss for one in made]),
    )


def _average(each: Sequence[Estimate]) -> Estimate:
    """Average over networks; the interval stays one network's."""
    have = [one for one in each if one.value is not None]
    if not have:
        return each[0]
    first, n = have[0], len(have)
    values = [one.value for one in have if one.value is not None]
    value = math.fsum(values) / n
    ends = [one.interval for one in have if one.interval is not None]
    interval = None
    if len(ends) == n:
        interval = (math.fsum(low for low, _ in ends) / n, math.fsum(up for _, up in ends) / n)
    lost = len(each) - n
    left = f" {lost} of {len(each)} replicas are not finite and left out." if lost else ""
    same = all(one.status is Status.OK for one in have)
    return Estimate(
        value=value,
        stderr=math.sqrt(math.fsum((v - value) ** 2 for v in values) / (n - 1) / n)
        if n > 1
        else first.stderr,
        status=Status.OK if same else Status.UNCALIBRATED,
        interval=interval,
        level=first.level,
        n=n,
        cost=math.fsum(one.cost for one in have) / n,
        note=f"{first.note}{left}",
    )


def from_readings(old: Sequence[Reading], new: Reading, cost_ratio: Estimate) -> Forecast:
    """Put what was read off a copy of the network into a forecast.

    Args:
        old: Of every old task.
        new: Of the new one.
        cost_ratio: What it took.

    Returns:
        The forecast. Averages over tasks have no interval: the readings share a displacement.
    """
    every = (*old, new)
    note = new.loss.note

    def average(values: list[float | None]) -> Estimate:
        if any(value is None for value in values):
            return Estimate(value=None, status=Status.DIVERGED, note=note)
        mean = math.fsum(value for value in values if value is not None) / len(values)
        return Estimate(value=mean, status=Status.UNCALIBRATED, note=note)

    classify = all(one.accuracy.status is not Status.NOT_DEFINED for one in every)
    return Forecast(
        old=tuple(Forgetting(accuracy_drop=r.drop, loss_increase=r.rise) for r in old),
        new_accuracy=new.accuracy,
        new_loss=new.loss,
        cost_ratio=cost_ratio,
        average_accuracy=average([r.accuracy.value for r in every]) if classify else NO_ACCURACY,
        average_loss=average([r.loss.value for r in every]),
    )
