"""Networks and losses that no analysis can work with: the same line from every front door."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import capacity
from bad_inputs.checkers import check_said

X = torch.linspace(-1, 1, 96).reshape(16, 6).roll(3, 1) + torch.eye(16, 6)
Y = torch.tensor([0, 1] * 8)
SHORT = capacity.Training(lr=0.1, epochs=1, batch_size=8)
BARE = capacity.Measure(transport=False, capacity=False, verdicts=False)
SCALES = {"tolerance": 0.1, "displacement": 1.0}


def tracked(model, old, new, loss, out):
    del new, out
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    capacity.TransportTracker(model, loss, optimizer, tangents=2).observe(*old)


def numbers_of(value):
    """Every number of a record, in order."""
    if isinstance(value, dict | list | tuple):
        parts = value.values() if isinstance(value, dict) else value
        return [number for part in parts for number in numbers_of(part)]
    return [value] if isinstance(value, float) else []


DOORS = {
    "forecast": lambda m, a, b, loss, out: capacity.forecast(
        m, old=a, new=b, loss=loss, training=SHORT
    ),
    "simulation": lambda m, a, b, loss, out: capacity.forecast(
        m, old=a, new=b, loss=loss, training=SHORT, budget=None, orders=2
    ),
    "verdict": lambda m, a, b, loss, out: capacity.verdict(
        m, old=a, new=b, loss=loss, training=SHORT
    ),
    "compatible_capacity": lambda m, a, b, loss, out: capacity.compatible_capacity(
        m, old=a, new=b, loss=loss, **SCALES
    ),
    "task_dimension": lambda m, a, b, loss, out: capacity.task_dimension(
        m, old=a, new=b, loss=loss, **SCALES
    ),
    "speed limit": lambda m, a, b, loss, out: capacity.epistemic_speed_limit(
        m, [a, b], loss=loss, training=SHORT, replicas=2, start="warm"
    ),
    "run": lambda m, a, b, loss, out: capacity.run(
        [a, b], model=m, loss=loss, training=SHORT, measure=BARE, replicas=1, out=out, quiet=True
    ),
    "tracker": tracked,
}


class Layer(nn.Module):
    """A layer given by its function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class StochasticDepth(nn.Module):
    """Leaves samples out of a branch while it trains, as torchvision's layer of that name does."""

    def forward(self, x):
        return x * (torch.rand(len(x), 1) > 0.3) if self.training else x


class OwnGenerator(nn.Module):
    """Draws from a generator that no global state shows."""

    def __init__(self):
        super().__init__()
        self.draws = np.random.default_rng(0)

    def forward(self, x):
        return x + float(self.draws.normal())


class Counting(nn.Module):
    """Replaces its buffer at each call; its output never changes."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls = self.calls + 1
        return x


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        return 2 * g * ctx.saved_tensors[0]


class TwoOutputs(nn.Linear):
    def forward(self, x):
        return {"left": super().forward(x), "right": x}


class Checkpointed(nn.Linear):
    def forward(self, x):
        return checkpoint(super().forward, x, use_reentrant=False)


def after(layer):
    return lambda: nn.Sequential(nn.Linear(6, 4), layer, nn.Linear(4, 2))


def masked():
    layer = nn.Linear(6, 2)
    mask = torch.tensor([True, False])
    return nn.Sequential(layer, Layer(lambda f: torch.where(mask, f, -1000.0)))


MASK = "draws a new random mask at each call, so a step is no function of theta alone"
NETWORKS = {
    "stochastic depth": (after(StochasticDepth()), "'1' (StochasticDepth)", MASK, ".eval()"),
    "dropout by function": (
        after(Layer(lambda x: functional.dropout(x, 0.5))), "'1' (Layer)", MASK,
        "functional.dropout with training=self.training",
    ),
    "noise": (after(Layer(lambda x: x + 0.1 * torch.randn_like(x))), "'1' (Layer)", MASK),
    "noise of numpy": (after(Layer(lambda x: x + float(np.random.rand()))), "'1' (Layer)", MASK),  # noqa: NPY002
    "noise of python": (after(Layer(lambda x: x + random.random())), "'1' (Layer)", MASK),
    "noise of its own": (after(OwnGenerator()), "model draws"),
    "spectral norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 2))),
        "changes its buffer", "no function of theta alone", ".eval()",
    ),
    "a buffer that is replaced": (after(Counting()), "'1' (Counting)", "'1.calls'", "forward"),
    "batch norm without statistics": (
        after(nn.BatchNorm1d(4, track_running_stats=False)), "'1' (BatchNorm1d)",
        "another output in another batch", "GroupNorm",
    ),
    "attention over the batch": (
        after(Layer(lambda x: x - x.mean(0))), "'1' (Layer)", "another output in another batch"
    ),
    "a dictionary": (lambda: TwoOutputs(6, 2), "returns a dict", "'logits'"),
    "a lazy layer": (lambda: nn.LazyLinear(2), "no shape yet", "on one batch first"),
    "no values": (lambda: nn.Linear(6, 2, device="meta"), "meta device", "load_state_dict"),
    "an old autograd.Function": (
        after(Layer(Square.apply)), "cannot be differentiated", "give its torch.autograd.Function",
        "forecasts, and runs with Measure(level='forecast')",
    ),
    "gradient checkpointing": (
        lambda: Checkpointed(6, 2), "cannot be differentiated", "gradient_checkpointing_disable",
        "forecasts, and runs with Measure(level='forecast')",
    ),
    "half precision": (
        lambda: nn.Linear(6, 2).bfloat16(), "dtype torch.bfloat16", "torch.float32", "model.float()"
    ),
    "a head that masks a class": (masked, "outputs [1]", "constant (-1000)", "adaptation"),
}  # fmt: skip
NOT_AT_THE_TRACKER = {
    "batch norm without statistics", "attention over the batch", "a head that masks a class",
    "half precision",
}  # fmt: skip
"""A step on a batch is a function of theta all the same, in the training's own precision."""
TRAINED = {
    "stochastic depth", "spectral norm", "an old autograd.Function", "gradient checkpointing"
}  # fmt: skip
"""Training needs no pure function, and no second derivative."""
EVALUATED = {"stochastic depth", "spectral norm"}
"""Capacity and verdicts are of the network in evaluation mode."""


