"""Traced functions of many networks against the same, untraced."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import grad, vmap

from capacity.networks.flat_model import FlatModel
from capacity.products import traced_rows
from capacity.products.traced_graphs import trace
from capacity.products.traced_rows import TracedRows, row_gradients, row_products

CALLS = traced_rows._WORTH + 3


def conv():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3)
    )


NETWORKS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), (6,)),
    "cnn": (conv, (1, 6, 6)),
}


def case(name):
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    model = FlatModel(build())
    theta = torch.stack([FlatModel(build()).initial() for _ in range(4)])

    def loss(t, x, y):
        return nn.functional.cross_entropy(model.outputs(t, x), y)

    return loss, theta, lambda: (torch.randn(4, 7, *shape), torch.randint(3, (4, 7)))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_the_direct_way_bit_for_bit(name):
    loss, theta, batch = case(name)
    gradients, direct = row_gradients(loss), vmap(torch.func.grad_and_value(loss))
    for _ in range(CALLS):
        x, y = batch()
        made, value = gradients(theta, x, y)
        truth, at = direct(theta, x, y)
        assert torch.equal(made, truth)
        assert torch.equal(value, at)
        theta = theta - 0.1 * made  # results are the caller's, whatever the next call does
    assert all(planned is not None for planned in gradients._traced.values())
    assert len(gradients._traced) == 1


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True])
def test_products_are_those_with_the_hessian(shared, float64):
    loss, theta, batch = case("mlp")
    products, v = row_products(loss, shared=shared), torch.randn_like(theta)
    x, y = batch()
    if shared:
        x, y = x[0], y[0]
    for _ in range(CALLS):
        (made,) = products(theta, x, y, v)
    for r, row in enumerate(theta):
        own = (x, y) if shared else (x[r], y[r])
        dense = torch.func.hessian(loss)(row, *own)
        torch.testing.assert_close(made[r], dense @ v[r], rtol=1e-9, atol=1e-11)
    assert products._traced


def test_the_tensors_of_a_graph_are_described_together():
    graph = trace(lambda a, b: ((a @ b).tanh(), a + 1), torch.randn(3, 4), torch.randn(4, 2))
    described = [node.meta["val"] for node in graph.graph.nodes if node.op == "call_function"]
    assert len(described) > 2
    assert len({part.fake_mode for part in described}) == 1, "one per operation is twice as slow"


@pytest.mark.slow
def test_results_survive_the_next_call():
    loss, theta, batch = case("mlp")
    gradients = row_gradients(loss)
    for _ in range(CALLS):
        gradients(theta, *batch())
    first, _ = gradients(theta, *batch())
    kept = first.clone()
    gradients(theta + 1, *batch())
    assert torch.equal(first, kept)


def test_what_cannot_be_traced_runs_directly():
    def picky(theta, x, y):
        del y
        return (theta * x[x > 0].sum()).sum()  # its size depends on the data

    function = TracedRows(lambda t, x, y: (grad(picky)(t, x, y),))
    for _ in range(CALLS):
        x = torch.randn(5)
        (made,) = function(torch.ones(3), x, x)
        torch.testing.assert_close(made, x[x > 0].sum().expand(3))
    assert list(function._traced.values()) == [None]
