"""What only Python has of a run, tasks, networks and losses, is told apart by what it does."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import capacity
from capacity.recipe import config
from capacity.recipe.config import Measure, Recipe, TaskStream, Training
from capacity.results.fingerprint import differences
from capacity.runs.directory import RunDirectory
from capacity.runs.probes import fingerprint_of
from capacity.tasks.streams import as_sequence

MEASURE = Measure(forecast=False, transport=False, capacity=False, closure_points=0, verdicts=False)
pytestmark = pytest.mark.usefixtures("quick_runs")

PLAIN = {"training": Training(lr=0.1, epochs=1), "measure": MEASURE, "replicas": 1, "quiet": True}


def pairs(shift=0.0):
    x = torch.randn(2, 40, 5, generator=torch.Generator().manual_seed(1)) + shift
    return [(x[k], (x[k, :, k] > 0).long()) for k in range(2)]


class Net(nn.Module):
    def __init__(self, activation, scale=1.0, zero=False, layer=None, shift=0.0):
        super().__init__()
        self.hidden, self.out = nn.Linear(5, 6), nn.Linear(6, 2)
        self.layer = nn.Identity() if layer is None else layer()
        self.register_buffer("shift", torch.tensor(shift), persistent=False)
        self.activation, self.scale = activation, scale
        if zero:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def forward(self, v):
        far = self.shift * (v[:, :1] > 100)
        return self.out(self.layer(self.activation(self.hidden(v)))) * self.scale + far


class Scaled(torch.autograd.Function):
    """The same value, and half the gradient."""

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        return

    @staticmethod
    def backward(ctx, gradient):
        return 0.5 * gradient


def taken(activation=torch.tanh, loss="cross_entropy", moved=0.0, **options):
    def build():
        return Net(activation, **options)

    def new_model(seed):
        torch.manual_seed(seed)
        return build()

    return fingerprint_of(as_sequence(pairs(moved), loss=loss), new_model)


OTHERS = {
    # what differs: (one, the other, what is said)
    "activation": ({}, {"activation": torch.relu}, "the forward pass differs"),
    "activation, hidden by a last layer of zeros": (
        {"zero": True}, {"zero": True, "activation": torch.relu}, "the forward pass differs"
    ),
    "two forms of one activation": (
        {"activation": functional.gelu},
        {"activation": lambda v: functional.gelu(v, approximate="tanh")},
        "the forward pass differs",
    ),
    "scale": ({}, {"scale": 1.001}, "the forward pass differs"),
    "loss": (
        {"loss": lambda o, t: functional.cross_entropy(o, t)},
        {"loss": lambda o, t: functional.cross_entropy(o, t, label_smoothing=0.1)},
        "the loss differs: other values",
    ),
    "gradient of the loss": (
        {"loss": lambda o, t: functional.cross_entropy(o, t)},
        {"loss": lambda o, t: functional.cross_entropy(Scaled.apply(o), t)},
        "the loss differs: another gradient",
    ),
    "function in place of a name": (
        {}, {"loss": functional.cross_entropy}, "the loss differs: another name"
    ),
    "data": ({}, {"moved": 0.5}, "the data differ"),
    "rate of a dropout": (
        {"layer": lambda: nn.Dropout(0.1)}, {"layer": lambda: nn.Dropout(0.7)},
        "the forward pass differs",
    ),
    "momentum of a batch norm": (
        {"layer": lambda: nn.BatchNorm1d(6)}, {"layer": lambda: nn.BatchNorm1d(6, momentum=0.9)},
        "the forward pass differs",
    ),
    "a buffer that is not kept": (
        {"shift": 0.0}, {"shift": 1.0}, "the network's parameters or buffers differ"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_what_differs_is_named(case):
    one, other, said = OTHERS[case]
    found = differences(taken(**one), taken(**other))
    assert len(found) == 1
    assert found[0].startswith(said)


def test_two_functions_that_do_the_same_are_the_same():
    one = taken(loss=lambda outputs, targets: functional.cross_entropy(outputs, targets))
    other = taken(loss=lambda o, t: functional.nll_loss(o.log_softmax(-1), t))
    assert differences(one, other) == []
    assert taken(activation=torch.tanh) == taken(activation=lambda v: v.tanh())


def test_other_parameters_are_another_network():
    first, second = (
        fingerprint_of(as_sequence(pairs()), lambda _, net=net: net)
        for net in (Net(torch.tanh), Net(torch.tanh))
    )
    assert differences(first, second) == ["the network's parameters or buffers differ at its start"]


def rounded(text, by):
    """Write a fingerprint as a machine would have it that rounds otherwise."""
    name, value = "forward:", text.split("forward:")[1].split(" ")[0]
    numbers = [float(v) * (1 + by) for v in value.split(",")]
    return text.replace(name + value, name + ",".join(f"{v:.9g}" for v in numbers))


def test_rounding_is_no_difference():
    text = taken()
    assert rounded(text, 1e-6) != text
    assert differences(text, rounded(text, 1e-6)) == []
    assert differences(text, rounded(text, 1e-3)) != []
    assert differences(text, "0123456789abcdef") != [], "one of an earlier version is no proof"


def test_probes_change_neither_network_nor_data():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 2)

        def forward(self, v):
            v.sub_(0.1)
            return self.layer(v)

    net, tasks = InPlace(), as_sequence(pairs())
    before = [p.clone() for p in net.parameters()] + [t.train.x.clone() for t in tasks.tasks]
    fingerprint_of(tasks, lambda _: net)
    after = [*net.parameters(), *(t.train.x for t in tasks.tasks)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.slow
def test_the_directory_refuses_another_forward_pass_or_loss(tmp_path):
    def run(activation=torch.tanh, loss="cross_entropy", out=tmp_path / "run"):
        return capacity.run(pairs(), model=lambda: Net(activation), loss=loss, out=out, **PLAIN)

    result = run().result
    assert run(activation=lambda v: v.tanh()).result == result
    with pytest.raises(ValueError, match=r"the forward pass differs.*name another directory"):
        run(activation=torch.relu)
    with pytest.raises(ValueError, match=r"the loss differs.*name another directory"):
        run(loss=lambda o, t: functional.cross_entropy(o, t, label_smoothing=0.2))


@pytest.mark.slow
def test_a_directory_from_a_machine_that_rounds_otherwise_is_taken(tmp_path):
    def run():
        return capacity.run(pairs(), model=lambda: Net(torch.tanh), out=tmp_path / "run", **PLAIN)

    made = run()
    path = made.path / "recipe.yaml"
    kept = RunDirectory.open(made.path).recipe()
    section = TaskStream(dataset="custom", fingerprint=rounded(kept.tasks.fingerprint, 1e-6))
    other: Recipe = kept.model_copy(update={"tasks": section})
    path.write_text(other.to_yaml())
    (made.path / "manifest.json").unlink()  # what is edited here was written there
    assert config.load(path).tasks.fingerprint != kept.tasks.fingerprint
    assert run().path == made.path


def test_a_loss_that_cannot_be_taken_is_refused_before_the_directory(tmp_path):
    for loss, said in (
        (lambda o, t: functional.cross_entropy(o, t, reduction="none"), "returns shape"),
        (lambda o, t: o.no_such_thing, "does not take outputs"),
    ):
        with pytest.raises(ValueError, match=said):
            capacity.run(
                pairs(), model=lambda: Net(torch.tanh), loss=loss, out=tmp_path / "run", **PLAIN
            )
    assert not (tmp_path / "run").exists()
