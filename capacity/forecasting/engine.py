"""A forecast for a few per cent of the training: the training itself, compressed, and read off.

A copy of the network takes a few of the new task's samples through a compressed training
(`compression`), with the strategy's own loss, memory and projector, and what has then become of
every task's test split is the forecast. Nothing is linearised: what the network's curvature does to
the old tasks is in it, and any architecture, head, loss and strategy is treated alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TypedDict

import torch
from torch import Tensor

from capacity.base.differential import slope_of
from capacity.base.random_streams import stream, stream_seed
from capacity.forecasting.budget import (
    AUTO,
    Allocation,
    affordable,
    allocate,
    automatic,
    enough,
)
from capacity.forecasting.compression import Pace, compress, steps_wanted
from capacity.forecasting.lesson import Lesson, price_of_training, prices_of
from capacity.forecasting.mitigated import contribution_of, foreseen
from capacity.forecasting.task_reading import (
    NEW_PASSES,
    OLD_PASSES,
    Reading,
    drawn,
    read_new,
    read_old,
)
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.conditioner import conditioned
from capacity.optimizers.implicit import ImplicitTransport
from capacity.optimizers.optimizer import stated
from capacity.recipe.config import Strategy, Training
from capacity.records.estimate import Estimate
from capacity.strategies.contribution import Contribution
from capacity.strategies.step import StrategyStep
from capacity.strategies.terms import Source
from capacity.tasks.streamed import in_order
from capacity.tasks.task import Split, Task
from capacity.training.curriculum import ordered
from capacity.training.data_order import DataOrder, passes_over, pool_size
from capacity.training.loop import Slope, steps

DEARER = (
    "No forecast of this training is cheaper than the training itself; this is the smallest one."
)
REHEARSED = (
    "Rehearsed: a copy of the network went through the whole training, in a data order of its own."
)
STRETCHED = "The training is so short that the budget pays no forecast; this is the smallest one."


@dataclass(frozen=True, kw_only=True)
class CheapForecast:
    """What the engine says.

    Attributes:
        old: Every old task.
        new: The new task, on its test split.
        cost_ratio: Operations spent over those of the training.
        steps: Steps of the compressed training.
        batch: Samples of each.
        displacement: How far the parameters went.
        wander: How far the last step was from the mean of the last steps.
        gradients: Norms of the first gradient, of the largest, and on average of the last quarter.
        new_loss_before: Loss on the new task before it is learned.
        share: Budget that it was made for, as a share of the training.
        rehearsed: Whether the copy took all the training's steps, as large as its own.
        enough: Share of the training that pays as many steps as compressing it asks for, at most
            half; nan where that was not asked.
    """

    old: tuple[Reading, ...]
    new: Reading
    cost_ratio: Estimate
    steps: int
    batch: int
    displacement: float
    wander: float
    gradients: tuple[float, float, float]
    new_loss_before: float
    share: float = math.nan
    rehearsed: bool = False
    enough: float = math.nan


@torch.no_grad()
def forecast_cheaply(
    model: FlatModel,
    theta: Tensor,
    old: tuple[Task, ...],
    new: Task,
    training: Training,
    *,
    budget: float | str,
    stretch: bool = False,
    forecasts: int = 1,
    strategy: Strategy | None = None,
    contribution: Contribution | None = None,
    replica: int = 0,
    replicas: int = 1,
    seed: int = 0,
) -> CheapForecast:
    """Forecast within a budget.

    Args:
        model: The network.
        theta: Its parameters after the old tasks (P,).
        old: The old tasks.
        new: The new task.
        training: Its planned training, one that `unknown_to_compression` knows nothing of.
        budget: Operations to spend at most, as a share of those of the planned training; of that
            under the strategy where this is dearer. Or `auto` (`budget.automatic`).
        stretch: Take the smallest forecast that there is where the budget pays none.
        forecasts: How many forecasts share what `auto` spends.
        strategy: What is done against forgetting; None takes the training's. What it remembers is
            made from the old tasks, and paid.
        contribution: What the strategy adds, where it already remembers; this takes its place.
        replica: Which of the contribution's networks this is.
        replicas: How many the contribution has.
        seed: Seed of the samples drawn.

    Returns:
        The forecast, `uncalibrated`. A budget that pays no estimate is a ValueError that names the
        smallest that does.
    """
    samples = len(new.train)
    apart = model.apart()  # a step that is only priced moves no statistics
    bare = Lesson(apart, new, Contribution(training=training))
    whole, probed = price_of_training(bare, theta)
    share = _share(budget, whole, training.steps(samples), forecasts)
    remembered = growing = 0.0
    if contribution is None:
        options, remembered, growing = affordable(
            training.strategy if strategy is None else strategy,
            budget=share,
            training=whole,
            sample=whole / training.seen(samples),
            old=len(old),
            outputs=model.outputs(theta, new.train.x[:1]).shape[-1],
        )
        source = Source(seed, ("engine", "strategy"))
        plan = contribution_of(options, model, theta[None], old, new, training, source)
        lesson = Lesson(apart, new, plan)
    else:
        plan = foreseen(contribution)
        lesson = Lesson(apart, new, plan, replica, replicas)
    if not plan.plain:
        own, more = price_of_training(lesson, theta)
        whole, probed = max(whole, own), probed + more
    scored = (*old, new)
    passes = [*(OLD_PASSES for _ in old), NEW_PASSES]
    prices = prices_of(lesson, theta, probed + remembered)
    asked: _Asked = {
        "training": whole,
        "planned": plan.training.steps(samples),
        "largest": min(plan.training.samples_per_step, samples),
        "tests": [len(task.test) for task in scored],
        "passes": passes,
    }
    good = enough(prices, wanted=steps_wanted(plan.training, samples), **asked)
    if budget == AUTO:
        share = max(share, good)
    pays = allocate(
        prices,
        budget=share,
        wanted=steps_wanted(plan.training, samples, share),
        stretch=stretch or budget == AUTO,
        growing=growing,
        **asked,
    )
    beyond = "" if pays.within else STRETCHED if pays.smallest < 1 else DEARER
    beyond = REHEARSED if pays.whole else beyond
    tests = [
        drawn(task.test, n, seed, task.name) for task, n in zip(scored, pays.tests, strict=True)
    ]
    learner = replace(lesson, model=model.apart())  # its statistics move, those before stay
    end, last, norms = _train(learner, theta, pays, seed)
    after = learner.model
    readings = [
        read_old((model, after), (theta, end, last), task, test, beyond)
        for task, test in zip(old, tests, strict=False)
    ]
    fresh, start = read_new((model, after), (theta, end), new, tests[-1], beyond)
    ratio = pays.spent / whole
    note = f"Counted floating-point operations. {beyond}".rstrip()
    return CheapForecast(
        old=tuple(readings),
        new=fresh,
        cost_ratio=Estimate(value=ratio, cost=ratio * training.steps(samples), note=note),
        steps=pays.steps,
        batch=pays.batch,
        displacement=float((end - theta).norm()),
        wander=float((last - end).norm()),
        gradients=norms,
        new_loss_before=start,
        share=share,
        rehearsed=pays.whole,
        enough=good,
    )


class _Asked(TypedDict):
    """What both the least and the paid allocation are asked with."""

    training: float
    planned: int
    largest: int
    tests: list[int]
    passes: list[float]


def _share(budget: float | str, training: float, steps: int, forecasts: int) -> float:
    if not isinstance(budget, str):
        return budget
    if budget != AUTO:
        raise ValueError(f"budget = {budget!r} is none; pass a share, as 0.05, or 'auto'")
    return automatic(training, steps, forecasts=forecasts)


def _train(
    lesson: Lesson, theta: Tensor, pays: Allocation, seed: int
) -> tuple[Tensor, Tensor, tuple[float, float, float]]:
    """Take the compressed steps: the mean parameters of the last of them, the very last, norms."""
    split = lesson.new.train
    layout = lesson.model.layout
    short = compress(
        lesson.plan.training, len(split), steps=pays.steps, batch=pays.batch, layout=layout
    )
    step = lesson.step(pays.batch)
    update = step.optimiser_of(lesson.bound(short.update), lesson.replica)
    state = update.init(theta)
    slope, conditioner = _slope(step, lesson), stated(update).conditioner
    order = ordered(
        _order(lesson.plan.training, split, seed),
        lesson.model, theta[None], lesson.new, lesson.plan.training,
    )  # fmt: skip
    batches = _planned(order) if pays.whole else _spread(order, split, pays, seed, short.even)
    mean, pace, norms = torch.zeros_like(theta), Pace(short), list[float]()

    def slope_at(index: Tensor, point: Tensor) -> Slope:
        x, rows = lesson.draw(step, index.to(theta.device))
        mask = stream_seed(seed, "engine", "mask", len(norms))
        with lesson.model.training(mask):
            gradient, loss = slope(point, x, rows)
        gradient = conditioned(conditioner, point, x, gradient)
        norms.append(float(gradient.norm()))
        factor, rate = pace.of(len(norms) - 1, norms[-1])
        if isinstance(update, ImplicitTransport):

            def at(end: Tensor) -> Tensor:
                with lesson.model.training(mask, moving=False):  # the same draws everywhere
                    return slope(end, x, rows)[0]

            gradient, _ = update.solution(at, point, gradient, rate)
        return Slope(gradient if factor == 1 else gradient * factor, loss, rate)

    for taken in steps(update, state, (partial(slope_at, rows) for rows in batches)):
        last = taken.after[0]
        behind = taken.count - (pays.steps - short.tail)
        if behind > 0:
            mean += (last - mean) / behind
    late = norms[-max(1, len(norms) // 4) :]
    return mean, last, (norms[0], max(norms), math.fsum(late) / len(late))


def _slope(
    step: StrategyStep, lesson: Lesson
) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Give gradient and loss of one network, by plain autograd: small steps notice overhead."""
    if lesson.plan.reference is not None:  # two gradients
        return lambda theta, x, rows: step.gradient_of(lesson.replica, theta, x, rows)
    return slope_of(step.loss_of(lesson.replica))


