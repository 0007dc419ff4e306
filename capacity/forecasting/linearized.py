"""Simulated training of the linearised model (theory.md#linearised-training).

At theta_A the network is replaced by f(theta_A) + Phi delta, Phi = d f / d theta, and B's own
training (its loss, optimiser, schedule, batch size, number of steps, and its strategy against
forgetting) is run on delta. Nothing of B is learned by the network itself. For a model that is
linear in theta the simulation is the training, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad
from torch.utils.flop_counter import FlopCounterMode

from capacity.base.differential import pushforward, vmap
from capacity.networks.evaluate import Score, score_outputs
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.conditioner import Outputs, conditioned
from capacity.optimizers.from_recipe import from_training
from capacity.optimizers.optimizer import stated
from capacity.optimizers.update_map import UpdateMap
from capacity.recipe.config import Training
from capacity.strategies.contribution import Contribution, Penalty
from capacity.strategies.step import StrategyStep
from capacity.strategies.terms import Private, of_replica
from capacity.tasks.task import Split, Task
from capacity.training.curriculum import ordered
from capacity.training.data_order import DataOrder
from capacity.training.loop import Slope, steps

_CHUNK = 1024
_CATAPULT = 6
"""Substeps that make 12 over the largest curvature a stable rate, 2 over it."""
_POWER_STEPS = 30
_ROUNDING = 1e-3


class Simulation(NamedTuple):
    """Displacements that the linearised training ends with.

    Attributes:
        delta: Forecast of theta_B - theta_A per replica (R, P).
        finite: Whether each replica's simulation stayed finite (R,).
        first: Loss of each replica's first step (R,), what a strategy adds included.
        last: Its mean over the last epoch (R,).
        spent: Gradients of the simulation over those of the training.
    """

    delta: Tensor
    finite: Tensor
    first: Tensor
    last: Tensor
    spent: int = 1

    @property
    def stable(self) -> bool:
        """Whether no replica's loss has more than doubled."""
        return bool((self.finite & (self.last <= 2 * self.first)).all())


class LinearizedStep(StrategyStep):
    """Steps of a strategy on the linearised network; the point that moves is theta's displacement.

    The strategy's penalty stays a function of theta = at + delta. All that reads the network's
    outputs (the loss, replayed and distilled samples, a reference gradient) reads the linearised
    ones; teachers are where they were.

    Args:
        model: The network.
        task: The new task.
        contribution: What the strategy adds; a plain one adds nothing.
        at: Where the network is linearised (R, P).
    """

    def __init__(
        self, model: FlatModel, task: Task, contribution: Contribution, at: Tensor
    ) -> None:
        super().__init__(model, task, contribution, len(at))
        self._private["linearized"] = {"at": at}

    def _outputs(self, point: Tensor, x: Tensor, private: dict[str, Private]) -> Tensor:
        at = private["linearized"]["at"]
        f, df = pushforward(lambda t: self._model.outputs(t, x), (at,), (point,))
        return f + df

    def _theta(self, point: Tensor, private: dict[str, Private]) -> Tensor:
        return private["linearized"]["at"] + point


