"""A planned training, compressed into a few small steps of the network itself.

Training for a few per cent of the sample gradients reaches what the whole training reaches if the
same learning time S = sum of rates / (1 - momentum) goes by in it, and if nothing else comes in:
neither instability of the larger steps nor the noise of the fewer samples. Heavy-ball momentum
gives both: a step is stable up to lr < 2 (1 + mu) / lambda_max, and the noise of 1 / (1 - mu)
steps averages out. So SGD and heavy ball become heavy ball with a larger mu and the rates that keep
S; Adam and RMSprop, whose steps have the size of the rate whatever the gradient, keep their sum of
rates and forget their moments in the same share of the training as before.

The constants below were chosen on pairs of tasks of their own, none of which is in a scored grid
(`benchmarks/forecast/engine_check.py` has them, and how close the forecasts come there). The method
is this project's own; learning time as in theory, section 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from capacity.config import Training
from capacity.dynamics.updates import Adam, Clipped, Momentum, RMSprop, UpdateMap

FEWEST_STEPS = 8
"""Steps below which nothing of a training is left."""

SMALLEST_BATCH = 4

_HORIZON = 8.0
"""Momentum remembers 1 / this of all steps."""
_STABLE = 0.77
"""Steps that stay stable, squared, over horizon * steps * (1 + mu) / (1 - mu) of the training: a
training has come to where its own steps are just stable, at a curvature of 2 (1 + mu) / lr."""
_ADAPTIVE = 4.0
"""Steps of a method with normalised steps, over the root of the training's."""
_CLIP = 0.2
"""Largest norm of a gradient, over that of the first one."""
_WANDER = 0.3
"""Share of the learning time that the larger noise makes up for."""
_TAIL = 0.3
"""Share of the steps whose mean is the end of the training."""


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """Steps that stand for a training.

    Attributes:
        rates: Learning rate of each.
        update: Their update map.
        clip: Largest norm of a gradient, over that of the first one.
        tail: Steps at the end whose mean parameters are the result, at least one.
    """

    rates: tuple[float, ...]
    update: UpdateMap
    clip: float
    tail: int


def unknown_to_compression(training: Training) -> str | None:
    """Say what of a plan cannot be compressed.

    Args:
        training: The plan.

    Returns:
        The setting, for people; None where everything can.
    """
    # The noise of a step at a temperature is not that of several steps in one.
    return "optimizer 'sgld'" if training.optimizer == "sgld" else None


def steps_wanted(training: Training, samples: int) -> float:
    """Say in how many steps a training can be compressed without losing stability.

    Args:
        training: The plan.
        samples: Training samples of the task.

    Returns:
        The steps; fewer batches of more samples are then better than more steps.
    """
    steps = training.steps(samples)
    if training.optimizer in {"sgd", "momentum"}:
        mu = _momentum(training)
        return math.sqrt(_STABLE * _HORIZON * steps * (1 + mu) / (1 - mu))
    return _ADAPTIVE * math.sqrt(steps)


def compress(training: Training, samples: int, *, steps: int, batch: int) -> Compressed:
    """Compress a training.

    With as many sample gradients as the training has, it is the training itself.

    Args:
        training: The plan; `unknown_to_compression` knows nothing of it.
        samples: Training samples of the task.
        steps: Steps to take, at least one.
        batch: Samples per step.

    Returns:
        The steps.
    """
    planned = training.learning_rates(samples)
    share = min(1.0, steps * batch / (training.epochs * samples))
    stretch = max(1.0, len(planned) / steps)
    decay = training.weight_decay
    # The planned schedule, read at the middle of every step: it keeps its shape.
    shape = [planned[int((k + 0.5) * len(planned) / steps)] for k in range(steps)]
    total = math.fsum(planned)
    if training.optimizer in {"sgd", "momentum"}:
        own = 1 - _momentum(training)
        # From the horizon for small shares to the training's own momentum for all of it.
        held = min(1.0, _HORIZON / steps) ** (1 - share) * own**share
        total *= (1 - _WANDER * (1 - share)) * held / own
        nesterov = training.nesterov if share == 1 else True
        update: UpdateMap = Momentum(1 - held, nesterov, decay)
    elif training.optimizer == "rmsprop":
        update = RMSprop(training.alpha**stretch, training.eps, decay)
    else:
        first, second = training.betas
        update = Adam(
            first ** math.sqrt(stretch),
            second**stretch,
            training.eps,
            decay,
            decoupled=training.optimizer == "adamw",
            name=training.optimizer,
        )
    if training.clip_norm is not None:
        update = Clipped(update, training.clip_norm)
    scale = total / math.fsum(shape)
    return Compressed(
        rates=tuple(rate * scale for rate in shape),
        update=update,
        clip=math.inf if share == 1 else _CLIP / (1 - share),
        tail=max(1, round(_TAIL * (1 - share) * steps)),
    )


def _momentum(training: Training) -> float:
    return training.momentum if training.optimizer == "momentum" else 0.0
