"""What a forecast may spend, in counted operations, and the steps and samples that this pays.

Operations of matrix products and convolutions are counted, as `cost_ratio` counts them, so a budget
buys the same on every machine. What a step does to every parameter besides is counted where the
parameters do not fit into a cache: there it takes time, and more of it in small steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from torch.utils.flop_counter import FlopCounterMode

from capacity.forecasting.compression import FEWEST_STEPS, SMALLEST_BATCH
from capacity.recipe.config import Strategy
from capacity.strategies.mitigation import from_options

FEWEST_TESTS = 32
"""Test samples of a task below which its accuracy says nothing."""
_FEWEST_REMEMBERED = 8
"""Samples below which importances and bases say nothing."""

SHARE = 0.05
"""Least share of a training that `auto` spends."""
AUTO: Final = "auto"
_RATE, _FASTEST = 1e10, 3e10
"""Operations per second of training on one core, in small steps and in the largest; constants, no
timings, so that a forecast is the same on every machine (`benchmarks/forecast/rate.py`)."""
_SMALL_STEP, _FASTER = 3e8, 0.25
"""Operations of a step up to which the rate is the least, and the power with which it grows."""
_STEP = 8e6
"""Operations that take as long as what a step does beside its arithmetic: 0.8 ms of a network of
2,400 parameters."""
_SECONDS, _SHORT = 10.0, 60.0
"""What `auto` spends in all where that is more; and how long all the trainings forecast may take to
be rehearsed instead."""
_COPIES = 4
"""Most copies that rehearse a training, each in a data order of its own."""
_MOST = 0.5
"""Most of a training that `auto` spends on a forecast of it."""
_READ = 100
"""Test samples of a task that are read where they take less than half of a budget."""

_TESTS = 0.3
"""Most of a budget that reading the test splits may take."""
_CACHED = 1 << 17
"""Parameters that a cache holds."""
_MOVE = 25.0
"""Operations that take as long as moving a number to or from beyond the cache."""
_MEMORIES = 0.2
"""Most of a budget that a strategy's importances and bases may take."""


def operations(run: Callable[[], object]) -> float:
    """Count what a call does.

    Args:
        run: The call.

    Returns:
        Floating-point operations of its matrix products and convolutions.
    """
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def moving(parameters: int, passes: float) -> float:
    """Count passes over the parameters as operations.

    Args:
        parameters: P.
        passes: Numbers read or written for each parameter.

    Returns:
        Operations that take as long.
    """
    return _MOVE * passes * max(0, parameters - _CACHED)


def automatic(training: float, steps: int, *, forecasts: int = 1) -> float:
    """Say what `auto` spends.

    Args:
        training: The training's operations.
        steps: Its steps.
        forecasts: How many forecasts like it are made together: they share the time.

    Returns:
        Share of the training's operations, a sixth at most; infinite for a rehearsal of a short
        one.
    """
    time = forecasts * seconds(training, steps)
    if time <= _SHORT:
        return math.inf
    return max(SHARE, _SECONDS / time)


def copies(training: float, steps: int, *, forecasts: int = 1) -> int:
    """Say how many copies rehearse a training: as many as take about ten seconds.

    Args:
        training: The training's operations.
        steps: Its steps.
        forecasts: How many forecasts like it are made together.

    Returns:
        The copies, at least one and at most four.
    """
    return max(1, min(_COPIES, int(_SECONDS / (forecasts * seconds(training, steps)))))


