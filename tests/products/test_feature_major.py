"""Activations turned to (K, features, samples): the same products, and only where all is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functionalize, grad, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from capacity.networks.flat_model import FlatModel
from capacity.products.feature_major import feature_major
from capacity.products.hessian_products import HessianProducts
from capacity.products.traced_graphs import looks, share_exponentials, simplify

aten = torch.ops.aten


class Squares(nn.Module):
    def forward(self, x):
        return x * x + 0.5 * x - 1


class Residual(nn.Module):
    """A layer whose result is added to what it was given."""

    def __init__(self, width):
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, x):
        return x + torch.tanh(self.inner(x))


DENSE = {
    "relu": lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)),
    "three layers": lambda: nn.Sequential(
        nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4, bias=False), nn.Sigmoid(), nn.Linear(4, 3)
    ),
    "gelu": lambda: nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 3)),
    "squares": lambda: nn.Sequential(nn.Linear(6, 5), Squares(), nn.Linear(5, 3)),
    "residual": lambda: nn.Sequential(nn.Linear(6, 5), Residual(5), nn.Linear(5, 3)),
    "linear": lambda: nn.Linear(6, 3),
}
OTHER = {
    "norm": lambda: nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 3)),
    "softmax inside": lambda: nn.Sequential(nn.Linear(6, 4), nn.Softmax(-1), nn.Linear(4, 3)),
    "reshaped": lambda: nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(), nn.Unflatten(1, (2, 4)), nn.Linear(4, 3), nn.Flatten()
    ),
}
LOSSES = {
    "cross_entropy": lambda f, y: nn.functional.cross_entropy(f, y),
    "mse": lambda f, y: (f - torch.eye(3, dtype=f.dtype)[y]).square().mean(),
}
N, K = 7, 4


def problem(build, loss="cross_entropy"):
    torch.manual_seed(0)
    flat = FlatModel(build())

    def mean(theta, x, y):
        return LOSSES[loss](flat.outputs(theta, x), y)

    point = 0.5 * torch.randn(flat.size), torch.randn(N, 6), torch.randint(3, (N,))
    return mean, point, torch.randn(K, flat.size)


def traced(loss, point, v):
    """The graph that the products run, before anything is turned."""

    def both(theta, x, y, v):
        gradient, pull = vjp(lambda t: grad(loss)(t, x, y), theta)
        return gradient, vmap(lambda row: pull(row)[0])(v)

    graph = make_fx(functionalize(both))(*point, v)
    simplify(graph)
    share_exponentials(graph)
    return graph


def turn(graph, largest=1e9):
    *_, tangents = (node for node in graph.graph.nodes if node.op == "placeholder")
    feature_major(graph, tangents, largest=largest)
    graph.graph.lint()
    graph.recompile()
    return graph


def sample_major(graph):
    """Count products that give (K, n, f)."""
    products = {aten.bmm.default, aten._unsafe_view.default}
    shapes = [looks(node).shape for node in graph.graph.nodes if node.target in products]
    return sum(len(s) == 3 and s[0] == K and s[1] == N for s in shapes)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", DENSE)
def test_a_turned_graph_computes_the_same(name, loss, float64):
    mean, point, v = problem(DENSE[name], loss)
    graph = traced(mean, point, v)
    assert sample_major(graph) > 0
    truth = graph(*point, v)
    turn(graph)
    assert sample_major(graph) == 0
    for fresh in (
        point,
        tuple(torch.randn_like(p) if p.dtype.is_floating_point else p for p in point),
    ):
        truth = traced(mean, fresh, v)(*fresh, v)
        for found, wanted in zip(graph(*fresh, v), truth, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", OTHER)
def test_what_is_not_known_is_left_alone(name, float64):
    mean, point, v = problem(OTHER[name])
    graph = traced(mean, point, v)
    before = [(node.name, node.target) for node in graph.graph.nodes]
    turn(graph)
    assert [(node.name, node.target) for node in graph.graph.nodes] == before


def test_large_products_are_left_alone(float64):
    mean, point, v = problem(DENSE["relu"])
    graph = turn(traced(mean, point, v), largest=10.0)
    assert sample_major(graph) > 0


@pytest.mark.parametrize("width", [33, 64])
def test_folded_products_of_wide_layers_agree_with_double_backward(width):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(40, width), nn.ReLU(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 10)
    )
    flat = FlatModel(module)

    def loss(theta, x, y):
        return nn.functional.cross_entropy(flat.outputs(theta, x), y)

    products = HessianProducts(loss)
    for n in (64, 50):
        x, y, v = torch.randn(n, 40), torch.randint(10, (n,)), torch.randn(32, flat.size)
        theta = flat.initial()
        theta64, x64 = theta.double(), x.double()
        pull = vjp(lambda t, x=x64, y=y: grad(loss)(t, x, y), theta64)[1]
        truth = vmap(lambda row, pull=pull: pull(row)[0])(v.double())
        off = (products(theta, x, y, v) - truth).norm(dim=-1) / truth.norm(dim=-1)
        assert float(off.max()) < 3e-6
