"""A planned training, compressed into a few small steps of the network itself.

Training for a few per cent of the sample gradients reaches what the whole training reaches if the
same learning time S = sum of rates / (1 - momentum) goes by in it, and if nothing else comes in:
neither instability of the larger steps nor the noise of the fewer samples. Heavy-ball momentum
gives both: a step is stable up to lr < 2 (1 + mu) / lambda_max, and the noise of 1 / (1 - mu)
steps averages out. So SGD and heavy ball become heavy ball with a larger mu and the rates that keep
S; Adam and RMSprop, whose steps have the size of the rate whatever the gradient, keep their sum of
rates and forget their moments in the same share of the training as before.

How long a step may be is decided on the way (`Pace`): a new task that the network gets all wrong
begins with gradients that the larger steps would multiply, and that a training of small steps never
follows for long.

The constants below were chosen on pairs of tasks that no score is given for: those of
`benchmarks/forecast/engine_check.py`, and the development half of the scored grid. The method is
this project's own; learning time as in theory.md#learning-time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from capacity.optimizers import REGISTRY
from capacity.optimizers.clipped import Clipped
from capacity.optimizers.from_recipe import NamedSizes, from_training
from capacity.optimizers.optimizer import FollowsGradient, NormalisedSteps
from capacity.optimizers.update_map import UpdateMap
from capacity.recipe.config import Training

FEWEST_STEPS = 24
"""Steps below which nothing of a training is left; all of a shorter one. On the development half
errors of forecasts of 8 steps halve with 24 (`benchmarks/forecast/score_physics.py`)."""

SMALLEST_BATCH = 8

_HORIZON = 12.0
"""Momentum remembers 1 / this of all steps."""
_STABLE = 1.33
"""Steps that stay stable, squared, over horizon * steps * (1 + mu) / (1 - mu) of the training: a
training has come to where its own steps are just stable, at a curvature of 2 (1 + mu) / lr."""
_ADAPTIVE = 4.0
"""Steps of a method with normalised steps, over the root of the training's."""
_CLIP, _CLIP_ADAPTIVE = 0.15, 0.1
"""Largest norm of a gradient, over that of the largest one, and with normalised steps of the first.
"""
_REMEMBERED = 0.8
"""Weight of what was before in the running mean of the gradients' norms."""
_CATCH_UP = 2.0
"""Most that a rate may grow to make up for learning time lost to shortened gradients."""
_WANDER = 0.3
"""Share of the learning time that the larger noise makes up for, at a twentieth of the samples."""
_TAIL = 0.3
"""Share of the steps whose mean is the end of the training."""
_OWN_NOISE = 0.4
"""Share of the training's batch from which on normalised steps are drawn as the training draws its
own. Spread evenly over the classes such a batch has less noise than the training's, and the steps,
whose size is that of gradient over noise, learn more and forget too much. Chosen at 35 and 50 % of
the training on the development half (`benchmarks/forecast/score_budgets.py` shows what is left)."""
_TWENTIETH = 0.05
"""Share of the samples at which this and `_ADAPTIVE` were chosen."""


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """Steps that stand for a training.

    Attributes:
        rates: Learning rate of each.
        update: Their update map.
        clip: Largest norm of a gradient, over that of the largest one before it.
        stretch: Learning time of a step over that of a planned one, at least one; None for methods
            with normalised steps.
        tail: Steps at the end whose mean parameters are the result, at least one.
        even: Whether batches are spread evenly over the classes.
    """

    rates: tuple[float, ...]
    update: UpdateMap
    clip: float
    stretch: float | None
    tail: int
    even: bool = True


class Pace:
    """How long each step of a compressed training may be.

    A gradient is shortened to a share of the largest one so far, but to no less than what the
    training itself would have gone along the usual gradient of that moment. The learning time that
    goes by is then less, and the next rates make up for it.

    Args:
        steps: The compressed training.
    """

    def __init__(self, steps: Compressed) -> None:
        self._steps = steps
        self._left = math.fsum(steps.rates)
        self._debt = 0.0
        self._largest = self._usual = math.nan

    def of(self, step: int, norm: float) -> tuple[float, float]:
        """Decide about a step.

        Args:
            step: Its number, from 0, in turn.
            norm: Norm of its gradient.

        Returns:
            Factor of the gradient, at most one, and the rate.
        """
        short, rate = self._steps, self._steps.rates[step]
        if step == 0 or self._largest == 0:
            self._largest = self._usual = norm
        longest = short.clip * self._largest
        if short.stretch is not None:
            self._largest = max(self._largest, norm)
            # One odd batch is not what is usual.
            seen = min(norm, 2 * self._usual)
            self._usual = _REMEMBERED * self._usual + (1 - _REMEMBERED) * seen
            longest = max(short.clip * self._largest, self._usual / short.stretch)
        factor = min(1.0, longest / norm) if norm > 0 else 1.0
        if short.stretch is not None and self._left > 0:
            wanted = rate * min(_CATCH_UP, 1 + self._debt / self._left)
            self._left -= rate
            self._debt += rate - wanted * factor
            rate = wanted
        return factor, rate


