"""Graphs simplified, split and run in kept buffers: the same numbers as the plain graph."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functionalize, grad, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from capacity.networks.flat_model import FlatModel
from capacity.products import hessian_products
from capacity.products.hessian_products import HessianProducts
from capacity.products.planned_memory import Planned
from capacity.products.traced_graphs import fuse, looks, parts_of, pure, simplify, split


def network():
    layers = [nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64), nn.Tanh(), nn.Linear(64, 40)]
    return FlatModel(nn.Sequential(*layers))


def products_of(flat):
    def loss(theta, x, y):
        return nn.functional.cross_entropy(flat.outputs(theta, x), y)

    def direct(theta, x, y, v):
        gradient, pull = vjp(lambda t: grad(loss)(t, x, y), theta)
        return gradient, vmap(lambda row: pull(row)[0])(v)

    return loss, direct


def inputs(flat, k=5, n=48):
    return (
        torch.randn(flat.size),
        torch.randn(n, 64),
        torch.randint(40, (n,)),
        torch.randn(k, flat.size),
    )


def halves(direct, example):
    graph = make_fx(functionalize(lambda *a: direct(*a)))(*example)
    assert pure(graph)
    before = len(graph.graph.nodes)
    simplify(graph)
    fuse(graph)
    assert len(graph.graph.nodes) < 0.7 * before
    gradient, product = next(iter(reversed(graph.graph.nodes))).args[0]
    assert len(parts_of(product)) == 6, "one part per parameter"
    return split(graph, [gradient], parts_of(product))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_planned_graph_gives_the_plain_graphs_bits_at_fresh_inputs(dtype):
    torch.manual_seed(0)
    flat = network()
    _, direct = products_of(flat)

    def fresh():
        return [t.to(dtype) if t.is_floating_point() else t for t in inputs(flat)]

    found = halves(direct, fresh())
    early, late = Planned(found.early), Planned(found.late)
    bound = Planned(found.late, [None, *(None for _ in found.shared), *early.fixed[1:]])
    assert sum(value is not None for value in early.fixed) > 3
    for _ in range(3):
        *first, v = fresh()
        gradient, *handed = found.early(*first)
        plain = found.late(v, *(first[k] for k in found.shared), *handed)
        for skip in (False, True):
            made = early(*first, skip_first=skip)
            for a, b in list(zip(made, [gradient, *handed], strict=True))[skip:]:
                torch.testing.assert_close(a, b, rtol=0, atol=0)
        shared = [first[k] for k in found.shared]
        passing = [a for a, held in zip(made[1:], early.fixed[1:], strict=True) if held is None]
        for made in (late(v, *shared, *handed), bound(v, *shared, *passing)):
            for a, b in zip(made, plain, strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_buffers_are_shared_by_results_that_do_not_meet():
    def chain(x):
        for _ in range(20):
            x = (x * 1.5).tanh()
        return (x,)

    graph = make_fx(chain)(torch.randn(1000))
    simplify(graph)
    planned = Planned(graph)
    assert planned.bytes <= 3 * 4000
    x = torch.randn(1000)
    torch.testing.assert_close(planned(x)[0], chain(x)[0], rtol=0, atol=0)


def test_a_result_outlives_what_is_computed_after_it():
    """A view of a buffer that is read last must keep the buffer from being handed on."""

    def late_reader(x):
        kept = (x * 2).view(10, 10).t()
        other = x
        for _ in range(6):
            other = other * 1.1
        return (kept + other.view(10, 10), kept)

    graph = make_fx(late_reader)(torch.randn(100))
    simplify(graph)
    planned = Planned(graph)
    for _ in range(2):
        x = torch.randn(100)
        for a, b in zip(planned(x), late_reader(x), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_simplify_removes_what_cancels():
    def roundabout(x):
        return (x.t().t() + torch.zeros_like(x)).view(4, 6).expand(4, 6) + x.tanh() + x.tanh()

    graph = make_fx(roundabout)(torch.randn(4, 6))
    simplify(graph)
    names = [str(n.target) for n in graph.graph.nodes if n.op == "call_function"]
    assert names == ["aten.tanh.default", "aten.add.Tensor", "aten.add.Tensor"]
    x = torch.randn(4, 6)
    torch.testing.assert_close(graph(x), roundabout(x), rtol=0, atol=0)


@pytest.mark.slow
def test_how_many_tangents_go_together_changes_nothing_but_rounding(monkeypatch):
    torch.manual_seed(0)
    flat = network()
    loss, _ = products_of(flat)
    theta, x, y, v = inputs(flat, k=11)
    at_once = HessianProducts(loss)(theta, x, y, v)
    for most in (1, 3, 4):
        monkeypatch.setattr(hessian_products, "_PIECE", most * theta.nbytes)
        pieces = HessianProducts(loss)
        assert pieces._piece(theta, x, y, v) == most
        torch.testing.assert_close(pieces(theta, x, y, v), at_once, rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(hessian_products, "_PIECE", 8 * theta.nbytes)
    monkeypatch.setattr(hessian_products, "_BUFFERS", 1 << 19)
    thrifty = HessianProducts(loss)
    assert thrifty._piece(theta, x, y, v) < 8
    torch.testing.assert_close(thrifty(theta, x, y, v), at_once, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_products_of_one_call_survive_the_next():
    flat = network()
    loss, _ = products_of(flat)
    products = HessianProducts(loss)
    theta, x, y, v = inputs(flat)
    gradient, kept = products.with_gradient(theta, x, y, v)
    copies = gradient.clone(), kept.clone()
    products.with_gradient(*inputs(flat))
    torch.testing.assert_close((gradient, kept), copies, rtol=0, atol=0)


@pytest.mark.slow
def test_adding_in_place_is_adding(float64):
    flat = network()
    loss, _ = products_of(flat)
    products = HessianProducts(loss)
    theta, x, y, v = inputs(flat)
    expected = v - 0.3 * products(theta, x, y, v)
    held = v.clone()
    assert products.add_to(held, theta, x, y, scale=-0.3) is held
    torch.testing.assert_close(held, expected, rtol=1e-12, atol=1e-12)


def test_adding_in_place_to_a_hessian_that_only_swaps(float64):
    """H V of a b is V with its halves swapped: a view of what is being overwritten."""
    products = HessianProducts(
        lambda theta, x, y: (theta[:3] * theta[3:]).sum() * x.sum() / x.sum()
    )
    v = torch.randn(4, 6)
    expected = v + 0.5 * torch.cat([v[:, 3:], v[:, :3]], 1)
    made = products.add_to(v.clone(), torch.randn(6), torch.ones(2), torch.ones(2), scale=0.5)
    torch.testing.assert_close(made, expected)


def test_looks_of_what_is_no_tensor():
    assert looks(3) is None