@pytest.mark.filterwarnings("ignore:The old tasks are not converged")
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("case", NETWORKS)
def test_a_network_is_refused_alike_at_every_door(case, door, tmp_path, request):
    make, *said = NETWORKS[case]
    if door == "tracker" and case in NOT_AT_THE_TRACKER:
        pytest.skip("a step on a batch is a function of theta all the same")
    torch.manual_seed(0)
    model, out = make(), tmp_path / "run"
    mode = [part.training for part in model.modules()]
    if case in TRAINED and door in {"forecast", "run"}:
        request.getfixturevalue("quick_run")
        made = DOORS[door](model, (X, Y), (X, 1 - Y), "cross_entropy", out)
        assert made.status == "finished" if door == "run" else made.old[0].loss_increase.value
        return
    if case == "stochastic depth" and door == "tracker":  # its masks are drawn again
        assert DOORS[door](model, (X, Y), None, "cross_entropy", out) is None
        return
    if case in EVALUATED and door in {"verdict", "compatible_capacity", "task_dimension"}:
        made = DOORS[door](model, (X, Y), (X, 1 - Y), "cross_entropy", out)
        again = DOORS[door](copy.deepcopy(model).eval(), (X, Y), (X, 1 - Y), "cross_entropy", out)
        numbers, evaluated = (numbers_of(each.to_dict()) for each in (made, again))
        assert numbers == pytest.approx(evaluated, rel=1e-4, abs=1e-6)
        return
    with pytest.raises(ValueError, match=r".") as caught:
        DOORS[door](model, (X, Y), (X, 1 - Y), "cross_entropy", out)
    check_said(str(caught.value), tuple(said))
    assert "\n" not in str(caught.value)
    assert not out.exists()
    assert [part.training for part in model.modules()] == mode


def contrastive(f, y):
    del y
    return functional.cross_entropy(f @ f.T, torch.arange(len(f)))


def penalised(f, y):
    return functional.cross_entropy(f, y) + 0.01 * PENALISED.weight.square().sum()


PENALISED = nn.Linear(2, 2)
LOSSES = {
    "a sum": (nn.CrossEntropyLoss(reduction="sum"), "the sum over the samples", "reduction='mean'"),
    "contrastive": (contrastive, "couples the samples", "a mean over samples"),
    "one number per sample": (nn.CrossEntropyLoss(reduction="none"), "returns shape", "scalar"),
    "a float": (lambda f, y: float(functional.cross_entropy(f, y)), "returns float", "scalar"),
    "a penalty": (penalised, "depends on parameters beside the outputs", "weight_decay"),
    "accuracy": (lambda f, y: (f.argmax(1) == y).float().mean(), "no gradient in the outputs"),
    "noise": (lambda f, y: functional.cross_entropy(f * torch.rand(()), y), "then", "random"),
    "two arguments more": (lambda f, y, a, b: f.sum(), "does not take outputs", "argument"),
}  # fmt: skip
OF_A_BATCH = {"a sum", "contrastive"}
"""The tracker takes any loss of a batch."""


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("case", LOSSES)
def test_a_loss_is_refused_alike_at_every_door(case, door, tmp_path):
    loss, *said = LOSSES[case]
    torch.manual_seed(0)
    model, out = nn.Linear(6, 2), tmp_path / "run"
    if door == "tracker" and case in OF_A_BATCH:
        tracked(model, (X, Y), None, loss, None)
        return
    with pytest.raises(ValueError, match=r".") as caught:
        DOORS[door](model, (X, Y), (X, 1 - Y), loss, out)
    check_said(str(caught.value), (*said, "loss = "))
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_looking_leaves_random_numbers_and_the_network_as_they_are():
    model = nn.Sequential(nn.Linear(6, 4), StochasticDepth(), nn.Linear(4, 2))
    before = copy.deepcopy(model.state_dict())
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    capacity.verdict(model, old=(X, Y), new=(X, 1 - Y))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]  # noqa: NPY002
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())
