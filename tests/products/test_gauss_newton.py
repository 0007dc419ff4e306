"""Products with the GGN, and its factor, against matrices written out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.func import grad, hessian, jacrev

from capacity.networks.flat_model import FlatModel
from capacity.products.curvature_operators import loss_gradient
from capacity.products.gauss_newton import GaussNewtonProducts
from capacity.tasks.task import Split, Task
from dense import digits_task, network


def regression(count=30):
    x = torch.randn(count, 64)
    split = Split(x, torch.randn(count, 5))
    return Task(name="values", train=split, test=split, loss="mse")


def heads(count=40):
    return replace(digits_task((0, 1, 2), count=count), outputs=(1, 3, 4))


def written_out(model, theta, task):
    x, y = task.train.x, task.train.y
    phi = jacrev(lambda t: model.outputs(t, x))(theta)
    blocks = torch.stack([
        hessian(lambda f, i=i: task.loss_of(f[None], y[i : i + 1]))(model.outputs(theta, x)[i])
        for i in range(len(x))
    ])
    return torch.einsum("ncp,ncd,ndq->pq", phi, blocks, phi) / len(x)


CASES = {
    "cross-entropy": lambda: digits_task((0, 1, 4), count=40),
    "mse": regression,
    "head": heads,
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_products_and_gradient(float64, case):
    task = CASES[case]()
    model = FlatModel(network(64, 3, 5))
    theta = model.initial()
    products = GaussNewtonProducts(model.outputs, task.loss_of)
    v = torch.randn(4, model.size)
    x, y = task.train.x, task.train.y
    dense = written_out(model, theta, task)
    torch.testing.assert_close(products(theta, x, y, v), v @ dense, rtol=1e-9, atol=1e-12)
    gradient, rows = products.with_gradient(theta, x, y, v)
    torch.testing.assert_close(gradient, grad(model.loss(task))(theta, x, y))
    torch.testing.assert_close(rows, v @ dense, rtol=1e-9, atol=1e-12)


def test_gradient_over_uneven_chunks(float64):
    task = digits_task((0, 1, 2), count=50)
    model = FlatModel(network(64, 2, 10))
    theta = model.initial()
    whole = grad(model.loss(task))(theta, task.train.x, task.train.y)
    found = loss_gradient(model, task, theta, task.train, chunk=16)
    torch.testing.assert_close(found, whole, rtol=1e-10, atol=1e-13)
