"""What `capacity.forecast` cannot work with: one clear error, and no half forecast."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import capacity
from bad_inputs.checkers import check_said
from capacity.tasks.task import Split, Task

X = torch.arange(48.0).reshape(8, 6) / 48
Y = torch.tensor([0, 1] * 4)
SHORT = capacity.Training(lr=0.1, epochs=2, batch_size=4)
LONG = capacity.Training(lr=0.1, epochs=2000, batch_size=4)


def net(**values):
    """A small network, some of whose parameters hold one value."""
    made = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    for name, value in values.items():
        made.get_parameter(name.replace("_", ".")).data.fill_(value)
    return made


class TwoOutputs(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


def head(*outputs):
    return Task(name="head", train=Split(X, Y), test=Split(X, Y), outputs=outputs)


NAN = float("nan")
CASES = {
    # what is wrong: (arguments of a forecast that works, changed; words of the error)
    "another shape": ({"new": (X[:, :5], Y)}, "(6,)", "(5,)", "one model needs one shape"),
    "a head that is not there": ({"old": head(4, 5)}, "reads output 5", "4 outputs", "at least 6"),
    "labels beyond the head": ({"new": (X, Y + 4)}, "'new'", "from 4 to 5", "accepted: 0 to 3"),
    "negative labels": ({"old": (X, Y - 1)}, "'old'", "from -1 to 0", "accepted: 0 to 3"),
    "labels beyond a task's head": (
        {"new": Task(name="b", train=Split(X, Y + 1), test=Split(X, Y), outputs=(2, 3))},
        "'b', train", "from 1 to 2", "accepted: 0 to 1",
    ),
    "float labels": ({"new": (X, Y.float())}, "'new'", "torch.float32", "integer tensor (n,)"),
    "targets of another width": (
        {"old": (X, X[:, :3]), "new": (X, X[:, :3]), "loss": "mse"}, "'mse'", "(6, 4)", "(6, 3)"
    ),
    "no old task": ({"old": []}, "old is empty", "at least one old task"),
    "nothing for the old task": ({"old": None}, "NoneType", "accepted"),
    "nothing held out of the old task": (
        {"old": ((X, Y), (X[:0], Y[:0]))}, "'old', test inputs is empty", "at least one row"
    ),
    "a task that was learned already": (
        {"new": (X.clone(), Y.clone())}, "new: ", "those of old task 'old'", "learned it already"
    ),
    "NaN in the old task": ({"old": (X * NAN, Y)}, "'old', train", "NaN", "8 of 8 rows"),
    "NaN in what is held out": ({"new": ((X, Y), (X * NAN, Y))}, "'new', test inputs", "NaN"),
    "inputs of another precision": ({"old": (X.double(), Y)}, "torch.float64", "'old'"),
    "whole numbers as inputs": ({"old": (X.long(), Y)}, "torch.int64", "'old'"),
    "an unknown loss": ({"loss": "crossentropy"}, "'crossentropy'", "cross_entropy, mse"),
    "a loss per sample": ({"loss": lambda f, y: f.sum(-1)}, "returns shape (6,)", "scalar"),
    "a loss that is NaN": ({"loss": lambda f, y: f.sum() * NAN}, "is nan", "must be finite"),
    "a loss of one argument": ({"loss": lambda f: f.sum()}, "does not take outputs", "argument"),
    "an unknown strategy": ({"strategies": ["ewcc"]}, "'ewcc'", "did you mean 'ewc'", "accepted"),
    "an unknown strategy alone": ({"strategies": "replai"}, "did you mean 'replay'"),
    "another strategy's option": (
        {"strategies": [{"name": "ewc", "memory": 3}]}, "memory = 3 is no option", "fisher"
    ),
    "a strategy that is a number": ({"strategies": [3]}, "holds 3", "{'name': 'ewc'"),
    "a strategy outside its list": ({"strategies": {"name": "ewc"}}, "is no list", "'all'"),
    "no list of strategies": ({"strategies": None}, "strategies = None", "'all'"),
    "a strategy twice": ({"strategies": ["ewc", "ewc"]}, "'ewc' twice", "once"),
    "a strategy that needs the past": ({"strategies": ["si"]}, "'si'", "'mas' or 'ewc'"),
    "a strategy without its parameters": ({"strategies": ["freeze"]}, "parameters = ['1.*']"),
    "a budget of nothing": ({"budget": 0}, "budget = 0", "finite number above 0"),
    "a budget below nothing": ({"budget": -0.1}, "budget = -0.1", "finite number above 0"),
    "a budget that is no number": ({"budget": NAN}, "budget = nan", "finite number above 0"),
    "a budget as text": ({"budget": "5%"}, "budget = '5%'", "finite number above 0"),
    "a budget that pays nothing": (
        {"budget": 1e-9, "training": LONG}, "budget = 1e-09", "smallest", "budget=None"
    ),
    "no order": ({"orders": 0}, "orders = 0", "at least 1"),
    "orders as text": ({"orders": "many"}, "orders = 'many'", "at least 1"),
    "a negative seed": ({"seed": -1}, "seed = -1", "at least 0"),
    "a seed as text": ({"seed": "x"}, "seed = 'x'", "at least 0"),
    "an unknown device": ({"device": "tpu"}, "device = 'tpu'", "accepted: auto, cpu, cuda"),
    "an absent device": ({"device": "cuda:99"}, "'cuda:99'", "not on this machine", "cpu"),
    "training as a dictionary": ({"training": {"lr": 1}}, "training is a dict", "Training(lr="),
    "a network by name": ({"model": "mlp"}, "model is a str", "torch.nn.Module"),
    "a class in place of a network": ({"model": nn.Linear}, "model is a type", "Module"),
    "parameters that are NaN": (
        {"model": net(**{"0_weight": NAN})}, "'0.weight'", "30 of 30", "diverged"
    ),
    "parameters that are NaN, at a budget": (
        {"model": net(**{"2_bias": NAN}), "budget": 0.5, "training": LONG}, "'2.bias'", "4 of 4"
    ),
    "logits that overflow": (
        {"model": net(**{"0_bias": 9.0, "2_weight": 3e38})}, "outputs that are NaN or infinite"
    ),
    "no parameters": ({"model": nn.Tanh()}, "no trainable parameters", "requires_grad"),
    "frozen parameters": ({"model": net().requires_grad_(False)}, "no trainable parameters"),
    "parameters without shape": ({"model": nn.LazyLinear(4)}, "'weight'", "on one batch first"),
    "parameters without values": (
        {"model": nn.Linear(6, 4, device="meta")}, "meta device", "load_state_dict"
    ),
    "batch norm in training, linearised": (
        {"model": nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)), "budget": None},
        "(BatchNorm1d)", ".eval()",
    ),
    "dropout in training, linearised": (
        {"model": nn.Sequential(nn.Linear(6, 4), nn.Dropout()), "budget": None},
        "(Dropout)", ".eval()",
    ),
    "a network of another width": ({"model": nn.Linear(5, 4)}, "inputs of shape (6,)"),
    "two precisions": (
        {"model": nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 4).double())}, "dtypes", "one"
    ),
    "outputs without their axis": (
        {"model": nn.Sequential(nn.Linear(6, 1), nn.Flatten(0))}, "shape (6,)", "(n, n_outputs)"
    ),
    "outputs in a table": (
        {"model": nn.Sequential(nn.Linear(6, 4), nn.Unflatten(1, (2, 2)))}, "(6, 2, 2)", "Flatten"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_forecast_is_named(case):
    changed, *said = CASES[case]
    given = {"model": net(), "old": (X, Y), "new": (X, 1 - Y), "training": SHORT, "orders": 2}
    given |= changed
    with pytest.raises(ValueError, match=r".") as caught:
        capacity.forecast(given.pop("model"), **given)
    check_said(str(caught.value), tuple(said))


def test_the_same_call_without_a_mistake_works():
    made = capacity.forecast(
        net(), old=(X, Y), new=(X, 1 - Y), training=SHORT, orders=2, strategies=["replay"]
    )
    assert made.loss_increase.value is not None
    assert list(made.by_strategy) == ["replay"]
