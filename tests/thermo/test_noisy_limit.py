"""Langevin training from one point against the speed limit of training with noise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import capacity
from capacity.thermo.noisy_limit import noisy_limit
from capacity.thermo.speed_limit_verdicts import Verdict
from capacity.thermo.wasserstein import distance
from dense import network

X = torch.randn(24, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def cooled(start="warm", optimizer="sgld", replicas=200):
    torch.manual_seed(0)
    model = nn.Linear(3, 1, bias=False).double()
    task = (X, X @ torch.tensor([[1.0], [-0.5], [0.2]]).double())
    return model, capacity.epistemic_speed_limit(
        model, task, loss="mse", start=start, replicas=replicas,
        training=capacity.Training(
            optimizer=optimizer, temperature=0.05, lr=0.02, epochs=60, batch_size=24
        ),
    )  # fmt: skip


@pytest.mark.slow
def test_it_is_that_of_the_closed_form_on_a_quadratic():
    model, made = cooled()
    limit = made.total.noisy
    # Per eigenmode of the Hessian: the chain's own moments, and the bridge from a point.
    values, vectors = torch.linalg.eigh(X.T @ X / len(X))
    target = torch.tensor([1.0, -0.5, 0.2]).double()
    gap = vectors.T @ (model.weight[0].detach() - target)
    mean, spread, spent = gap.clone(), torch.zeros(3).double(), 0.0
    for _ in range(60):
        spent += 0.02 * float((values**2 * (mean**2 + spread)).sum()) / (4 * 0.05)
        mean, spread = (
            (1 - 0.02 * values) * mean,
            (1 - 0.02 * values) ** 2 * spread + 2 * 0.02 * 0.05,
        )
    bridge = capacity.closed_forms.schroedinger_bridge(
        mean_start=gap, variance_start=0.0, mean_end=mean, variance_end=spread,
        temperature=0.05, time=1.2,
    )  # fmt: skip
    assert abs(limit.spent.value - spent) < 4 * limit.spent.stderr
    # Correlated coordinates: independent Gaussians have more entropy, so this is a lower bound.
    assert limit.least.value < float(bridge.divergence.sum()) + 4 * limit.least.stderr
    assert limit.least.value > 0.5 * float(bridge.divergence.sum())
    assert limit.verdict is Verdict.CONSISTENT
    assert 0 < limit.efficiency.value < 1
    assert made.to_dict()["total"]["noisy"]["verdict"] == "consistent"


@pytest.mark.slow
def test_it_can_fail_and_is_of_langevin_dynamics_from_a_point_alone():
    _, made = cooled(replicas=20)
    record = made.records[0]
    moved = distance(record.end.grams, start=record.start)
    less = replace(record, series=replace(record.series, drive=record.series.drive * 1e-3))
    level = {"level": 0.95, "violation_level": 0.9999}
    assert noisy_limit(less, moved, **level).verdict is Verdict.VIOLATED
    for other in ({"start": "cold"}, {"optimizer": "underdamped"}):
        assert cooled(replicas=6, **other)[1].total.noisy is None


@pytest.mark.slow
def test_it_holds_on_a_network():
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(2))
    made = capacity.epistemic_speed_limit(
        network(5, 4, 2), (x, (x[:, 0] > 0).long()), start="warm", replicas=60,
        training=capacity.Training(
            optimizer="sgld", temperature=1e-3, lr=0.1, epochs=100, batch_size=60
        ),
    )  # fmt: skip
    assert made.total.noisy.verdict is Verdict.CONSISTENT
