"""Layers and losses that write into their arguments: the same figures as their plain twins."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import grad, jacrev, jvp, vjp, vmap
from torch.nn import functional

from capacity.base.in_place import writes
from capacity.networks.flat_model import FlatModel
from capacity.networks.layer_inputs import layer_inputs
from capacity.products.traced_rows import row_gradients
from capacity.tasks import Split, Task

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")

X = torch.randn(12, 5, generator=torch.Generator().manual_seed(3))
Y = (X[:, 0] > 0).long()


class Shift(nn.Module):
    """Shift, scale by parameters and clip: in place or not."""

    def __init__(self, in_place):
        super().__init__()
        self.in_place = in_place
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 5))

    def forward(self, v):
        if self.in_place:
            return v.sub_(0.1).mul_(self.scale).clamp_(min=-1)
        return ((v - 0.1) * self.scale).clamp(min=-1)


def network(in_place):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(),  # a view: what is written into lies behind it
        Shift(in_place),
        nn.Linear(5, 6),
        nn.ReLU(inplace=in_place),
        nn.Linear(6, 2),
    )


def through_every_transform(model):
    theta = model.initial()
    along = torch.randn(len(theta), generator=torch.Generator().manual_seed(1))
    several = torch.stack([theta, theta + along])

    def loss(t, x, y):
        return functional.cross_entropy(model.outputs(t, x), y)

    leaf = theta.clone().requires_grad_()
    yield "autograd", torch.autograd.grad(loss(leaf, X, Y), leaf)[0]
    yield "replicas", vmap(model.outputs, in_dims=(0, None))(several, X)
    yield "gradient", grad(loss)(theta, X, Y)
    yield "gradients of replicas", vmap(grad(loss), in_dims=(0, None, None))(several, X, Y)
    yield (
        "gradients of samples",
        vmap(grad(loss), in_dims=(None, 0, 0))(theta, X[:, None], Y[:, None]),
    )
    yield "forward mode", jvp(lambda t: model.outputs(t, X), (theta,), (along,))[1]
    yield "hessian product", jvp(lambda t: grad(loss)(t, X, Y), (theta,), (along,))[1]
    yield "reverse over reverse", vjp(lambda t: grad(loss)(t, X, Y), theta)[1](along)[0]
    yield "jacobian", jacrev(lambda t: model.outputs(t, X))(theta)
    yield (
        "jacobians of samples",
        vmap(lambda x: jacrev(lambda t: model.outputs(t, x[None])[0])(theta))(X),
    )
    rows = row_gradients(loss, shared=True)
    for _ in range(25):  # the last ones from a trace
        gradients, _ = rows(several, X, Y)
    yield "traced", gradients
    for name, seen in layer_inputs(model, theta, X).items():
        yield f"inputs of {name}", seen


@pytest.mark.slow
def test_every_transform_gives_what_it_gives_out_of_place():
    before = X.clone()
    plain = dict(through_every_transform(FlatModel(network(False))))
    written = dict(through_every_transform(FlatModel(network(True))))
    assert torch.equal(X, before)
    assert plain.keys() == written.keys()
    for name, value in plain.items():
        assert torch.equal(value, written[name]), name


@pytest.mark.parametrize("first", ["vmap", "samples", "gradient"])
def test_the_first_call_may_lie_within_a_transform(first):
    model, before = FlatModel(network(True)), X.clone()
    theta = model.initial()
    if first == "vmap":
        vmap(model.outputs, in_dims=(0, None))(theta.expand(2, -1).clone(), X)
    elif first == "samples":
        vmap(lambda x: model.outputs(theta, x[None]))(X)
    else:
        grad(lambda t: model.outputs(t, X).sum())(theta)
    assert torch.equal(X, before)


def test_a_hook_that_writes_into_the_input():
    module = nn.Linear(5, 2)
    module.register_forward_pre_hook(lambda _, inputs: inputs[0].mul_(2))
    model, before = FlatModel(module), X.clone()
    made = model.outputs(model.initial(), X)
    assert torch.equal(X, before)
    torch.testing.assert_close(made, functional.linear(2 * X, module.weight, module.bias))


def test_only_a_network_that_writes_is_given_copies():
    seen = []

    class Look(nn.Linear):
        def forward(self, v):
            seen.append(v.data_ptr())
            return super().forward(v)

    model = FlatModel(Look(5, 2))
    for _ in range(3):
        model.outputs(model.initial(), X)
    assert seen[1:] == [X.data_ptr()] * 3  # the first call tried out a copy
    assert seen[0] != X.data_ptr()


def test_trying_out_leaves_the_random_state():
    before = torch.get_rng_state()
    assert writes(lambda x: x.add_(torch.rand(())), X) == (True,)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loss_that_writes_into_outputs_and_targets():
    def half_error(outputs, targets):
        return outputs.sub_(targets.mul_(2)).square().mean()

    task = Task(name="a", train=Split(X, X), test=Split(X, X), loss=half_error)
    outputs, targets = torch.ones(12, 5), X.clone()
    before = outputs.clone(), targets.clone()
    expected = (outputs - 2 * targets).square().mean()
    torch.testing.assert_close(task.loss_of(outputs, targets), expected)
    slope = grad(task.loss_of)(outputs, targets)
    torch.testing.assert_close(slope, 2 * (outputs - 2 * targets) / outputs.numel())
    assert torch.equal(outputs, before[0])
    assert torch.equal(targets, before[1])
