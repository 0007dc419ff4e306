"""The covariance of minibatch gradients, against a dense one and against where SGD settles."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import capacity
from capacity.closed_forms import sgd_stationary_variance
from capacity.networks.flat_model import FlatModel
from capacity.thermo.gradient_noise import gradient_noise
from dense import digits_task, network


def test_it_is_that_of_single_gradients_over_the_batch(float64):
    flat, task = FlatModel(network(64, 2, 3)), digits_task((0, 1, 2), 30)
    theta, loss = flat.initial(), flat.loss(task)
    rows = torch.stack([
        torch.func.grad(loss)(theta, x[None], y[None])
        for x, y in zip(task.train.x, task.train.y, strict=True)
    ])
    dense = torch.cov(rows.T) / 4
    found = gradient_noise(flat, theta, task, task.train, batch=4, top=3)
    assert found.trace.value == pytest.approx(float(dense.trace()))
    values = torch.linalg.eigvalsh(dense).flip(0)[:3]
    torch.testing.assert_close(found.top, values)
    torch.testing.assert_close(found.directions @ dense, values[:, None] * found.directions)
    assert found.share == pytest.approx(float(values.sum() / dense.trace()))


@pytest.mark.slow  # some thousand steps
def test_sgd_settles_where_theory_says(float64):
    # Least squares in one dimension: 1/2 (theta - y)^2, of curvature 1.
    y = torch.randn(64, 1)
    task = capacity.Task(name="mean", train=(torch.ones(64, 1), y), test=None, loss="mse")
    flat, train = FlatModel(nn.Linear(1, 1, bias=False)), task.train
    best = train.y.mean().reshape(1)
    noise = gradient_noise(flat, best, task, train, batch=4).trace.value
    source, theta, lr = torch.Generator().manual_seed(0), best.repeat(4000, 1), 0.5
    for _ in range(60):
        index = torch.randint(len(train), (4000, 4), generator=source)
        theta = theta - lr * (theta - train.y[index, 0].mean(1, keepdim=True))
    settled = float(theta.var())
    n = len(train)
    truth = float(sgd_stationary_variance(curvature=1.0, lr=lr, noise=noise * (n - 1) / n))
    assert settled == pytest.approx(truth, rel=4 * (2 / 4000) ** 0.5)


def test_a_single_sample_has_no_covariance():
    flat, task = FlatModel(network(64, 3)), digits_task((0, 1, 2), 5)
    with pytest.raises(ValueError, match=r"split has 1 sample; a covariance takes at least 2"):
        gradient_noise(flat, flat.initial(), task, task.train.first(1), batch=2)
