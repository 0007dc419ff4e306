"""Curvature operators against dense matrices."""

from __future__ import annotations

import torch
from torch.func import hessian as dense_hessian
from torch.func import jacrev

from capacity.curvature.operators import ggn, hessian
from capacity.dynamics.flat import FlatModel
from dense import digits_task, network
from quadratics import linear, quadratic


def test_hessian_over_uneven_chunks(float64):
    task = digits_task((0, 1, 2), count=50)
    model = FlatModel(network(64, 2, 10))
    theta = model.initial()
    dense = dense_hessian(model.loss(task))(theta, task.train.x, task.train.y)
    v = torch.randn(3, model.size)
    found = hessian(model, task, theta, task.train, chunk=16)(v)
    torch.testing.assert_close(found, v @ dense, rtol=1e-9, atol=1e-11)


def test_ggn_is_the_fisher_matrix(float64):
    task = digits_task((0, 1, 2), count=50)
    model = FlatModel(network(64, 2, 10))
    theta = model.initial()
    phi = jacrev(lambda t: model.outputs(t, task.train.x))(theta)
    p = model.outputs(theta, task.train.x).softmax(-1)
    fisher = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    dense = torch.einsum("ncp,ncd,ndq->pq", phi, fisher, phi) / len(p)
    v = torch.randn(3, model.size)
    found = ggn(model, task, theta, task.train, chunk=16)(v)
    torch.testing.assert_close(found, v @ dense, rtol=1e-9, atol=1e-11)


def test_both_are_the_hessian_of_a_quadratic(float64):
    made = quadratic("A", torch.tensor([0.5, 1.0, 2.0]), seed=1)
    model = FlatModel(linear(3))
    for operator in (hessian, ggn):
        found = operator(model, made.task, model.initial(), made.task.train)(torch.eye(3))
        torch.testing.assert_close(found, made.hessian, rtol=1e-10, atol=1e-12)
