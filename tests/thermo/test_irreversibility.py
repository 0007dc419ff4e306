"""R by its three routes against closed forms, and the divergence from the Gibbs law."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import capacity
from capacity.optimizers.sgd import SGD
from capacity.optimizers.sgld import Langevin
from capacity.records.estimate import Status
from capacity.thermo.ensemble import Ensemble
from capacity.thermo.ensemble_record import Start
from capacity.thermo.irreversibility import irreversibility, score_square
from capacity.thermo.speed_limit import judge
from ensembles import bowl, gaussian_start, relaxation

TAU, TIME = 0.3, 0.8


def relaxed(count, steps, *, log_volume=1, checkpoints=16, seed=4, variance=1.0):
    _, ensemble = gaussian_start(count, seed=seed, variance=variance)
    stops = sorted({max(1, round(steps * (k + 1) / checkpoints)) for k in range(checkpoints)})
    return ensemble.learn(
        bowl(), Langevin(TAU, seed=2), [TIME / steps] * steps, checkpoints=stops,
        log_volume=log_volume,
    )  # fmt: skip


def test_all_routes_are_the_closed_form_of_a_relaxation():
    steps = 100
    made = judge(relaxed(250, steps)).irreversibility
    truth = float(relaxation(temperature=TAU, time=TIME).dissipation.sum()) / TAU
    # In a bowl products of steps and gradients add up to the energies exactly.
    assert made.path_ratio.value == pytest.approx(made.free_energy.value, rel=1e-9)
    first_order = 2 * TIME / steps * truth
    for found in (made.free_energy, made.path_ratio, made.score):
        assert found.status is Status.OK
        assert abs(found.value - truth) < 3 * found.stderr + first_order
        assert found.stderr < 0.1 * truth


def test_the_divergence_from_the_gibbs_law_falls_by_it():
    truth = relaxation(temperature=TAU, time=TIME)
    start, end = (
        capacity.closed_forms.gibbs_divergence(
            rate=[0.5, 1.0, 2.0], target=[1.5, -1.0, 0.5], temperature=TAU, mean=mean,
            variance=variance,
        )
        for mean, variance in ((0.0, 1.0), (truth.mean, truth.variance))
    )  # fmt: skip
    assert float((start - end).sum()) == pytest.approx(float(truth.dissipation.sum()) / TAU)


@pytest.mark.parametrize("size", [1, 6])
def test_the_score_is_unbiased_and_each_replica_is_left_out_by_itself(size):
    source = torch.Generator().manual_seed(3)
    scales = torch.linspace(0.5, 2.0, size).double()
    found = []
    for _ in range(300):
        theta = torch.randn(9, size, generator=source).double() * scales
        found.append(score_square(theta, rows=torch.arange(9), block_bytes=9 * 8 * 2).value)
    drawn = torch.tensor(found)
    truth = float((1 / scales.square()).sum())
    assert abs(float(drawn.mean()) - truth) < 3 * float(drawn.std()) / math.sqrt(300)
    rows = torch.tensor([0, 2, 3, 5, 6, 8])
    made = score_square(theta, rows=rows)
    for k in range(len(rows)):
        kept = torch.cat([rows[:k], rows[k + 1 :]])
        assert float(made.without[k]) == pytest.approx(score_square(theta, rows=kept).value)


def test_routes_that_are_not_there_say_why():
    made = judge(relaxed(8, 10, log_volume=0, checkpoints=1)).irreversibility
    assert made.free_energy.value is not None
    assert made.score.status is Status.NOT_DEFINED
    assert "log_volume" in made.score.note
    coarse = judge(relaxed(8, 10, checkpoints=2)).irreversibility.score
    assert coarse.status is Status.UNCALIBRATED
    _, ensemble = gaussian_start(6)
    assert judge(ensemble.learn(bowl(), SGD(), [0.1] * 3)).irreversibility is None
    point = Ensemble(torch.ones(6, 3).double(), start=Start.DELTA)
    record = point.learn(bowl(), Langevin(TAU, seed=1), [0.1] * 3)
    assert irreversibility(record, level=0.95) is None


@pytest.mark.slow  # an ensemble of networks
def test_routes_of_a_network_agree_within_their_bounds():
    x = torch.randn(24, 3, generator=torch.Generator().manual_seed(1))
    made = capacity.epistemic_speed_limit(
        nn.Linear(3, 1), (x, x[:, :1]), loss="mse", replicas=200, checkpoints=10, log_volume=1,
        training=capacity.Training(
            optimizer="sgld", temperature=0.05, lr=0.02, epochs=60, batch_size=24
        ),
    )  # fmt: skip
    found = made.tasks[0].irreversibility
    assert found.path_ratio.value == pytest.approx(found.free_energy.value, rel=1e-3)
    assert found.score.value < found.free_energy.value + 3 * found.free_energy.stderr
    assert found.score.value == pytest.approx(found.free_energy.value, rel=0.2)
    assert made.to_dict()["tasks"][0]["irreversibility"]["score"]["status"] == "ok"
    assert made.total.irreversibility is None  # several potentials