def _batches(split: Split, size: int, seed: int, *, even: bool = True) -> Iterator[Tensor]:
    """Draw batches without end: shuffled passes, every class spread evenly over each if `even`.

    A few samples then weigh the classes as all do, which leaves less noise in the gradients.
    """
    generator = stream(seed, "engine", "batches")
    labels = split.y.cpu()
    unnamed = labels.is_floating_point() or labels.dim() > 1 or not even
    classes = None if unnamed else labels.unique()
    queue = torch.empty(0, dtype=torch.long)
    while True:
        while len(queue) < size:
            if in_order(split.x):
                queue = torch.cat([queue, torch.arange(len(split))])
                continue
            drawn = torch.randperm(len(split), generator=generator)
            if classes is not None:
                place = torch.empty(len(split), dtype=torch.float32)
                for label in classes:
                    own = drawn[labels[drawn] == label]
                    jitter = torch.rand(len(own), generator=generator, dtype=torch.float32)
                    place[own] = (torch.arange(len(own)) + jitter) / len(own)
                drawn = place.argsort()
            queue = torch.cat([queue, drawn])
        yield queue[:size]
        queue = queue[size:]


def _spread(
    order: DataOrder, split: Split, pays: Allocation, seed: int, even: bool
) -> Iterator[Tensor]:
    """Draw batches for a few steps; under a curriculum from what its stage at that share sees."""
    if order.curriculum is None or order.ranking is None:
        yield from islice(_batches(split, pays.batch, seed, even=even), pays.steps)
        return
    source = stream(seed, "engine", "batches")
    for k in range(pays.steps):
        seen = pool_size(order.curriculum, k / pays.steps, len(split))
        yield passes_over(order.ranking[0, :seen], pays.batch, source)


def _order(training: Training, split: Split, seed: int) -> DataOrder:
    return DataOrder.planned(
        training, len(split), replicas=1, seed=seed, path=("engine", "batches"),
        in_order=in_order(split.x),
    )  # fmt: skip


def _planned(order: DataOrder) -> Iterator[Tensor]:
    """Draw batches as the training itself does, in an order of their own."""
    for epoch in order.epoch_batches(torch.device("cpu")):
        for rows in epoch:
            yield rows[0]
