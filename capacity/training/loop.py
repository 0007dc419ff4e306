"""The loop that trains. Runs, ensembles, forecasts and simulations are callers of it.

A caller says where gradients come from and at which rate; the update map says how a gradient moves
the state; whoever wants to see a step reads what the loop yields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor

from capacity.base.interruption import check
from capacity.optimizers.update_map import State, UpdateMap
from capacity.training.steps import Batch, Step


@dataclass(frozen=True, slots=True)
class Slope:
    """What a step is taken along.

    Attributes:
        gradient: Gradient of the batch loss (..., P), as the update map is to see it.
        loss: Batch loss (...).
        lr: Learning rate of the step.
        batch: What it was computed on, where somebody looks at that.
        fed: The gradient conditioned (..., P), or at the step's end, where the update map is fed
            with that.
        residual: Of an implicit step (...); None where steps are explicit.
    """

    gradient: Tensor
    loss: Tensor
    lr: float
    batch: Batch | None = None
    fed: Tensor | None = None
    residual: Tensor | None = None


def steps(
    update: UpdateMap,
    state: State,
    slopes: Iterable[Callable[[Tensor], Slope]],
    *,
    taken: int = 0,
) -> Iterator[Step]:
    """Take a step along every slope.

    A slope is drawn after the step before it was handed out, so a caller may look at the one before
    it makes the next. Whoever holds on to a step holds two states: let it go where memory counts.

    Args:
        update: The update map.
        state: Where to start; tensors (..., P), theta first.
        slopes: Per step, theta (..., P) to the slope there.
        taken: Steps of this phase that were taken before.

    Yields:
        Every step, after it was taken.
    """
    for count, slope_at in enumerate(slopes, start=taken + 1):
        check()
        slope = slope_at(state[0])
        fed = slope.gradient if slope.fed is None else slope.fed
        after = update.step(state, fed, slope.lr, count)
        step = Step(
            count, slope.lr, state, after, slope.gradient, slope.loss, slope.batch, slope.residual
        )
        del slope, fed
        state = after
        yield step
        del step, after