def seconds(training: float, steps: int) -> float:
    """Say how long a training takes on one core, by its operations.

    Args:
        training: The operations.
        steps: Its steps.

    Returns:
        Seconds, of a processor like that of `benchmarks/forecast/rate.py`.
    """
    larger = max(1.0, training / steps / _SMALL_STEP)
    return training / min(_FASTEST, _RATE * larger**_FASTER) + _STEP * steps / _RATE


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What the parts of a forecast cost, in operations.

    Attributes:
        step: One step, whatever its batch.
        sample: One sample of a step.
        test: One forward pass of a test sample.
        spent: What finding out cost, and what a strategy remembers.
    """

    step: float
    sample: float
    test: float
    spent: float

    def training(self, steps: int, batch: float) -> float:
        """Price steps.

        Args:
            steps: How many.
            batch: Samples of each.

        Returns:
            Operations.
        """
        return steps * (self.step + self.sample * batch)


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """What a budget pays.

    Attributes:
        steps: Steps of the compressed training.
        batch: Samples of each.
        tests: Test samples of every old task, then of the new one.
        spent: Operations in all.
        smallest: The least budget (a share of the training) that pays a forecast.
        within: Whether this forecast stays within the budget.
        whole: Whether these are all the training's steps, as large as its own.
    """

    steps: int
    batch: int
    tests: tuple[int, ...]
    spent: float
    smallest: float
    within: bool
    whole: bool = False


def allocate(
    prices: Prices,
    *,
    budget: float,
    training: float,
    wanted: float,
    planned: int,
    largest: int,
    tests: Sequence[int],
    passes: Sequence[float],
    stretch: bool = False,
    growing: float = 0.0,
) -> Allocation:
    """Find the steps, batch and test samples that a budget pays.

    Args:
        prices: What the parts cost.
        budget: Share of the training's operations; infinite for all of the training's own steps.
        training: The training's operations.
        wanted: Steps that stability asks for (`compression.steps_wanted`).
        planned: Steps of the training; no more are of use.
        largest: The training's batch; no larger one is of use.
        tests: Test samples that there are, for every task scored.
        passes: How often each of them is read, on average over its samples.
        stretch: Take the smallest forecast that there is where the budget pays none.
        growing: Share of a larger budget that what a strategy remembers would take.

    Returns:
        The allocation.

    Raises:
        ValueError: If the budget pays no estimate although one cheaper than the training exists,
            and must not be stretched.
    """
    room = budget * training - prices.spent
    narrowest, fewest = min(SMALLEST_BATCH, largest), min(FEWEST_STEPS, planned)
    least_tests = [min(have, FEWEST_TESTS) for have in tests]

    def reading(read: Sequence[int]) -> float:
        return prices.test * sum(n * k for n, k in zip(read, passes, strict=True))

    cheapest = prices.training(fewest, narrowest) + reading(least_tests)
    smallest = (cheapest + prices.spent) / training
    if math.isinf(budget):
        return Allocation(
            steps=planned,
            batch=largest,
            tests=tuple(tests),
            spent=prices.spent + prices.training(planned, largest) + reading(tests),
            smallest=smallest,
            within=True,
            whole=True,
        )
    if cheapest > room:
        if smallest < 1 and not stretch:
            # Rounded up, so that the number named works.
            named = math.ceil((smallest - growing * budget) / (1 - growing) * 1000) / 1000
            raise ValueError(
                f"budget = {budget:g} pays no forecast of this training; the smallest that does is "
                f"{named:g} of the training's operations; pass at least that, or budget=None for "
                "the full simulation"
            )
        return Allocation(
            steps=fewest,
            batch=narrowest,
            tests=tuple(least_tests),
            spent=prices.spent + cheapest,
            smallest=smallest,
            within=False,
        )
    everything = reading(tests)
    part = 1.0 if everything == 0 else min(1.0, _TESTS * room / everything)
    some = [min(have, _READ) for have in tests]
    if reading(some) > room / 2:
        some = least_tests
    read = [max(low, int(part * have)) for low, have in zip(some, tests, strict=True)]
    left = room - reading(read)
    if left < prices.training(fewest, narrowest):
        read = least_tests
        left = room - reading(read)

    def paid(batch: int) -> int:
        return int(left / prices.training(1, batch))

    enough_steps = min(max(wanted, fewest), planned)
    batch = next((b for b in range(largest, narrowest, -1) if paid(b) >= enough_steps), narrowest)
    steps = min(max(paid(batch), fewest), planned)
    return Allocation(
        steps=steps,
        batch=batch,
        tests=tuple(read),
        spent=prices.spent + prices.training(steps, batch) + reading(read),
        smallest=smallest,
        within=True,
        whole=steps == planned and batch == largest,
    )


def enough(
    prices: Prices,
    *,
    training: float,
    wanted: float,
    planned: int,
    largest: int,
    tests: Sequence[int],
    passes: Sequence[float],
) -> float:
    """Say what share of a training pays the steps that compressing it wants, and a fair reading.

    A training of few steps cannot be compressed to a twentieth: what is left of it is too short.

    Args:
        prices: What the parts cost.
        training: The training's operations.
        wanted: Steps that stability asks for (`compression.steps_wanted`).
        planned: Steps of the training.
        largest: The training's batch.
        tests: Test samples that there are, for every task scored.
        passes: How often each of them is read.

    Returns:
        The share, at most half.
    """
    steps = min(max(FEWEST_STEPS, math.ceil(wanted)), planned)
    read = [min(have, _READ) for have in tests]
    reading = prices.test * sum(n * k for n, k in zip(read, passes, strict=True))
    whole = prices.spent + prices.training(steps, min(SMALLEST_BATCH, largest)) + reading
    return min(_MOST, whole / training)


def affordable(
    options: Strategy, *, budget: float, training: float, sample: float, old: int, outputs: int
) -> tuple[Strategy, float, float]:
    """Let a strategy remember no more than a budget pays.

    Args:
        options: The strategy.
        budget: Share of the training's operations.
        training: The training's operations.
        sample: Operations of the gradient of one sample.
        old: Number of old tasks.
        outputs: Outputs of the network, each of which has a gradient of its own.

    Returns:
        The strategy, with fewer samples behind its importances or bases where all are too dear; the
        operations that these take; and the share that they would take of a larger budget.
    """
    price = from_options(options).price(sample, old, outputs)
    if not price.sample or math.isinf(budget):
        return options, price.whole, 0.0
    most = max(_FEWEST_REMEMBERED, int(_MEMORIES * budget * training / price.sample))
    thinned = from_options(options).thinned(most)
    taken = thinned.price(sample, old, outputs).whole
    return thinned, taken, _MEMORIES if taken < price.whole else 0.0
