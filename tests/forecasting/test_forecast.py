"""capacity.forecast: from a module and data to a forecast, or one clear error."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import capacity
from capacity.records.estimate import Status


def data(labels=(0, 1), n=40, seed=0, width=6):
    generator = torch.Generator().manual_seed(seed)
    y = torch.tensor(labels).repeat(n // len(labels))
    return torch.randn(n, width, generator=generator) + torch.eye(width)[y], y


NET = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
SHORT = capacity.Training(lr=0.1, epochs=3, batch_size=16)


@pytest.mark.slow
def test_every_form_of_task_gives_the_same_forecast():
    old, new = data(), data((2, 3), seed=1)
    forms = [
        (old, new),
        (TensorDataset(*old), TensorDataset(*new)),
        (DataLoader(TensorDataset(*old), 7), DataLoader(TensorDataset(*new), 16)),
        (capacity.hold_out(old), capacity.hold_out(new)),
        ([old], new),
    ]
    made = [
        capacity.forecast(NET, old=a, new=b, training=SHORT, orders=3, budget=None)
        for a, b in forms
    ]
    for other in made[1:]:
        assert other == made[0]
    assert made[0].loss_increase.status is Status.UNCALIBRATED
    low, high = made[0].loss_increase.interval
    assert low < made[0].loss_increase.value < high
    assert 0 <= made[0].new_accuracy.value <= 1
    assert made[0].cost_ratio.value > 1


def test_several_old_tasks():
    made = capacity.forecast(
        NET, old=[data(), data((1, 0), seed=3)], new=data((2, 3), seed=1), training=SHORT, orders=2
    )
    assert len(made.old) == 2
    assert made.accuracy_drop == made.old[0].accuracy_drop


def test_the_model_is_left_alone():
    before = [p.clone() for p in NET.parameters()]
    state = torch.get_rng_state()
    capacity.forecast(NET, old=data(), new=data((2, 3)), training=SHORT, orders=2, budget=None)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in NET.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, NET.parameters(), strict=True))


def test_regression_has_no_accuracy():
    x = torch.randn(30, 6)
    made = capacity.forecast(
        NET, old=(x, x[:, :4]), new=(x, x[:, 2:]), loss="mse", training=SHORT, orders=2
    )
    assert made.accuracy_drop.status is Status.NOT_DEFINED
    assert made.loss_increase.value is not None


@pytest.mark.slow
def test_divergence_of_the_simulation_is_shown():
    wild = capacity.Training(lr=1e20, epochs=5, batch_size=16)
    x = torch.randn(32, 6)
    made = capacity.forecast(
        NET, old=(x, x[:, :4]), new=(x, x[:, 2:]), loss="mse", training=wild, orders=2, budget=None
    )
    assert made.loss_increase.status is Status.DIVERGED
    assert made.loss_increase.value is None


@pytest.mark.slow
def test_what_diverges_has_no_accuracy():
    stiff = {"name": "l2", "strength": 1e30}
    wild = capacity.Training(lr=0.1, epochs=5, batch_size=16, strategy=stiff)
    made = capacity.forecast(
        NET, old=data(), new=data((2, 3), seed=1), training=wild, orders=2, budget=None
    )
    for estimate in (made.accuracy_drop, made.new_accuracy, made.average_accuracy):
        assert estimate.status is Status.DIVERGED
        assert estimate.value is None


BAD = {
    "labels outside": ({"new": data((3, 4))}, "accepted: 0 to 3"),
    "other shape": ({"new": data(width=5)}, "one model needs one shape"),
    "no old task": ({"old": []}, "old is empty"),
    "nan": ({"new": (torch.full((4, 6), torch.nan), torch.zeros(4).long())}, "NaN"),
    "no data": ({"new": 7}, "int"),
    "training": ({"training": {"lr": 0.1}}, "training is a dict"),
    "orders": ({"orders": 0}, "orders = 0"),
    "device": ({"device": "gpu"}, "device = 'gpu'"),
    "model": ({"model": "net"}, "model is a str"),
    "frozen": ({"model": nn.Linear(6, 4).requires_grad_(False)}, "no trainable parameters"),
    "wrong width": ({"model": nn.Linear(5, 4)}, "does not take inputs of shape"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    changed, said = BAD[case]
    arguments = {"model": NET, "old": data(), "new": data((2, 3)), "training": SHORT} | changed
    with pytest.raises(ValueError, match=r".") as caught:
        capacity.forecast(arguments.pop("model"), **arguments)
    assert said in str(caught.value)
