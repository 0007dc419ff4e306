"""log|det J_t| against the sum of exact per-step log-determinants."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from capacity.jacobian.framed_log_volume import framed_log_volume
from capacity.jacobian.log_volume import LogVolume
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.from_recipe import from_training
from capacity.optimizers.sgd import SGD
from capacity.products.hessian_products import HessianProducts
from capacity.recipe.config import Training
from capacity.records.estimate import Status
from dense import digits_task, exact_log_volume, network, trained
from quadratics import linear, quadratic


def measured(trajectory, *, probes=8, nodes=3, seed=0):
    made = LogVolume(
        trajectory.products,  # one graph, however often it is asked
        trajectory.update,
        probes=probes,
        nodes=nodes,
        generator=torch.Generator().manual_seed(seed),
    )
    for step in trajectory.forwards():
        made.observe(step)
    return made


@pytest.mark.slow
def test_within_its_own_error(float64):
    model = FlatModel(network(64, 3, 10))
    trajectory = trained(model, digits_task(), Training(lr=0.3, epochs=3, batch_size=48))
    exact = exact_log_volume(trajectory)
    made = [measured(trajectory, seed=seed).estimate() for seed in range(6)]
    scores = torch.tensor([(m.value - exact) / m.stderr for m in made])
    assert exact < -1
    assert scores.abs().max() < 4, (exact, made)
    # The standard error is neither invented nor padded.
    assert 0.3 < scores.square().mean().sqrt() < 2.5, scores


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say_inside_the_pole(float64):
    """lr * lambda_max = 1.5 at every step: each folds; `benchmarks/transport/` has the table."""
    trajectory = trained(
        FlatModel(network(64, 2, 10)), digits_task(), Training(lr=0.1, epochs=1, batch_size=100)
    )
    unit, steps, hessians, exact = torch.eye(trajectory.size), [], {}, 0.0
    for step in trajectory.forwards():
        h = trajectory.products(step.state[0], step.x, step.y, unit)
        values = torch.linalg.eigvalsh(h)
        lr = 1.5 / float(values[-1])
        exact += float((1 - lr * values).abs().log().sum())
        hessians[id(step.state[0])] = h
        steps.append(replace(step, lr=lr))
    made = []
    for seed in range(12):
        volume = LogVolume(
            lambda theta, x, y, rows: rows @ hessians[id(theta)],
            trajectory.update,
            probes=4,
            nodes=3,
            generator=torch.Generator().manual_seed(seed),
        )
        for step in steps:
            volume.observe(step)
        made.append(volume.estimate())
    assert {m.status for m in made} == {Status.OK}
    assert all("exceeds 1 in 2 of 2 steps" in m.note for m in made)
    # Of 12 intervals at 90 % fewer than 8 hold the truth once in 200 times.
    assert sum(m.interval[0] <= exact <= m.interval[1] for m in made) >= 8
    errors = torch.tensor([abs(m.value - exact) for m in made])
    # 2.4 for normal errors: neither is the width padded.
    ratio = half_widths(made).median() / errors.median()
    assert 1 < ratio < 5, ratio


def half_widths(made):
    return torch.tensor([(m.interval[1] - m.interval[0]) / 2 for m in made])


@pytest.mark.slow
def test_exact_where_the_quadrature_is(float64):
    made = quadratic("A", torch.tensor([0.5, 0.5, 0.5]), seed=1)
    trajectory = trained(FlatModel(linear(3)), made.task, Training(lr=0.1, epochs=12))
    found = measured(trajectory).estimate()
    assert found.value == pytest.approx(12 * 3 * torch.log1p(torch.tensor(-0.05)).item(), rel=1e-9)
    assert found.stderr < 1e-9


@pytest.mark.slow
def test_folds_are_said(float64):
    made = quadratic("A", torch.tensor([0.5, 1.0, 15.0]), seed=1)
    trajectory = trained(FlatModel(linear(3)), made.task, Training(lr=0.1, epochs=5))
    assert "exceeds 1 in 5 of 5 steps" in measured(trajectory).estimate().note


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{"weight_decay": 0.05}, {"optimizer": "sgld", "temperature": 1e-5, "weight_decay": 0.02}],
)
def test_weight_decay_and_given_noise(changes, float64):
    training = Training(lr=0.1, epochs=6, batch_size=48, **changes)
    update = from_training(training)
    trajectory = trained(FlatModel(network(64, 2, 10)), digits_task(), training, update=update)
    exact = framed_log_volume(trajectory).value
    without = exact_log_volume(trajectory)
    found = measured(trajectory).estimate()
    assert abs(found.value - exact) < 4 * found.stderr
    assert abs(without - exact) > 5 * found.stderr, "decay is too weak to be seen"


@pytest.mark.slow
def test_the_network_of_the_acceptance_over_its_first_steps(float64):
    """64-16-10 on digits, batches of 64; all 625 steps: `benchmarks/transport/log_volume.py`."""
    model = FlatModel(network(64, 16, 10))
    trajectory = trained(model, digits_task(count=640), Training(lr=0.1, epochs=1, batch_size=64))
    assert model.size == 1210
    exact = framed_log_volume(trajectory).value  # the sum of exact determinants: test_framed
    found = measured(trajectory, probes=4).estimate()
    assert abs(found.value - exact) < max(2.5 * found.stderr, 0.01 * abs(exact))
    assert exact < -5


def test_steps_that_are_not_symmetric_are_passed_over(float64):
    model = FlatModel(network(64, 3, 10))
    training = Training(optimizer="momentum", lr=0.1, epochs=1, batch_size=100)
    found = measured(trained(model, digits_task(), training))
    assert found.estimate().status is Status.NOT_DEFINED
    assert "not symmetric" in found.estimate().note
    assert not len(found.steps)


def test_no_step(float64):
    empty = LogVolume(
        HessianProducts(lambda t, x, y: t.sum()),
        SGD(),
        probes=2,
        nodes=1,
        generator=torch.Generator(),
    )
    assert empty.estimate().status is Status.NOT_DEFINED