@torch.no_grad()
def simulate(
    model: FlatModel,
    theta: Tensor,
    task: Task,
    training: Training,
    order: DataOrder,
    *,
    update: UpdateMap | None = None,
    contribution: Contribution | None = None,
    substeps: int = 1,
) -> Simulation:
    """Train the linearised network on a task.

    Args:
        model: The network.
        theta: Where it is linearised (R, P); also where training would start.
        task: The new task B.
        training: B's planned training. A strategy that changes the plan says so in its
            contribution, whose plan counts.
        order: Which samples each step sees. Its seed should not be the real training's, which
            nobody knows beforehand. The epochs are those of the plan that counts.
        update: Update map; None takes the one that the plan names.
        contribution: What a strategy adds to learning B; None trains on B alone.
        substeps: Steps of a fraction of the learning rate that each step is made of.

    Returns:
        The displacements.
    """
    plan = Contribution(training=training) if contribution is None else contribution
    order = ordered(order.under(plan.training), model, theta, task, plan.training)
    if update is None:
        update = from_training(plan.training, seed=order.seed, path=order.path, layout=model.layout)
    step = LinearizedStep(model, task, plan, theta)
    anchored = plan.training.decays or stated(stated(update).unclipped).anchored
    # The algebra of most update maps acts on the moving point only through differences, so it can
    # run on delta, whose small size keeps float32 sharp; weight decay and mirrors know where 0 is.
    origin = theta if anchored else torch.zeros_like(theta)
    conditioners = [
        stated(
            step.optimiser_of(stated(update).bound(_linear(model, theta[r], origin[r]), task), r)
        ).conditioner
        for r in range(len(theta))
    ]
    update = step.update(stated(update).bound(_linear(model, theta[0], origin[0]), task))
    rates = iter(plan.training.learning_rates(len(task.train)))
    state = update.init(origin)
    count = 0
    first: Tensor | None = None
    last = theta.new_zeros(len(theta))

    def slopes(batches: Iterable[Tensor]) -> Iterator[Callable[[Tensor], Slope]]:
        for index in batches:
            x, _, rows = step.draw(index)
            lr = next(rates) / substeps
            for _ in range(substeps):
                yield partial(slope_at, x, rows, lr)

    def slope_at(x: Tensor, rows: Tensor, lr: float, point: Tensor) -> Slope:
        gradient, loss = step.gradients(point - origin, x, rows)
        inputs = zip(conditioners, point, x, gradient, strict=True)
        fed = torch.stack([conditioned(*row) for row in inputs])
        return Slope(gradient, loss, lr, fed=fed)

    for batches in order.epoch_batches(theta.device):
        losses = []
        for taken in steps(update, state, slopes(batches), taken=count):
            losses.append(taken.loss)
            state, count = taken.after, taken.count
        first = losses[0] if first is None else first
        last = torch.stack(losses).mean(0)
    assert first is not None
    return Simulation(state[0] - origin, torch.isfinite(state[0]).all(-1), first, last, substeps)


@torch.no_grad()
def simulate_stably(
    model: FlatModel,
    theta: Tensor,
    task: Task,
    training: Training,
    order: DataOrder,
    *,
    contribution: Contribution | None = None,
) -> Simulation:
    """Train the linearised network, as a flow where only the linearisation blows up.

    Where lr is beyond 2 over the largest curvature, the linearised training diverges and that of a
    network need not: up to about 4 (tanh) or 12 (ReLU) over it, it moves to where the curvature is
    less, and goes on (Lewkowycz et al. 2020, arXiv 2003.02218). Plain SGD is then simulated once
    more in steps of a sixth. What diverges for the network as well stays diverged: a model that is
    linear in theta, a penalty that is too stiff for the learning rate, a rate still beyond.

    Args:
        model: The network.
        theta: Where it is linearised (R, P).
        task: The new task B.
        training: B's planned training.
        order: Which samples each step sees.
        contribution: What a strategy adds to learning B; None trains on B alone.

    Returns:
        The displacements.
    """
    made = simulate(model, theta, task, training, order, contribution=contribution)
    plan = training if contribution is None else contribution.training
    if made.stable or plan.optimizer != "sgd" or plan.clip_norm is not None:
        return made
    if contribution is not None and contribution.penalty is not None:
        stiffness = _largest_curvature(contribution.penalty, theta[0])
        if plan.lr * stiffness > 2:
            return made
    if _is_linear(model, theta[0], task.train.x[:_CHUNK]):
        return made
    again = simulate(
        model, theta, task, training, order, contribution=contribution, substeps=_CATAPULT
    )
    return again._replace(spent=1 + _CATAPULT) if again.stable else made


