"""Plasticity measures against values worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import grad

from capacity.criterion.plasticity import effective_rank, plasticity
from capacity.networks.flat_model import FlatModel
from capacity.records.estimate import Status
from capacity.tasks.task import Split, Task
from dense import digits_task, network


@pytest.mark.parametrize(
    ("values", "rank"),
    [
        ([1.0] * 7, 7.0),
        ([3.0, 0.0, 0.0], 1.0),
        ([0.0, 0.0], 0.0),
        # shares 1/2, 1/4, 1/4: exp(1/2 log 2 + 1/2 log 4) = 2 sqrt 2
        ([2.0, 1.0, 1.0], 8**0.5),
    ],
)
def test_effective_rank(values, rank):
    assert effective_rank(torch.tensor(values).double()) == pytest.approx(rank)


def test_features_and_gradients_against_dense_values(float64):
    task = digits_task((0, 1, 2, 3), count=50)
    module = network(64, 6, 10)
    model = FlatModel(module)
    theta = model.initial()
    made = plasticity(model, theta, task)
    with torch.no_grad():
        features = module[:-1](task.train.x)
    sigma = torch.linalg.svdvals(features)
    assert made.feature_rank.value == pytest.approx(effective_rank(sigma), rel=1e-6)
    held = sigma.cumsum(0) / sigma.sum()
    assert made.feature_srank.value == int((held < 0.99).sum()) + 1
    loss = model.loss(task)
    rows = torch.stack([
        grad(loss)(theta, task.train.x[i : i + 1], task.train.y[i : i + 1]) for i in range(50)
    ])
    sigma = torch.linalg.svdvals(rows)
    assert made.gradient_rank.value == pytest.approx(effective_rank(sigma), rel=1e-5)
    assert made.gradient_rank.n == made.feature_rank.n == 50
    assert made.weight_norm.value == pytest.approx(float(theta.norm()))
    assert set(made.to_dict()) == {
        "feature_rank", "feature_srank", "dormant", "gradient_rank", "weight_norm",
    }  # fmt: skip


def test_dormant_units_are_counted(float64):
    module = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    with torch.no_grad():
        module[0].weight.abs_()
        module[0].bias.zero_()
        module[0].bias[:3] = -1e3  # never active
        module[0].weight[3] *= 1e-3  # active, but a hundredth of the others
    model = FlatModel(module)
    made = plasticity(model, model.initial(), digits_task(count=40))
    assert made.dormant.value == pytest.approx(4 / 8)


def test_units_of_a_convolution_are_its_channels():
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(8, 2)
    )
    with torch.no_grad():
        module[0].bias[0] = -1e3
        module[0].weight.abs_()  # the others are active
        module[2].weight.abs_()
    x, y = torch.rand(12, 1, 6, 6), torch.randint(2, (12,))
    task = Task(name="A", train=Split(x, y), test=Split(x, y))
    model = FlatModel(module)
    made = plasticity(model, model.initial(), task)
    # Four channels and, behind the flattening, eight inputs of the last layer.
    assert made.dormant.value == pytest.approx(1 / 12)


def test_without_a_hidden_layer_there_is_nothing_to_be_dormant():
    model = FlatModel(nn.Linear(64, 10))
    made = plasticity(model, model.initial(), digits_task(count=20))
    for name in ("feature_rank", "feature_srank", "dormant"):
        found = getattr(made, name)
        assert (found.value, found.status) == (None, Status.NOT_DEFINED)
    assert made.gradient_rank.value > 1
