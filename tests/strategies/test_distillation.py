"""Learning without forgetting: flat at the old weights, and the divergence that it says it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import grad

from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from capacity.strategies.lwf import LwF
from capacity.strategies.step import StrategyStep
from capacity.strategies.terms import Source, of_replica
from capacity.tasks.task import Split, Task
from strategy_cases import starts, three

HERE = Source(0)


def distilled(flat, theta, old, new, **options):
    lwf = LwF(**options)
    state = lwf.prepare(flat, theta, old, None, HERE)
    return lwf.contribution(flat, old, new, Training(), state, HERE)


@pytest.mark.parametrize("heads", [False, True])
def test_flat_at_the_old_weights(float64, heads):
    flat, theta = starts(2)
    a, b, c = three(heads)
    plan = distilled(flat, theta, (a, b), c)
    step = StrategyStep(flat, c, plan, 2)
    rows = torch.arange(len(c.train)).expand(2, -1)
    gradient, loss = step.gradients(theta, *step.draw(rows)[:2])
    for r in range(2):
        alone = grad(flat.loss(c))(theta[r], c.train.x, c.train.y)
        torch.testing.assert_close(gradient[r], alone, rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(loss[r], flat.loss(c)(theta[r], c.train.x, c.train.y))
    away, _ = step.gradients(theta + 0.2, *step.draw(rows)[:2])
    alone = grad(flat.loss(c))(theta[0] + 0.2, c.train.x, c.train.y)
    assert float((away[0] - alone).norm()) > 1e-3


def test_the_divergence_by_hand(float64):
    flat, theta = starts(1)
    a, b, c = three()  # classes 0 to 2 were seen, class 3 was not
    part = distilled(flat, theta, (a, b), c, strength=3.0, temperature=2.0).distillation
    assert part.heads == ((0, 1, 2),)
    x, now = c.train.x, flat.outputs(theta[0] + 0.3, c.train.x)
    then = flat.outputs(theta[0], x)
    p, q = ((f[:, :3] / 2).softmax(-1) for f in (then, now))
    expected = 3.0 * (p * (p.log() - q.log())).sum(1).mean()
    found = part.value(now, x, of_replica(part.private, 0))
    torch.testing.assert_close(found, expected)


def test_heads_are_distilled_one_by_one(float64):
    flat, theta = starts(1)
    a, b, c = three(heads=True)
    part = distilled(flat, theta, (a, b), c).distillation
    assert part.heads == ((0, 1), (2, 3))


def test_regression_keeps_its_values(float64):
    x = torch.randn(6, 3)
    old = Task(name="A", train=Split(x, x[:, :2]), test=Split(x, x[:, :2]), loss="mse")
    flat = FlatModel(nn.Linear(3, 2))
    theta = flat.initial()[None]
    part = distilled(flat, theta, (old,), old, strength=2.0).distillation
    now = flat.outputs(theta[0] + 0.1, x)
    expected = 2.0 * 0.5 * (now - flat.outputs(theta[0], x)).square().sum(-1).mean()
    torch.testing.assert_close(part.value(now, x, of_replica(part.private, 0)), expected)