def _linear(model: FlatModel, at: Tensor, origin: Tensor) -> Outputs:
    """Linearise a network at a point, as a function of the origin and a displacement, added."""

    def outputs(point: Tensor, x: Tensor) -> Tensor:
        f, df = pushforward(lambda t: model.outputs(t, x), (at,), (point - origin,))
        made: Tensor = f + df
        return made

    return outputs


def _largest_curvature(penalty: Penalty, theta: Tensor) -> float:
    """Largest eigenvalue of a penalty's Hessian, which is positive and constant, for replica 0."""
    private = of_replica(penalty.private, 0)
    slope = grad(lambda t: penalty.value(t, private))
    generator = torch.Generator(theta.device).manual_seed(0)
    v = torch.randn(theta.shape, generator=generator, dtype=theta.dtype, device=theta.device)
    value = 0.0
    for _ in range(_POWER_STEPS):
        _, v = pushforward(slope, (theta,), (v / v.norm().clamp(min=1e-30),))
        value = float(v.norm())
    return value


def _is_linear(model: FlatModel, theta: Tensor, x: Tensor) -> bool:
    """Whether a large move in a random direction changes the outputs as the Jacobian says."""
    generator = torch.Generator(theta.device).manual_seed(0)
    moved = torch.randn(theta.shape, generator=generator, dtype=theta.dtype, device=theta.device)
    moved = 0.1 * moved * (theta.norm() / moved.norm()).clamp(min=1.0)
    f, df = pushforward(lambda t: model.outputs(t, x), (theta,), (moved,))
    off = model.outputs(theta + moved, x) - f - df
    return float(off.norm()) <= _ROUNDING * float(df.norm())


@torch.no_grad()
def linearized_scores(
    model: FlatModel, theta: Tensor, delta: Tensor, task: Task, split: Split
) -> tuple[Score, Score]:
    """Score the network at theta and its linearisation at theta + delta.

    Args:
        model: The network.
        theta: Where it is linearised (R, P).
        delta: Displacement (R, P).
        task: The task to score, an old one or the new one.
        split: The samples.

    Returns:
        Scores now, and scores forecast; both NaN where the simulation did not stay finite.
    """

    def push(t: Tensor, d: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return pushforward(lambda p: model.outputs(p, x), (t,), (d,))

    both = vmap(push, in_dims=(0, 0, None))
    parts = [both(theta, delta, x) for x in split.x.split(_CHUNK)]
    now = torch.cat([f for f, _ in parts], dim=1)
    after = now + torch.cat([df for _, df in parts], dim=1)
    forecast = score_outputs(task, after, split.y)
    # The largest of numbers that are none is no answer.
    lost = ~torch.isfinite(forecast.loss)
    return score_outputs(task, now, split.y), Score(
        forecast.accuracy.masked_fill(lost, torch.nan), forecast.loss
    )


def cost_ratio(
    model: FlatModel,
    theta: Tensor,
    task: Task,
    batch_size: int,
    contribution: Contribution | None = None,
) -> float:
    """Count what a simulated step costs in real training steps.

    Floating-point operations of matrix products and convolutions are counted, not timed, so the
    ratio is the same on every machine.

    Args:
        model: The network.
        theta: Parameters of one replica (P,).
        task: The new task.
        batch_size: Samples per step.
        contribution: What a strategy adds to both, for one replica or more; None adds nothing.

    Returns:
        Operations of one simulated step over those of one training step, for one network.
    """
    plan = Contribution(training=Training()) if contribution is None else contribution
    real = StrategyStep(model, task, plan, 1)
    simulated = LinearizedStep(model, task, plan, theta[None])
    rows = torch.arange(min(batch_size, len(task.train)), device=theta.device)
    x, _, rows = real.draw(rows[None])
    with FlopCounterMode(display=False) as training:
        real.gradient_of(0, theta, x[0], rows[0])
    with torch.no_grad(), FlopCounterMode(display=False) as forecast:
        simulated.gradient_of(0, torch.zeros_like(theta), x[0], rows[0])
    return forecast.get_total_flops() / max(training.get_total_flops(), 1)
