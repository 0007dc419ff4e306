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

import torch
from torch import Tensor
from torch.func import vmap

from capacity.compatibility.output_space import loss_on_outputs, task_outputs
from capacity.config import Strategy, Training
from capacity.dynamics.flat import FlatModel
from capacity.dynamics.seeds import stream
from capacity.dynamics.strategies.contribution import Contribution
from capacity.dynamics.strategies.replay import Replay
from capacity.dynamics.strategies.step import StrategyStep
from capacity.dynamics.strategies.terms import Source
from capacity.dynamics.updates import UpdateMap, from_training
from capacity.estimate import Estimate, Status, from_error, not_defined
from capacity.forecasting.budget import (
    Allocation,
    Prices,
    affordable,
    allocate,
    moving,
    operations,
)
from capacity.forecasting.compression import compress, steps_wanted
from capacity.forecasting.mitigated import contribution_of
from capacity.interruption import check
from capacity.tasks.task import Split, Task

_PROBES = (4, 16)
_PASSES_OF_TRAINING, _PASSES_OF_FORECAST = 6.0, 20.0
"""How often a step reads or writes every parameter beside the gradient's own work."""
_WANDER_PART = 0.25
"""Share of a test split that is also read at the last step."""

NOTE = (
    "The interval covers the finite test split and how far the end of the compressed training "
    "wanders, not its bias."
)
DEARER = (
    "No forecast of this training is cheaper than the training itself; this is the smallest one."
)
STRETCHED = "The training is so short that the budget pays no forecast; this is the smallest one."


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What becomes of one task.

    Attributes:
        drop: Accuracy before minus after.
        rise: Loss after minus before.
        accuracy: Accuracy afterwards.
        loss: Loss afterwards.
    """

    drop: Estimate
    rise: Estimate
    accuracy: Estimate
    loss: Estimate


@dataclass(frozen=True, kw_only=True)
class CheapForecast:
    """What the engine says.

    Attributes:
        old: Every old task.
        new: The new task, on its test split.
        cost_ratio: Operations spent over those of the training.
        steps: Steps of the compressed training.
        batch: Samples of each.
    """

    old: tuple[Reading, ...]
    new: Reading
    cost_ratio: Estimate
    steps: int
    batch: int


@torch.no_grad()
def forecast_cheaply(
    model: FlatModel,
    theta: Tensor,
    old: tuple[Task, ...],
    new: Task,
    training: Training,
    *,
    budget: float,
    stretch: bool = False,
    strategy: Strategy | None = None,
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
            under the strategy where this is dearer.
        stretch: Take the smallest forecast that there is where the budget pays none.
        strategy: What is done against forgetting; None takes the training's.
        seed: Seed of the samples drawn.

    Returns:
        The forecast, `uncalibrated`. A budget that pays no estimate is a ValueError that names the
        smallest that does.
    """
    options = training.strategy if strategy is None else strategy
    samples = len(new.train)
    bare = Contribution(training=training)
    whole, probed = _price_of_training(model, theta, new, bare)
    options, remembered = affordable(
        options,
        budget=budget,
        training=whole,
        sample=whole / (training.epochs * samples),
        old=len(old),
        outputs=model.outputs(theta, new.train.x[:1]).shape[-1],
    )
    source = Source(seed, ("engine", "strategy"))
    plan = contribution_of(options, model, theta[None], old, new, training, source)
    if not plan.plain:
        own, more = _price_of_training(model, theta, new, plan)
        whole, probed = max(whole, own), probed + more
    scored = (*old, new)
    # Old tasks are read before and at the end, and a part of them at the last step.
    passes = [*(2 + _WANDER_PART for _ in old), 1.0]
    pays = allocate(
        _prices(model, theta, new, plan, probed + remembered),
        budget=budget,
        training=whole,
        wanted=steps_wanted(plan.training, samples),
        planned=plan.training.steps(samples),
        largest=min(plan.training.batch_size, samples),
        tests=[len(task.test) for task in scored],
        passes=passes,
        stretch=stretch,
    )
    beyond = "" if pays.within else STRETCHED if pays.smallest < 1 else DEARER
    tests = [
        _drawn(task.test, n, seed, task.name) for task, n in zip(scored, pays.tests, strict=True)
    ]
    end, last = _train(model, theta, new, plan, pays, seed)
    readings = []
    for task, test in zip(scored, tests, strict=True):
        points = [end] if task is new else [end, theta]
        outputs = [task_outputs(model, point, task, test.x) for point in points]
        if task is not new:
            part = test.x[: math.ceil(_WANDER_PART * len(test))]
            outputs.append(task_outputs(model, last, task, part))
        readings.append(_reading(outputs, task, test, beyond))
    ratio = pays.spent / whole
    note = f"Counted floating-point operations. {beyond}".rstrip()
    return CheapForecast(
        old=tuple(readings[:-1]),
        new=readings[-1],
        cost_ratio=Estimate(value=ratio, cost=ratio * training.steps(samples), note=note),
        steps=pays.steps,
        batch=pays.batch,
    )


