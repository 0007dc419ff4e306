"""A loop of one's own in training mode: its masks are drawn again from its own random states."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import capacity
from capacity.base.randomness import RandomState
from capacity.networks.flat_model import FlatModel, flatten

X = torch.randn(24, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
Y = (X[:, 0] > 0).long()
STEPS = 4


def _network():
    torch.manual_seed(0)
    layers = (nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Tanh(), nn.Linear(4, 2))
    return nn.Sequential(*layers).double()


def _loop(module, tracker=None, *, backward=False, between=False):
    """Train, and give theta before every step."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.3, momentum=0.5)
    if tracker is not None:
        tracker = capacity.TransportTracker(module, "cross_entropy", optimizer, tangents=4)
    torch.manual_seed(7)
    thetas = []
    for k in range(STEPS):
        x, y = X[6 * k : 6 * k + 6], Y[6 * k : 6 * k + 6]
        thetas.append(flatten(module))
        if backward:
            tracker.backward(x, y)
        else:
            if tracker is not None:
                tracker.observe(x, y)
            if between:
                torch.rand(1)
            optimizer.zero_grad()
            cross_entropy(module(x), y).backward()
        optimizer.step()
    return thetas, tracker


def _dense():
    """J of the same loop, written in torch."""
    module = _network()
    flat, buffers = FlatModel(module), {n: b.clone() for n, b in module.named_buffers()}

    def trained(theta):
        torch.manual_seed(7)
        momentum = torch.zeros_like(theta)
        for k in range(STEPS):
            held = {n: b.clone() for n, b in buffers.items()}
            x, y = X[6 * k : 6 * k + 6], Y[6 * k : 6 * k + 6]
            loss = cross_entropy(functional_call(module, {**flat.unflatten(theta), **held}, x), y)
            (slope,) = torch.autograd.grad(loss, theta, create_graph=True)
            momentum = 0.5 * momentum + slope
            theta = theta - 0.3 * momentum
        return theta

    return torch.autograd.functional.jacobian(trained, flat.initial())


@pytest.mark.parametrize("backward", [False, True])
def test_both_directions_are_those_of_a_dense_jacobian_of_the_loop(backward):
    alone, followed = _network(), _network()
    plain, _ = _loop(alone)
    watched, tracker = _loop(followed, True, backward=backward)
    for one, other in zip(plain, watched, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    for (name, one), (_, other) in zip(
        alone.named_buffers(), followed.named_buffers(), strict=True
    ):
        torch.testing.assert_close(one, other, msg=name)
    jacobian, dense = tracker.jacobian(), _dense()
    eye = torch.eye(len(dense), dtype=torch.float64)
    assert float((jacobian.forward(eye) - dense.T).norm() / dense.norm()) < 1e-10
    assert float((jacobian.adjoint(eye) - dense).norm() / dense.norm()) < 1e-10
    assert not jacobian.unexplained.systematic


def test_watching_leaves_the_random_state_and_the_statistics_alone():
    module = _network()
    before = copy.deepcopy(module.state_dict())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.3)
    tracker = capacity.TransportTracker(module, "cross_entropy", optimizer, tangents=4)
    state = RandomState.now()
    tracker.observe(X[:6], Y[:6])
    assert torch.equal(RandomState.now().cpu, state.cpu)
    assert RandomState.now().python == state.python
    assert all(torch.equal(before[name], t) for name, t in module.state_dict().items())


def test_a_draw_between_observation_and_step_is_noticed():
    with pytest.raises(ValueError, match="was not the observed one"):
        _loop(_network(), True, between=True)


def test_batches_that_find_no_room_are_forgotten():
    module = _network()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.3)
    tracker = capacity.TransportTracker(module, "cross_entropy", optimizer, tangents=4, budget=0)
    for _ in range(3):
        tracker.observe(X[:6], Y[:6])
        optimizer.zero_grad()
        cross_entropy(module(X[:6]), Y[:6]).backward()
        optimizer.step()
    assert len(tracker._drawn._states) == 1
    assert tracker._phase.images.shape == (4, FlatModel(module).size)
