"""Simpler predictors against their definitions."""

from __future__ import annotations

import pytest
import torch

from capacity.config import Training
from capacity.dynamics.flat import FlatModel
from capacity.forecasting.baselines import new_task_loss, path_bound
from quadratics import linear, quadratic


def test_on_a_quadratic_task(float64):
    new = quadratic("B", torch.tensor([0.5, 1.0, 2.0]), seed=2)
    flat = FlatModel(linear(3))
    theta = torch.randn(2, 3)
    losses = torch.stack([new.loss(t) for t in theta])
    assert new_task_loss(flat, theta, new.task).value == pytest.approx(float(losses.mean()))
    gradients = (theta - new.minimum) @ new.hessian
    training = Training(lr=0.1, epochs=7, batch_size=6)  # 24 samples: 4 steps an epoch
    expected = 0.1 * 28 * gradients.norm(dim=-1).mean()
    assert path_bound(flat, theta, new.task, training).value == pytest.approx(float(expected))
