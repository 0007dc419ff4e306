"""Strategies that hold a belief: their penalties against closed forms, and what they hold back."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

import capacity
from capacity.forecasting.mitigated import named_strategies
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Strategy, Training
from capacity.strategies.beliefs import VCL, FisherRao
from capacity.strategies.mitigation import Mitigation
from capacity.strategies.terms import HERE, of_replica
from capacity.tasks.tensors import as_task
from capacity.thermo.belief_cost import distance_sq, entropy

TAU = 0.3
PLAN = Training(belief="transport", temperature=TAU)


def penalty(kind, anchor, **options):
    made = kind(**options)
    state = made.prepare(None, anchor, (), None, HERE)
    held = made.contribution(None, (), None, PLAN, state, HERE).penalty
    return lambda theta, replica=0: held.value(theta, of_replica(held.private, replica))


def beliefs():
    widths, means = torch.rand(3, 4) + 0.3, torch.randn(3, 4)
    return torch.cat([widths, means], dim=1)


def test_vcl_with_the_entropy_is_the_divergence_from_the_last_belief(float64):
    anchor, one, other = beliefs()
    held = penalty(VCL, anchor[None], strength=0.7)

    def law(theta):
        return Normal(theta[4:], theta[:4])

    free = [float(held(q)) - 0.7 * TAU * float(entropy(q[None])) for q in (one, other)]
    truth = [0.7 * TAU * float(kl_divergence(law(q), law(anchor)).sum()) for q in (one, other)]
    assert free[0] - free[1] == pytest.approx(truth[0] - truth[1])
    # The belief itself is the least of the two together.
    slope = torch.func.grad(held)(anchor)
    torch.testing.assert_close(slope[:4], 0.7 * TAU / anchor[:4])
    torch.testing.assert_close(slope[4:], torch.zeros(4))


def test_fisher_rao_is_the_squared_geodesic_distance(float64):
    anchor, one, _ = beliefs()
    held = penalty(FisherRao, anchor[None], strength=2.0)
    for scale in (1.0, 1e-1, 1e-2, 1e-3, 1e-5):  # both forms of the square, and between
        near = anchor + scale * (one - anchor)
        truth = TAU * float(distance_sq("information", anchor[None], near[None]))
        assert float(held(near)) == pytest.approx(truth, rel=1e-6 if scale > 1e-4 else 1e-3)
    assert float(held(anchor)) == 0
    curvature = torch.func.hessian(held)(anchor)
    metric = torch.cat([2 / anchor[:4] ** 2, 1 / anchor[:4] ** 2])
    torch.testing.assert_close(curvature, 2.0 * TAU * torch.diag(metric))


def test_rescaling_a_parameter_changes_weight_decay_and_no_distance(float64):
    anchor, one, _ = beliefs()
    held, wide = (penalty(FisherRao, (c * anchor)[None]) for c in (1.0, 10.0))
    assert float(held(one)) == pytest.approx(float(wide(10 * one)), rel=1e-12)
    assert float(one.square().sum()) != pytest.approx(float((10 * one).square().sum()))


@pytest.mark.parametrize("name", ["vcl", "fisher_rao"])
def test_a_point_is_refused_and_left_out_of_all(name):
    with pytest.raises(
        ValueError, match=rf"strategy '{name}' holds a belief .* set training.belief"
    ):
        Mitigation(Strategy(name=name), FlatModel(nn.Linear(3, 2)))
    assert name not in named_strategies("all")


@pytest.mark.slow  # trainings of two tasks, twice each
@pytest.mark.parametrize("name", ["vcl", "fisher_rao"])
def test_they_hold_back_what_is_forgotten_as_forecast(name, quick_run, tmp_path):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(150, 6, generator=generator)
    old, new = ((x, (x[:, k] + 0.3 * x[:, 2] > 0).long()) for k in (0, 1))

    def forgotten(strategy):
        torch.manual_seed(0)
        made = capacity.run(
            [as_task(old, name="old"), as_task(new, name="new")],
            model=nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)),
            training=Training(
                belief="transport", temperature=3e-3, lr=0.2, epochs=20, batch_size=32,
                strategy=strategy,
            ),
            measure={"level": "forecast", "forecast_budget": 0.3},
            replicas=2,
            out=tmp_path / strategy["name"],
            quiet=True,
        )  # fmt: skip
        (pair,) = made.result["transitions"][0]["old"]
        costs = [phase["thermo"]["belief"]["verdict"] for phase in made.result["phases"]]
        return *(pair[k]["loss_increase"]["value"] for k in ("measured", "forecast")), costs

    measured, forecast, costs = forgotten({"name": name, "strength": 5.0})
    free, foreseen, plain = forgotten({"name": "naive"})
    assert measured < 0.7 * free
    assert forecast < 0.8 * foreseen
    assert plain[1] != "not defined"
    assert costs == [plain[0], "not defined"]