def _train(
    model: FlatModel, theta: Tensor, new: Task, plan: Contribution, pays: Allocation, seed: int
) -> tuple[Tensor, Tensor]:
    """Take the compressed steps: the mean parameters of the last of them, and the very last."""
    short = compress(plan.training, len(new.train), steps=pays.steps, batch=pays.batch)
    step = StrategyStep(model, new, _narrowed(plan, new, pays.batch), 1)
    update = step.update(short.update)
    state = update.init(theta[None])
    slope = _slope(step, plan)
    batches = _batches(new.train, pays.batch, seed)
    mean, longest = torch.zeros_like(theta), math.inf
    for count, rate in enumerate(short.rates, start=1):
        check()
        index = next(batches).to(theta.device)
        x, _, rows = step.draw(index[None])
        gradient = slope(state[0][0], x[0], rows[0])[None]
        norm = float(gradient.norm())
        if count == 1:
            longest = short.clip * norm
        if norm > longest:
            gradient = gradient * (longest / norm)
        state = update.step(state, gradient, rate, count)
        behind = count - (pays.steps - short.tail)
        if behind > 0:
            mean += (state[0][0] - mean) / behind
    return mean, state[0][0]


def _slope(step: StrategyStep, plan: Contribution) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Give the gradient of one network, by plain autograd: its small steps notice the overhead."""
    if plan.reference is not None:  # two gradients
        return lambda theta, x, rows: step.gradient_of(0, theta, x, rows)
    loss = step.loss_of(0)

    def slope(theta: Tensor, x: Tensor, rows: Tensor) -> Tensor:
        with torch.enable_grad():
            point = theta.detach().requires_grad_()
            return torch.autograd.grad(loss(point, x, rows), point)[0]

    return slope


def _narrowed(plan: Contribution, new: Task, batch: int) -> Contribution:
    """Draw from a memory in the proportion of the batches."""
    share = batch / min(plan.training.batch_size, len(new.train))

    def less(memory: Replay | None) -> Replay | None:
        if memory is None:
            return None
        return replace(memory, batch=min(max(1, round(memory.batch * share)), memory.size))

    return replace(plan, replay=less(plan.replay), reference=less(plan.reference))


def _batches(split: Split, size: int, seed: int) -> Iterator[Tensor]:
    """Draw batches without end: shuffled passes, every class spread evenly over each.

    A few samples then weigh the classes as all do, which leaves less noise in the gradients.
    """
    generator = stream(seed, "engine", "batches")
    labels = split.y.cpu()
    classes = None if labels.is_floating_point() or labels.dim() > 1 else labels.unique()
    queue = torch.empty(0, dtype=torch.long)
    while True:
        while len(queue) < size:
            drawn = torch.randperm(len(split), generator=generator)
            if classes is not None:
                place = torch.empty(len(split))
                for label in classes:
                    own = drawn[labels[drawn] == label]
                    jitter = torch.rand(len(own), generator=generator)
                    place[own] = (torch.arange(len(own)) + jitter) / len(own)
                drawn = place.argsort()
            queue = torch.cat([queue, drawn])
        yield queue[:size]
        queue = queue[size:]


def _price_of_training(
    model: FlatModel, theta: Tensor, new: Task, plan: Contribution
) -> tuple[float, float]:
    """Count a planned training, and what counting it took."""
    training, samples = plan.training, len(new.train)
    size = min(training.batch_size, samples)
    one = _price_of_step(model, theta, new, plan, from_training(training), size)
    # An epoch sees every sample once: its last batch may be smaller than the one counted.
    step = one + moving(model.size, _PASSES_OF_TRAINING)
    return max(step * samples / size * training.epochs, 1.0), one


def _price_of_step(
    model: FlatModel, theta: Tensor, new: Task, plan: Contribution, update: UpdateMap, size: int
) -> float:
    step = StrategyStep(model, new, _narrowed(plan, new, size), 1)
    own = step.update(update)
    x, _, rows = step.draw(torch.arange(size, device=theta.device)[None])

    def take() -> None:
        gradient = step.gradient_of(0, theta, x[0], rows[0])
        own.step(own.init(theta[None]), gradient[None], 0.0, 1)

    return operations(take)


def _prices(model: FlatModel, theta: Tensor, new: Task, plan: Contribution, spent: float) -> Prices:
    """Price the parts of a compressed training by steps of two sizes."""
    update = from_training(plan.training)
    few, many = (min(size, len(new.train)) for size in _PROBES)
    low, high = (_price_of_step(model, theta, new, plan, update, n) for n in (few, many))
    sample = (high - low) / (many - few) if many > few else low / few
    forward = operations(lambda: model.outputs(theta, new.test.x[:few]))
    return Prices(
        step=max(low - sample * few, 0.0) + moving(model.size, _PASSES_OF_FORECAST),
        sample=sample,
        test=forward / min(few, len(new.test)),
        spent=spent + low + high + forward,
    )


def _drawn(split: Split, count: int, seed: int, name: str) -> Split:
    if count >= len(split):
        return split
    generator = stream(seed, "engine", "test", name)
    index = torch.randperm(len(split), generator=generator)[:count].to(split.x.device)
    return Split(split.x[index], split.y[index])


def _reading(outputs: list[Tensor], task: Task, test: Split, beyond: str) -> Reading:
    """Read a task off its outputs: at the end; for an old one also before, and at the last step."""
    loss = loss_on_outputs(task)
    y = test.y.double() if test.y.is_floating_point() else test.y
    note = f"{NOTE} {beyond}".rstrip()

    def said(value: float, samples: Tensor, wander: float) -> Estimate:
        spread = float(samples.std()) if len(samples) > 1 else math.nan
        error = math.hypot(spread / math.sqrt(len(samples)), wander)
        return (
            from_error(value, error, n=len(samples), status=Status.UNCALIBRATED, note=note)
            if math.isfinite(value) and math.isfinite(error)
            else Estimate(value=None, status=Status.DIVERGED, note=note)
        )

    def both(values: list[Tensor]) -> tuple[Estimate, Estimate]:
        """The value at the end, and its change: there is one where the task was read before."""
        value = float(values[0].mean())
        if len(values) == 1:
            end = said(value, values[0], 0.0)
            return end, end
        _, before, last = values
        wander = abs(float((values[0][: len(last)] - last).mean()))
        change = values[0] - before
        return said(value, values[0], wander), said(float(change.mean()), change, wander)

    # A mean loss over one sample each gives the spread, whatever the loss.
    each = vmap(lambda f, target: loss(f[None], target[None]))
    end, rise = both([each(f, y[: len(f)]).double() for f in outputs])
    if not task.classifies:
        nothing = not_defined("Accuracy is not defined for regression; read the loss.")
        return Reading(drop=nothing, rise=rise, accuracy=nothing, loss=end)
    right = [(f.argmax(-1) == y[: len(f)]).double() for f in outputs]
    accuracy, _ = both(right)
    _, drop = both([1 - r for r in right])
    return Reading(drop=drop, rise=rise, accuracy=accuracy, loss=end)
