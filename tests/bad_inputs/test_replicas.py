"""Replicas whose networks are not one function of theta are refused by name at every door."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

import capacity
from bad_inputs.checkers import check_said

X = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
TASK = (X, (X[:, 0] > 0).long())
SHORT = capacity.Training(lr=0.1, epochs=2, batch_size=12)
BARE = capacity.Measure(
    forecast=False, transport=False, capacity=False, closure_points=0, verdicts=False
)


def net(width=6, activation=nn.Tanh, head=True):
    made = nn.Sequential(nn.Linear(4, width), activation(), nn.Linear(width, 2))
    made[2].requires_grad_(head)
    return made


def counted(build):
    """A factory without arguments; `build` is given the number of the call."""
    calls = iter(range(1000))
    return lambda: build(next(calls))


def listed(build, out):
    del out
    made = [build(k) for k in range(4)]
    capacity.epistemic_speed_limit(made, TASK, training=SHORT, replicas=4, start="warm")


def numbered(build, out):
    del out
    calls = iter(range(1000))
    capacity.epistemic_speed_limit(lambda _: build(next(calls)), TASK, training=SHORT, replicas=4)


def run(build, out):
    capacity.run(
        [TASK, TASK], model=counted(build), training=SHORT, measure=BARE, replicas=4, quiet=True,
        out=out,
    )  # fmt: skip


DOORS = {"a list": listed, "a function of the number": numbered, "run": run}
CASES = {
    "another width": (lambda k: net(6 if k < 3 else 7), "'0.bias'", "(7,)", "(6,)", "replica"),
    "fewer parameters": (lambda k: net(head=k < 3), "'2.bias'", "not trainable", "replica"),
    "another activation": (
        lambda k: net(activation=nn.Tanh if k < 3 else nn.ReLU), "another function", "activation"
    ),
    "another precision": (
        lambda k: net() if k < 3 else net().double(), "torch.float64", "torch.float32"
    ),
    "other frozen parameters": (lambda k: net(head=False), "another function", "frozen parameters"),
    "no network": (lambda k: net() if k < 3 else None, "builds a NoneType", "torch.nn.Module"),
}  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("case", CASES)
def test_replicas_of_another_architecture_are_refused(case, door, tmp_path):
    build, *said = CASES[case]
    out = tmp_path / "run"
    with pytest.raises(ValueError, match=r".") as caught:
        DOORS[door](build, out)
    check_said(str(caught.value), tuple(said))
    assert "\n" not in str(caught.value)
    assert not out.exists()


def after_a_step(layer):
    made = nn.Sequential(layer, nn.Tanh(), nn.Linear(6, 2))
    nn.functional.cross_entropy(made(X), TASK[1]).backward()
    return made


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize(
    ("layer", "name"),
    [(nn.utils.spectral_norm, "weight_orig"), (nn.utils.weight_norm, "weight_g")],
)
@pytest.mark.parametrize("used", [False, True])
def test_a_reset_that_leaves_a_parameter_is_no_new_initialisation(layer, name, used):
    torch.manual_seed(0)
    part = layer(nn.Linear(4, 6))
    model = after_a_step(part) if used else nn.Sequential(part, nn.Tanh(), nn.Linear(6, 2))
    model.eval()
    call = {"training": SHORT, "replicas": 4}
    with pytest.raises(ValueError, match=rf"'0' \(Linear\).*leaves '{name}' as it is.*'warm'"):
        capacity.epistemic_speed_limit(model, TASK, **call)
    made = capacity.epistemic_speed_limit(model, TASK, start="warm", **call)
    assert made.total.per_replica.value >= 1


@pytest.mark.slow
def test_a_factory_draws_by_the_seed_and_leaves_the_global_states():
    def build(replica):
        random.random(), np.random.rand()  # noqa: NPY002
        return net()

    held = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    call = {"training": SHORT, "replicas": 3}
    one, two = (capacity.epistemic_speed_limit(build, TASK, **call) for _ in range(2))
    other = capacity.epistemic_speed_limit(build, TASK, seed=1, **call)
    assert torch.equal(torch.get_rng_state(), held[0])
    assert random.getstate() == held[1]
    assert np.random.get_state()[1].tolist() == held[2]  # noqa: NPY002
    start = one.records[0].theta_start
    assert torch.equal(start, two.records[0].theta_start)
    assert not torch.equal(start, other.records[0].theta_start)
    assert not torch.equal(start[0], start[1])


@pytest.mark.parametrize(("model", "came"), [(lambda: net(), "function"), (None, "NoneType")])
def test_what_builds_no_replica_is_named(model, came):
    with pytest.raises(ValueError, match=f"model is a {came}; .*function of the replica's number"):
        capacity.epistemic_speed_limit(model, TASK, training=SHORT, replicas=2)
