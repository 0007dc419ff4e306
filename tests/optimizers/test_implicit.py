"""Implicit steps of a belief: their closed forms, what is left of their equations, and refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import capacity
from capacity.forecasting.compression import compress
from capacity.networks.door import fit
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.from_recipe import from_training
from capacity.optimizers.implicit import IMPLICIT
from capacity.tasks.tensors import as_task
from capacity.thermo.path import PathObserver
from capacity.training.data_order import DataOrder
from capacity.training.train import train
from dense import network

CLOSED = {
    "transport": capacity.closed_forms.jko_step,
    "information": capacity.closed_forms.kl_step,
}
A = torch.tensor([0.5, 1.3, 4.0]).double()
M = torch.tensor([0.4, -0.2, 1.0]).double()
START = torch.tensor([0.7, 0.3, 0.5, -1.1, 0.5, 2.0]).double()
X = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))
TASK = as_task((X, (X[:, 0] > 0).long()), share=0, name="one")


def slope(theta):
    """Gradient of E[L] of a quadratic in (widths, means)."""
    width, mean = theta.chunk(2, dim=-1)
    return torch.cat([A * width, A * (mean - M)], dim=-1)


@pytest.mark.parametrize("geometry", IMPLICIT)
@pytest.mark.parametrize("lr", [0.1, 2.0])  # explicit steps diverge from 0.5 on
def test_the_end_of_a_step_on_a_quadratic_is_the_closed_form(geometry, lr):
    # The decay's prior is solved for without a gradient, and counts as curvature around 0.
    prior = 0.3
    update = IMPLICIT[geometry](0.2, weight_decay=prior, gradients=16)
    fed, residual = update.solved(slope, START, slope(START), lr)
    (after,) = update.step((START,), fed, lr, 1)
    width, mean = START.chunk(2)
    truth = CLOSED[geometry](
        curvature=A + prior, target=A * M / (A + prior), temperature=0.2, mean=mean,
        deviation=width, lr=lr,
    )  # fmt: skip
    np.testing.assert_allclose(after, [*truth.deviation, *truth.mean], rtol=1e-6)
    assert float(residual) < 1e-6


@pytest.mark.parametrize("geometry", IMPLICIT)
def test_the_residual_is_what_the_end_says_and_falls_with_the_gradients(geometry):
    left = []
    for gradients in (3, 5, 8):
        update = IMPLICIT[geometry](0.2, weight_decay=0.1, gradients=gradients)
        asked = []

        def counted(theta, asked=asked):
            asked.append(theta)
            return slope(theta)

        fed, residual = update.solved(counted, START, slope(START), 0.5)
        assert len(asked) == gradients
        (after,) = update.step((START,), fed, 0.5, 1)
        gap = slope(after) - fed
        width = START[:3]
        unit = torch.ones(6) if geometry == "transport" else torch.cat([width / 2**0.5, width])
        assert float(residual) == pytest.approx(float((gap * unit).norm() / (fed * unit).norm()))
        left.append(float(residual))
    assert left[0] > 3 * left[1] > 9 * left[2]


def test_rows_are_solved_each_by_itself_and_rest_where_nothing_pulls():
    update = IMPLICIT["transport"](0.2, gradients=6)
    still = torch.cat([(0.2 / A).sqrt(), M])
    # At the least of F the gradient is the entropy's, which the step has: it stays there.
    rows = torch.stack([START, still])
    fed, residual = update.solved(slope, rows, slope(rows), 0.3)
    alone, _ = update.solved(slope, START, slope(START), 0.3)
    torch.testing.assert_close(fed[0], alone)
    torch.testing.assert_close(update.step((rows,), fed, 0.3, 1)[0][1], still)
    assert float(residual[1]) < 1e-12


def believed(lr=4.0, **options):
    torch.manual_seed(2)
    flat = FlatModel(capacity.Belief(network(5, 4, 2), width=0.2))
    (task,) = fit(flat, flat.initial(), [TASK], two_modes=True)
    plan = capacity.Training(
        belief={"geometry": "transport", **options}, temperature=1e-3, lr=lr, epochs=3,
        batch_size=20, weight_decay=0.5,
    )  # fmt: skip
    path = PathObserver()
    phase = train(
        flat, flat.initial()[None], task, plan,
        DataOrder.planned(plan, 40, replicas=1, seed=0), observers=[path],
    )  # fmt: skip
    return phase, path


def test_a_network_takes_steps_that_no_explicit_ones_could():
    # lr times the decay alone is 2, where explicit steps turn back and forth.
    phase, path = believed(implicit=10)
    none = torch.zeros(1)
    cost = path.cost(none, none, plain=False, full=False)
    assert phase.diverged is None
    assert 0 < cost.implicit.residual.value <= cost.implicit.largest < 0.1
    assert float(phase.theta.abs().max()) < 0.5
    again = PathObserver()
    again.restore(path.state())
    assert again.cost(none, none, plain=False, full=False).implicit == cost.implicit
    explicit, path = believed()
    assert float(explicit.theta.abs().max()) > 0.5
    assert path.cost(none, none, plain=False, full=False).implicit is None


def test_a_step_without_a_solution_is_refused_by_the_field():
    with pytest.raises(
        ValueError, match=r"training.belief.implicit = 3 leaves a step of length 50"
    ):
        believed(lr=50.0, implicit=3)


def test_a_step_whose_end_is_not_finite_is_refused_without_more_gradients():
    update = IMPLICIT["transport"](0.2, gradients=4)
    with pytest.raises(ValueError, match=r"at its end is not finite; lower training\.lr, or leave"):
        update.solution(lambda theta: torch.full_like(theta, torch.inf), START, slope(START), 0.1)


def test_a_compressed_training_is_explicit_and_a_whole_one_is_itself():
    plan = capacity.Training(
        belief={"geometry": "information", "implicit": 4}, temperature=1e-3, epochs=10,
        batch_size=10,
    )  # fmt: skip
    whole = compress(plan, 40, steps=40, batch=10)
    assert whole.update == from_training(plan)
    short = compress(plan, 40, steps=20, batch=8)
    assert short.update.momentum > 0
    assert "implicit" not in short.update.name


@pytest.mark.parametrize(
    ("belief", "fields", "said"),
    [
        ({"implicit": 2}, {}, r"belief.implicit"),
        ({"implicit": 4}, {"clip_norm": 1.0}, r"clip_norm = 1 does not go with belief.implicit"),
        (
            {"implicit": 4, "width_rate": 0.1, "geometry": "information"}, {},
            r"belief.width_rate = 0.1 does not go with belief.implicit = 4",
        ),
    ],
)  # fmt: skip
def test_plans_that_have_no_implicit_steps_are_refused(belief, fields, said):
    with pytest.raises(ValueError, match=said):
        capacity.Training(belief={"geometry": "transport", **belief}, temperature=0.1, **fields)


@pytest.mark.parametrize(
    "strategy", ["ogd", "agem", {"name": "freeze", "parameters": ["network.0*"]}]
)
def test_strategies_that_turn_steps_are_refused_before_anything_is_trained(strategy, tmp_path):
    plan = capacity.Training(
        belief={"geometry": "transport", "implicit": 4}, temperature=0.1, strategy=strategy
    )
    data = (X, TASK.train.y)
    with pytest.raises(ValueError, match=r"training.belief.implicit = 4 looks for steps"):
        capacity.run([data, data], model=network(5, 4, 2), training=plan, out=tmp_path / "run")


@pytest.mark.slow  # a whole run with its report
def test_a_run_says_what_is_left_of_its_implicit_steps(quick_run, tmp_path):
    made = capacity.run(
        [(X, (X[:, k] > 0).long()) for k in range(2)],
        model=network(5, 4, 2),
        training=capacity.Training(
            belief={"geometry": "transport", "implicit": 6}, temperature=1e-3, lr=0.5, epochs=2,
            batch_size=20,
        ),
        measure={"level": "forecast"},
        replicas=1,
        out=tmp_path / "run",
        quiet=True,
    )  # fmt: skip
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    for phase in result["phases"]:
        left = phase["thermo"]["implicit"]
        assert 0 < left["residual"]["value"] <= left["largest"] < 0.5
        assert phase["thermo"]["belief"]["verdict"] in {"consistent", "inconclusive"}
    assert "Steps are implicit" in made.report().read_text()
    (old,) = made.forecasts[0]["old"]
    # Rehearsed by its own steps: what came is what was forecast.
    measured = result["transitions"][0]["old"][0]["measured"]["loss_increase"]["value"]
    assert old["loss_increase"]["value"] == pytest.approx(measured, abs=0.3)
