"""Curvature operators against dense matrices."""

from __future__ import annotations

import pytest
import torch
from torch.func import hessian as dense_hessian
from torch.func import jacrev

from capacity.networks.flat_model import FlatModel
from capacity.products.curvature_operators import ggn, hessian
from capacity.products.hessian_products import HessianProducts
from capacity.tasks.losses import FittedLoss
from capacity.tasks.task import Split, Task
from dense import digits_task, network
from quadratics import linear, quadratic


@pytest.mark.slow
def test_hessian_over_uneven_chunks(float64):
    task = digits_task((0, 1, 2), count=50)
    model = FlatModel(network(64, 2, 10))
    theta = model.initial()
    dense = dense_hessian(model.loss(task))(theta, task.train.x, task.train.y)
    v = torch.randn(3, model.size)
    found = hessian(model, task, theta, task.train, chunk=16)(v)
    torch.testing.assert_close(found, v @ dense, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
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


@pytest.mark.slow
def test_both_are_the_hessian_of_a_quadratic(float64):
    made = quadratic("A", torch.tensor([0.5, 1.0, 2.0]), seed=1)
    model = FlatModel(linear(3))
    for operator in (hessian, ggn):
        found = operator(model, made.task, model.initial(), made.task.train)(torch.eye(3))
        torch.testing.assert_close(found, made.hessian, rtol=1e-10, atol=1e-12)


def tasks_of_one_kind(**options):
    source = torch.Generator().manual_seed(0)
    for k in range(4):
        x, y = torch.randn(6, 5, generator=source), torch.randint(3, (6,), generator=source)
        yield Task(name=str(k), train=Split(x, y), test=Split(x, y), **options)


def own(outputs, targets):
    return torch.nn.functional.cross_entropy(outputs, targets)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cross_entropy", own, FittedLoss(own)])
@pytest.mark.parametrize("curvature", [ggn, hessian])
def test_tasks_with_one_loss_share_a_trace_and_nothing_else(curvature, loss, monkeypatch):
    traced, trace = [], HessianProducts._trace
    monkeypatch.setattr(
        HessianProducts, "_trace", lambda self, *given: traced.append(1) or trace(self, *given)
    )
    module = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    model = FlatModel(module)
    rows = torch.randn(2, model.size, generator=torch.Generator().manual_seed(1))
    tasks = list(tasks_of_one_kind(loss=loss))
    together = [curvature(model, task, model.initial(), task.train) for task in tasks]
    found = [of(rows) for of in together + together[::-1]]
    assert len(traced) == 1
    alone = [curvature(FlatModel(module), t, model.initial(), t.train)(rows) for t in tasks]
    assert len(traced) == 5
    for mine, expected in zip(found, alone + alone[::-1], strict=True):
        assert torch.equal(mine, expected)
    assert len({float(part.sum()) for part in alone}) == 4


@pytest.mark.slow
def test_tasks_with_other_losses_or_heads_share_no_trace():
    model = FlatModel(torch.nn.Linear(5, 3))
    losses = ["cross_entropy", own, lambda f, y: 2 * own(f, y)]
    ways = [{"loss": loss} for loss in losses] + [{"outputs": (0, 1, 2)}]
    (rows,) = torch.randn(1, 2, model.size, generator=torch.Generator().manual_seed(1))
    found = []
    for options in ways:
        task = next(tasks_of_one_kind(**options))
        found.append(ggn(model, task, model.initial(), task.train)(rows))
        assert len(model.traced) == len(found)
    assert torch.equal(found[0], found[3])
    torch.testing.assert_close(found[2], 2 * found[1])


def test_a_large_network_keeps_the_latest_trace_alone():
    model = FlatModel(torch.nn.Linear(300, 300))
    source = torch.Generator().manual_seed(0)
    x, y = torch.randn(4, 300, generator=source), torch.randint(300, (4,), generator=source)
    for loss in ("cross_entropy", own):
        task = Task(name="a", train=Split(x, y), test=Split(x, y), loss=loss)
        ggn(model, task, model.initial(), task.train)
        assert len(model.traced) == 1
