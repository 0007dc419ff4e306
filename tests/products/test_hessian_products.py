"""Traced Hessian products: right, fresh at every call, and never silently wrong."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import grad, jacrev, vjp, vmap

from capacity.base.slow_paths import slow_paths
from capacity.networks.flat_model import FlatModel
from capacity.products.hessian_products import HessianProducts

MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), (6,)),
    "cnn": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.GELU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)
        ),
        (1, 6, 6),
    ),
    "attention": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (3, 4)),
            nn.TransformerEncoderLayer(4, 2, 5, dropout=0.0, batch_first=True),
            nn.Flatten(),
            nn.Linear(12, 3),
        ),
        (12,),
    ),
    "norm": (
        lambda: nn.Sequential(nn.Linear(6, 4), nn.GroupNorm(2, 4), nn.SiLU(), nn.Linear(4, 3)),
        (6,),
    ),
}


class LastStep(nn.Module):
    """What a recurrent layer gives at the last of three times."""

    def __init__(self, kind):
        super().__init__()
        self.inner = kind(4, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.inner(x.unflatten(1, (3, 4)))[0][:, -1])


RECURRENT = {
    kind.__name__.lower(): (lambda kind=kind: LastStep(kind), (12,))
    for kind in (nn.RNN, nn.GRU, nn.LSTM)
}


def problem(name):
    build, shape = (MODELS | RECURRENT)[name]
    flat = FlatModel(build())

    def loss(theta, x, y):
        return nn.functional.cross_entropy(flat.outputs(theta, x), y)

    return flat, loss, lambda n: (torch.randn(n, *shape), torch.randint(3, (n,)))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_matches_the_dense_hessian_at_fresh_points(name, float64):
    flat, loss, draw = problem(name)
    products = HessianProducts(loss)
    # The second and third point reuse the graph of the first: nothing of it may be baked in.
    for n in (7, 7, 7, 4):
        theta, (x, y) = torch.randn(flat.size) * 0.5, draw(n)
        v = torch.randn(3, flat.size)
        # Not torch.func.hessian, which is wrong and not symmetric for attention (torch 2.9, 2.15).
        dense = jacrev(grad(loss))(theta, x, y)
        gradient, product = products.with_gradient(theta, x, y, v)
        torch.testing.assert_close(product, v @ dense, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(
            gradient, torch.func.grad(loss)(theta, x, y), rtol=1e-10, atol=1e-12
        )
        step = 1e-5 * v[0]
        moved = (grad(loss)(theta + step, x, y) - grad(loss)(theta - step, x, y)) / 2e-5
        torch.testing.assert_close(product[0], moved, rtol=1e-4, atol=1e-6)
    assert len(products._ways) <= 4, "graphs are reused for the same shapes"
    assert products.untraced == ""


# In single precision the CPU has kernels of its own, which know one derivative only.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["attention", *RECURRENT])
def test_layers_with_fused_kernels_have_products_in_single_precision(name):
    flat, loss, draw = problem(name)
    assert torch.backends.mkldnn.enabled
    theta, (x, y), v = flat.initial(), draw(6), torch.randn(1, flat.size)
    found = HessianProducts(loss)(theta, x, y, v)
    dense = jacrev(grad(loss))(theta.double(), x.double(), y)
    torch.testing.assert_close(found.double(), v.double() @ dense, rtol=1e-4, atol=1e-5)
    assert torch.backends.mkldnn.enabled, "the caller's switches are as they were"
    assert torch.backends.cudnn.enabled


def test_a_loss_that_looks_at_values_still_works(float64):
    def loss(theta, x, y):
        value = ((x @ theta - y) ** 2).mean()
        return value * 2 if value > 1 else value

    products = HessianProducts(loss)
    x, v = torch.randn(5, 3), torch.randn(2, 3)
    for scale in (10.0, 0.1):
        y = scale * torch.ones(5)
        factor = 2 if scale > 1 else 1
        found = products(torch.zeros(3), x, y, v)
        torch.testing.assert_close(found, factor * v @ (2 * x.T @ x / 5))
    assert products.untraced, "the reason is kept"


def halves(theta, x):
    return (x @ theta.view(4, 3)).tanh().sum(-1)


# What each writes as a number into a graph is true of the first batch only: silently wrong later.
COUNTS = {
    "mask": lambda theta, x, y: (halves(theta, x)[y > 0] - y[y > 0]).square().mean(),
    "masked_select": lambda theta, x, y: halves(theta, x).masked_select(y > 0).square().mean(),
    "nonzero": lambda theta, x, y: halves(theta, x).square().sum() / len((y > 0).nonzero()),
    "unique": lambda theta, x, y: halves(theta, x).square().sum() / len(y.unique()),
}


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("reverse", [False, True])
# torch's word on its own speed, with and without us.
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_a_size_that_depends_on_the_data_is_not_baked_in(name, reverse, float64):
    products = HessianProducts(COUNTS[name])
    targets = [[1, -1, 2, -1, 3, 1], [1, 1, 2, -1, 3, 1], [-1, -1, 2, -1, -1, -1]]
    for y in map(torch.tensor, reversed(targets) if reverse else targets):
        theta, x, v = torch.randn(12), torch.randn(6, 4), torch.randn(3, 12)
        dense = jacrev(grad(COUNTS[name]))(theta, x, y)
        torch.testing.assert_close(products(theta, x, y, v), v @ dense, rtol=1e-9, atol=1e-10)
    assert "size depends on the data" in products.untraced


def test_plain_indexing_is_traced(float64):
    rows = torch.tensor([2, 0])
    products = HessianProducts(lambda theta, x, y: halves(theta, x)[rows].square().mean())
    products(torch.randn(12), torch.randn(6, 4), torch.zeros(6), torch.randn(2, 12))
    assert products.untraced == ""


@pytest.mark.slow
@pytest.mark.parametrize("width", [33, 64])
def test_products_of_wide_layers_agree_with_double_backward(width):
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


@pytest.mark.slow
def test_numbers_of_tangents_that_lie_close_share_a_graph(float64):
    flat, loss, draw = problem("mlp")
    products, (x, y), theta = HessianProducts(loss), draw(4), torch.randn(flat.size)
    v = torch.randn(40, flat.size)
    dense = jacrev(grad(loss))(theta, x, y)
    for count in range(1, 41):
        found = products(theta, x, y, v[:count])
        assert found.shape == (count, flat.size)
        torch.testing.assert_close(found, v[:count] @ dense, rtol=1e-9, atol=1e-10)
    moved = products.add_to(v[:37].clone(), theta, x, y, scale=-0.5)
    torch.testing.assert_close(moved, v[:37] - 0.5 * v[:37] @ dense, rtol=1e-9, atol=1e-10)
    assert len(products._ways) <= 17


def test_rows_that_lie_otherwise_in_memory_share_a_graph(float64):
    flat, loss, draw = problem("mlp")
    products, (x, y), theta = HessianProducts(loss), draw(4), torch.randn(flat.size)
    basis = torch.randn(2, 3, flat.size)
    for count in (1, 2, 3):
        strided = basis[:, :count].contiguous()[:, -1]  # as a growing Krylov basis hands them out
        expected = products(theta, x, y, strided.clone(memory_format=torch.contiguous_format))
        assert torch.equal(products(theta, x, y, strided), expected)
    assert len(products._ways) == 1


def test_a_point_that_is_written_into_is_another_point(float64):
    """What tangents share is kept from call to call, as long as theta and batch are the same."""
    flat, loss, draw = problem("mlp")
    products, (x, y), theta = HessianProducts(loss), draw(4), torch.randn(flat.size)
    tangents = torch.randn(2, flat.size)
    before, same = products(theta, x, y, tangents), products(theta, x, y, tangents)
    assert torch.equal(before, same)
    for moved in (theta, x):
        moved.mul_(0.5)
        expected = HessianProducts(loss)(theta.clone(), x.clone(), y, tangents)
        assert torch.equal(products(theta, x, y, tangents), expected)


def test_a_slow_way_is_said_to_everyone_who_takes_it():
    def loss(theta, x, y):
        made = (x @ theta.view(3, 2)).square().mean()
        return made * 1.0 if float(made.detach()) > -1 else made

    products = HessianProducts(loss)
    given = torch.ones(6), torch.ones(4, 3), torch.zeros(4), torch.ones(1, 6)
    for _ in range(2):
        with slow_paths() as found:
            products(*given)
        assert len(found) == 1
        assert "untraced" in found[0]
