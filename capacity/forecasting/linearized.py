"""Simulated training of the linearised model (theory, section 4).

At theta_A the network is replaced by f(theta_A) + Phi delta, Phi = d f / d theta, and B's own
training (its loss, optimiser, schedule, batch size and number of steps) is run on delta. Nothing
of B is learned by the network itself. For a model that is linear in theta the simulation is the
training, exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.utils.flop_counter import FlopCounterMode

from capacity.config import Training
from capacity.differential import pullback, pushforward
from capacity.dynamics.batches import DataOrder
from capacity.dynamics.evaluate import Score, score_outputs
from capacity.dynamics.flat import FlatModel
from capacity.dynamics.updates import UpdateMap, from_training
from capacity.interruption import check
from capacity.tasks.task import Split, Task

_CHUNK = 1024


class Simulation(NamedTuple):
    """Displacements that the linearised training ends with.

    Attributes:
        delta: Forecast of theta_B - theta_A per replica (R, P).
        finite: Whether each replica's simulation stayed finite (R,).
    """

    delta: Tensor
    finite: Tensor


def _gradient(
    model: FlatModel, task: Task, theta: Tensor, delta: Tensor, x: Tensor, y: Tensor
) -> Tensor:
    """Gradient of B's loss on the linearised outputs, with respect to delta (P,)."""

    def linearized(moved: Tensor) -> Tensor:
        f, df = pushforward(lambda t: model.outputs(t, x), (theta,), (moved,))
        return f + df

    # Transposing the linear map that the JVP has just built shares its forward pass.
    values, transpose = pullback(linearized, delta)
    return transpose(grad(task.loss_of)(values, y))[0]


@torch.no_grad()
def simulate(
    model: FlatModel,
    theta: Tensor,
    task: Task,
    training: Training,
    order: DataOrder,
    *,
    update: UpdateMap | None = None,
) -> Simulation:
    """Train the linearised network on a task.

    Args:
        model: The network.
        theta: Where it is linearised (R, P); also where training would start.
        task: The new task B.
        training: B's planned training.
        order: Which samples each step sees. Its seed should not be the real training's, which
            nobody knows beforehand.
        update: Update map; None takes the one that `training` names.

    Returns:
        The displacements.
    """
    if update is None:
        update = from_training(training, seed=order.seed, path=order.path)
    gradients = vmap(lambda t, d, x, y: _gradient(model, task, t, d, x, y))
    rates = training.learning_rates(len(task.train))
    # The algebra of every update map acts on the moving point only through differences, so it can
    # run on delta, whose small size keeps float32 sharp; only weight decay knows where 0 is.
    origin = theta if training.weight_decay else torch.zeros_like(theta)
    state = update.init(origin)
    count = 0
    for batches in order.epoch_batches(theta.device):
        for index in batches:
            check()
            x, y = task.train.x[index], task.train.y[index]
            gradient = gradients(theta, state[0] - origin, x, y)
            state = update.step(state, gradient, rates[count], count + 1)
            count += 1
    return Simulation(state[0] - origin, torch.isfinite(state[0]).all(-1))


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
        Scores now, and scores forecast.
    """

    def push(t: Tensor, d: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return pushforward(lambda p: model.outputs(p, x), (t,), (d,))

    both = vmap(push, in_dims=(0, 0, None))
    parts = [both(theta, delta, x) for x in split.x.split(_CHUNK)]
    now = torch.cat([f for f, _ in parts], dim=1)
    after = now + torch.cat([df for _, df in parts], dim=1)
    return score_outputs(task, now, split.y), score_outputs(task, after, split.y)


def cost_ratio(model: FlatModel, theta: Tensor, task: Task, batch_size: int) -> float:
    """Count what a simulated step costs in real training steps.

    Floating-point operations of matrix products and convolutions are counted, not timed, so the
    ratio is the same on every machine.

    Args:
        model: The network.
        theta: Parameters of one replica (P,).
        task: The new task.
        batch_size: Samples per step.

    Returns:
        Operations of one simulated step over those of one gradient of the training loss.
    """
    x, y = task.train.x[:batch_size], task.train.y[:batch_size]
    with FlopCounterMode(display=False) as training:
        grad(model.loss(task))(theta, x, y)
    with torch.no_grad(), FlopCounterMode(display=False) as simulated:
        _gradient(model, task, theta, torch.zeros_like(theta), x, y)
    return simulated.get_total_flops() / max(training.get_total_flops(), 1)