def unknown_to_compression(training: Training) -> str | None:
    """Say what of a plan cannot be compressed.

    Args:
        training: The plan.

    Returns:
        The setting, for people; None where everything can.
    """
    known = training.optimizer in REGISTRY.names()
    if known and from_training(training).compression() is not None:
        return None
    return f"optimizer {training.optimizer!r}"


def excess_noise(share: float) -> float:
    """Say how much more noise a compressed training has than the training, over a twentieth of it.

    The same learning time over a share of the samples has 1 / share times the variance.

    Args:
        share: Samples seen, over those of the training.

    Returns:
        The excess over that of a twentieth, at most one; 0 for all samples.
    """
    return min(1.0, (1 / share - 1) / (1 / _TWENTIETH - 1))


def steps_wanted(training: Training, samples: int, budget: float = _TWENTIETH) -> float:
    """Say in how many steps a training can be compressed without losing stability.

    Args:
        training: The plan.
        samples: Training samples of the task.
        budget: Share of the training's operations to spend. Steps of normalised size that stand for
            several multiply their random walk, so what is paid beyond a twentieth buys them steps,
            up to all of the training's, before it buys larger batches.

    Returns:
        The steps; fewer batches of more samples are then better than more steps.
    """
    kind, steps = _compression(training), training.steps(samples)
    if isinstance(kind, FollowsGradient):
        mu = kind.momentum
        return math.sqrt(_STABLE * _HORIZON * steps * (1 + mu) / (1 - mu))
    return min(steps, _ADAPTIVE * math.sqrt(steps) * max(1.0, budget / _TWENTIETH))


def compress(
    training: Training,
    samples: int,
    *,
    steps: int,
    batch: int,
    layout: NamedSizes | None = None,
) -> Compressed:
    """Compress a training.

    With as many sample gradients as the training has, it is the training itself.

    Args:
        training: The plan; `unknown_to_compression` knows nothing of it.
        samples: Training samples of the task.
        steps: Steps to take, at least one.
        batch: Samples per step.
        layout: Names and sizes of the network's parameters, which groups name.

    Returns:
        The steps.
    """
    kind = _compression(training, layout)
    planned = training.learning_rates(samples)
    share = min(1.0, steps * batch / training.seen(samples))
    noise = excess_noise(share)
    stretch = max(1.0, len(planned) / steps)
    # The planned schedule, read at the middle of every step: it keeps its shape. A rate that is 0
    # but for fewer steps than one stands for has none there, and goes by its mean.
    shape = [planned[int((k + 0.5) * len(planned) / steps)] for k in range(steps)]
    if not any(shape):
        shape = [math.fsum(planned) / len(planned)] * steps
    total = math.fsum(planned)
    clip, longer, averaged = _CLIP_ADAPTIVE, None, 1.0
    even = batch < _OWN_NOISE * min(training.samples_per_step, samples)
    if isinstance(kind, FollowsGradient):
        own = 1 - kind.momentum
        # From the horizon for small shares to the training's own momentum for all of it.
        held = min(1.0, _HORIZON / steps) ** (1 - share) * own**share
        total *= (1 - _WANDER * (1 - share) * noise) * held / own
        nesterov = kind.nesterov if share == 1 else True
        update = kind.heavy(1 - held, nesterov)
        # A training without momentum ends with noise of its own, which no mean may take away.
        averaged = 1.0 if kind.momentum else noise
        clip, longer = _CLIP, max(1.0, total / math.fsum(shape) * own / held)
        even = True
    else:
        update = kind.stretched(stretch)
    if training.clip_norm is not None:
        update = Clipped(update, training.clip_norm)
    scale = total / math.fsum(shape)
    return Compressed(
        rates=tuple(rate * scale for rate in shape),
        update=update,
        clip=math.inf if share == 1 else clip / (1 - share),
        stretch=longer,
        tail=max(1, round(_TAIL * (1 - share) * averaged * steps)),
        even=even,
    )


def _compression(
    training: Training, layout: NamedSizes | None = None
) -> FollowsGradient | NormalisedSteps:
    kind = from_training(training, layout=layout).compression()
    if kind is None:
        raise ValueError(
            f"training.optimizer = {training.optimizer!r} states no compression; give its class "
            "the method, or simulate with budget=None"
        )
    return kind
