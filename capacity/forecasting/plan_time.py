"""How a planned training counts as time of a flow, and in which metric it flows.

A step is worth its rate, with heavy ball lr/(1 - mu). Methods that divide by the root of squared
gradients flow in the metric of these roots, taken at the start, and faster as the gradients shrink:
the root of their running mean follows. Clipped gradients flow slower. Weight decay pulls theta to 0
beside the flow (theory.md#pseudo-kernel-flow).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.optimizers import REGISTRY
from capacity.optimizers.from_recipe import NamedSizes, from_training
from capacity.optimizers.grouped import Grouped
from capacity.optimizers.optimizer import FollowsGradient, NormalisedSteps
from capacity.recipe.config import Training

_SEGMENTS = 12
"""Parts of a training within which the metric stands still."""


@dataclass(frozen=True, kw_only=True)
class FlowPlan:
    """A training as time of a flow.

    Attributes:
        times: Learning time of each step, were the metric still.
        shrinks: Exponent by which each step pulls theta to 0; 0 without weight decay.
        squares: Decay of the running mean of squared gradients; None where steps follow the
            gradient itself.
        debiased: Whether that mean is corrected for its start at 0.
        eps: Added to its root.
        clip: Largest norm of a gradient; None clips none.
        scale: Rate of each parameter, relative to that of the step (P,); None where all have it.
        pulled: How much of the weight decay each parameter has, on average 1 (P,); None likewise.
        batch: Samples of a step.
    """

    times: tuple[float, ...]
    shrinks: tuple[float, ...]
    squares: float | None
    debiased: bool
    eps: float
    clip: float | None
    scale: Tensor | None
    pulled: Tensor | None
    batch: int

    @property
    def normalised(self) -> bool:
        """Whether steps have the size of the rate, whatever the gradient."""
        return self.squares is not None

    @property
    def steady(self) -> bool:
        """Whether time passes alike whatever the gradients do, and nothing decays."""
        return not self.normalised and self.clip is None and not any(self.shrinks)

    def segments(self) -> list[slice]:
        """Cut the steps into parts, short ones first: there most happens.

        Returns:
            Ranges of steps that cover all; a single one where time is steady.
        """
        n = len(self.times)
        if self.steady:
            return [slice(0, n)]
        count = min(n, _SEGMENTS)
        ends = sorted({math.ceil(n * (k / count) ** 2) for k in range(count + 1)})
        return [slice(a, b) for a, b in itertools.pairwise(ends)]


class Clock:
    """Tells how much learning time passes in steps whose gradients have some size.

    Args:
        plan: The training.
        norm: Root mean square norm of a batch's gradient at the start.
    """

    def __init__(self, plan: FlowPlan, norm: float) -> None:
        self._plan, self._norm = plan, norm
        self._mean, self._count = 0.0, 0

    def passed(self, steps: slice, size: float) -> float:
        """Let steps pass.

        Args:
            steps: Their numbers, next in turn.
            size: Their gradients' mean square over that of the start.

        Returns:
            The learning time.
        """
        plan, times = self._plan, self._plan.times[steps]
        norm, cut = self._norm * math.sqrt(size), 1.0
        if plan.clip is not None:
            cut = min(1.0, plan.clip / max(norm, 1e-300))
        if plan.squares is None:
            return cut * math.fsum(times)
        return cut * math.fsum(time * self._stretch(size * cut**2, plan.squares) for time in times)

    def _stretch(self, size: float, keep: float) -> float:
        self._count += 1
        self._mean = keep * self._mean + (1 - keep) * size
        known = 1 - keep**self._count if self._plan.debiased else 1.0
        return math.sqrt(known / max(self._mean, 1e-300))


def flow_plan(training: Training, samples: int, layout: NamedSizes) -> FlowPlan:
    """Read a training as time of a flow.

    Args:
        training: The plan; its strategy is none of this function's business.
        samples: Training samples of the task.
        layout: Names and sizes of the network's parameters.

    Returns:
        The time.

    Raises:
        ValueError: If no flow is known to stand for the optimiser, which is named.
    """
    name = training.optimizer
    update = from_training(training, layout=layout).unclipped if name in REGISTRY.names() else None
    maps = update.maps if isinstance(update, Grouped) else () if update is None else (update,)
    kinds = [each.compression() for each in maps]
    kind = kinds[0] if kinds else None
    flows = kind is not None and (
        kind.euclidean if isinstance(kind, FollowsGradient) else kind.squares is not None
    )
    if not flows:
        raise ValueError(
            f"training.optimizer = {name!r} states no flow; give its class a compression() that "
            "follows the gradient, or one that says which mean of squares divides its steps"
        )
    rates = training.learning_rates(samples)
    decays = [0.0 if each is None else each.decay for each in kinds]
    normalised = kind if isinstance(kind, NormalisedSteps) else None
    if normalised is not None and any(decays) and not normalised.decoupled:
        raise ValueError(
            f"weight_decay = {max(decays):g} is added to the gradient that {name!r} divides, and "
            "no flow is known to stand for that; take adamw, or weight_decay=0"
        )
    own = 1 - kind.momentum if isinstance(kind, FollowsGradient) else 1.0
    times = [rate / own for rate in rates]
    scale = pulled = None
    decay = decays[0]
    if isinstance(update, Grouped):
        scale = _spread(update, update.scales)
        decay_each = _spread(update, [d * s for d, s in zip(decays, update.scales, strict=True)])
        decay = float(decay_each.mean())
        pulled = decay_each / decay if decay else None
    return FlowPlan(
        times=tuple(times),
        shrinks=tuple(decay * time for time in times) if decay else (0.0,) * len(times),
        squares=None if normalised is None else normalised.squares,
        debiased=normalised is not None and normalised.debiased,
        eps=0.0 if normalised is None else normalised.eps,
        clip=training.clip_norm,
        scale=scale,
        pulled=pulled,
        batch=min(training.samples_per_step, samples),
    )


def _spread(update: Grouped, values: Sequence[float]) -> Tensor:
    """Give every parameter its group's value (P,)."""
    parts = update.parts(1.0)
    rows = [torch.full((len(i),), v) for (_, _, i), v in zip(parts, values, strict=True)]
    return update.join(rows)
