"""No public call changes what it is given: data, networks, losses' targets, global states."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

import capacity

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore:There is a performance drop", "ignore:The old tasks are not converged"
    ),
]


class InPlace(nn.Module):
    def forward(self, v):
        return v.sub_(0.1)


def network(in_place):
    torch.manual_seed(0)
    first = [InPlace(), nn.ReLU(inplace=True)] if in_place else []
    return nn.Sequential(*first, nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def written_loss(outputs, targets):
    """Cross-entropy that writes into its targets, and shifts the outputs by a constant."""
    targets.add_(1).sub_(1)
    return nn.functional.cross_entropy(outputs.add_(0.5), targets)


def run(model, old, new, loss, folder):
    measure = capacity.Measure(level="capacity")
    capacity.run(
        [old, new],
        model=model,
        loss=loss,
        training=capacity.Training(lr=0.1, epochs=2, batch_size=16),
        measure=measure,
        replicas=1,
        quiet=True,
        out=folder / "run",
    )


def track(model, old, new, loss, folder):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tracker = capacity.TransportTracker(model, loss, optimizer, tangents=2)
    tracker.observe(*old)
    tracker.log_volume()
    tracker.spectrum(top=2)


PLAN = capacity.Training(lr=0.1, epochs=2, batch_size=16)
ROOM = {"tolerance": 0.1, "displacement": 1.0}
CALLS = {
    "run": run,
    "TransportTracker": track,
    "forecast": lambda m, a, b, loss, _: capacity.forecast(
        m, old=a, new=b, loss=loss, training=PLAN, strategies=["replay", "ewc"]
    ),
    "forecast, simulated": lambda m, a, b, loss, _: capacity.forecast(
        m, old=a, new=b, loss=loss, training=PLAN, budget=None, orders=2
    ),
    "verdict": lambda m, a, b, loss, _: capacity.verdict(m, old=a, new=b, loss=loss, training=PLAN),
    "compatible_capacity": lambda m, a, b, loss, _: capacity.compatible_capacity(
        m, old=a, new=b, loss=loss, **ROOM
    ),
    "task_dimension": lambda m, a, b, loss, _: capacity.task_dimension(
        m, old=a, new=b, loss=loss, **ROOM
    ),
    "epistemic_speed_limit": lambda m, a, b, loss, _: capacity.epistemic_speed_limit(
        m, [a, b], loss=loss, training=PLAN, replicas=2
    ),
    "hold_out": lambda m, a, b, loss, _: capacity.hold_out(a, loss=loss),
}


def state_of(model):
    return {
        "values": copy.deepcopy(model.state_dict()),
        "training": [part.training for part in model.modules()],
        "hooks": [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "versions": [p._version for p in model.parameters()],
    }


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("kind", ["plain", "in place", "in place, and the loss"])
@pytest.mark.parametrize("name", CALLS)
def test_a_call_leaves_its_arguments_and_the_global_states(name, kind, tmp_path):
    x = torch.randn(2, 40, 4, generator=torch.Generator().manual_seed(1))
    y = (x[:, :, 0] > 0).long()
    old, new = (x[0], y[0]), (x[1], 1 - y[1])
    model = network(kind != "plain")
    nn.functional.cross_entropy(model(x[0].clone()), y[0]).backward()  # gradients to be kept
    model[-1].eval()
    loss = written_loss if kind == "in place, and the loss" else "cross_entropy"

    tensors = [*old, *new]
    before = [t.clone() for t in tensors]
    versions = [t._version for t in tensors]
    state = state_of(model)
    random_states = [
        torch.get_rng_state(),
        torch.from_numpy(np.random.get_state()[1].astype(np.int64)),  # noqa: NPY002
        random.getstate(),
    ]

    CALLS[name](model, old, new, loss, tmp_path)

    for tensor, value, version in zip(tensors, before, versions, strict=True):
        assert torch.equal(tensor, value)
        assert tensor._version == version
    after = state_of(model)
    for part, value in state.items():
        assert same(value, after[part]), part
    now = np.random.get_state()[1].astype(np.int64)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), random_states[0])
    assert torch.equal(torch.from_numpy(now), random_states[1])
    assert random.getstate() == random_states[2]
    assert torch.get_default_dtype() is torch.float32
    assert torch.is_grad_enabled()
