"""Rescalings of hidden units: counted where they are symmetries, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import capacity
from capacity.criterion.symmetries import rescalings
from capacity.networks.flat_model import FlatModel
from capacity.report import render
from capacity.tasks.task import Split, Task
from report.fabricated_run import write


class Skipping(nn.Module):
    """A hidden layer whose units go past the next one, too."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.out = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x):
        hidden = self.one(x).relu()
        return self.out(hidden + self.two(hidden).relu())


def mlp(activation):
    return nn.Sequential(nn.Linear(6, 7), activation, nn.Linear(7, 5), activation, nn.Linear(5, 3))


def images():
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)),
        nn.Conv2d(1, 4, 2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8, 3),
    ).eval()


@pytest.mark.parametrize(
    ("module", "count"),
    [
        (mlp(nn.ReLU()), 12),
        (mlp(nn.Tanh()), 0),
        (mlp(nn.GELU()), 0),
        (nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 3)).eval(), 4),
        (nn.Linear(6, 3), 0),
        (images(), 4),  # of the norm's weights and biases; the convolution is behind statistics
        (Skipping(), 0),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rescalings_are_counted_where_outputs_stand_still(module, count, dtype):
    torch.manual_seed(0)
    model = FlatModel(module.to(dtype))
    x, y = torch.randn(40, 6, dtype=dtype), torch.randint(3, (40,))
    task = Task(name="A", train=Split(x, y), test=Split(x, y))
    assert rescalings(model, model.initial(), [task]) == count


def test_a_frozen_side_is_no_direction():
    module = mlp(nn.ReLU())
    module[0].weight.requires_grad_(False)
    model = FlatModel(module)
    x, y = torch.randn(40, 6), torch.randint(3, (40,))
    task = Task(name="A", train=Split(x, y), test=Split(x, y))
    assert rescalings(model, model.initial(), [task]) == 5


@pytest.mark.filterwarnings("ignore:The old tasks are not converged")
def test_the_record_of_a_network_counts_them_beside_r_a():
    torch.manual_seed(0)
    x, y = torch.randn(40, 6), torch.randint(3, (40,))
    made = capacity.compatible_capacity(
        mlp(nn.ReLU()), old=(x, y), tolerance=0.01, displacement=1.0, eps=(0.1,)
    )
    assert made.rescalings == 12
    assert made.to_dict()["capacity"]["rescalings"] == 12
    # They are among the directions that every old task leaves alone.
    assert made.capacity[0].directions.value >= 12


def test_a_report_says_how_much_of_r_a_is_symmetry(tmp_path):
    html = render(write(tmp_path / "run")).read_text(encoding="utf-8")
    assert "at least 16 are rescalings of hidden units" in html
