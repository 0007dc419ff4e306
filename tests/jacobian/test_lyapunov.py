"""Lyapunov exponents against quadratics, whose exponents are known."""

from __future__ import annotations

import json
import math

import pytest
import torch

import capacity
from capacity.jacobian.lyapunov import lyapunov
from capacity.jacobian.trajectory import Trajectory
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.sgd import SGD
from capacity.recipe.config import Training
from capacity.records.estimate import Status
from dense import trained
from quadratics import linear, quadratic

CURVATURES = torch.tensor([0.1, 0.7, 2.0, 3.5, 24.0])


def descent(training):
    made = quadratic("A", CURVATURES, seed=1)
    return trained(FlatModel(linear(5)), made.task, training)


def measured(*trajectories, top=5, **options):
    generator = torch.Generator().manual_seed(0)
    return lyapunov(trajectories, top=top, generator=generator, **options)


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 5, 25])
def test_gradient_descent_on_a_quadratic(every, float64):
    found = measured(descent(Training(lr=0.1, epochs=400)), every=every)
    # lr l = 2.4 expands: |1 - lr l| = 1.4 comes first.
    expected = sorted((math.log(abs(1 - 0.1 * float(l))) for l in CURVATURES), reverse=True)
    assert expected[0] == pytest.approx(math.log(1.4))
    assert [e.value for e in found.exponents] == pytest.approx(expected, abs=1e-6)
    assert all(e.status is Status.OK and e.stderr < 1e-6 for e in found.exponents)
    assert found.sum.value == pytest.approx(sum(expected), abs=1e-9)
    assert found.drift == pytest.approx([0] * 5, abs=1e-6)
    assert found.steps + found.settling == 400
    assert found.time_per_step == pytest.approx(0.1)


@pytest.mark.slow
def test_heavy_ball_on_a_quadratic(float64):
    mu, lr = 0.8, 0.05
    training = Training(optimizer="momentum", momentum=mu, lr=lr, epochs=600)
    found = measured(descent(training), top=2)
    leading = []
    for l in CURVATURES.tolist():
        step = torch.tensor([[1 - lr * l, -lr * mu], [l, mu]])
        leading.append(float(torch.linalg.eigvals(step).abs().max().log()))
    expected = sorted(leading, reverse=True)[:2]
    assert [e.value for e in found.exponents] == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_phases_are_one_path(float64):
    made = quadratic("A", torch.tensor([2.0, 3.5]), seed=1)
    slow = Training(optimizer="momentum", lr=0.005, momentum=0.5, epochs=200)
    one, other = (
        trained(FlatModel(linear(2)), made.task, training)
        for training in (Training(lr=0.05, epochs=200), slow)
    )
    found = measured(one, other, top=1, settling=0.0, every=20)
    first, second = (measured(t, top=1).exponents[0].value for t in (one, other))
    assert found.exponents[0].value == pytest.approx((first + second) / 2, rel=0.15)
    assert found.drift[0] == pytest.approx(second - first, rel=0.15)
    assert first < 2 * second < 0


@pytest.mark.slow
def test_the_error_is_that_of_a_mean_over_random_steps(float64):
    """Curvatures drawn anew at each step: the exponents are means of independent logarithms."""
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(4000, 2, generator=generator) * torch.tensor([1.0, 4.0])
    path = Trajectory(lambda theta, x, y: 0.5 * (theta * theta * x).sum(), SGD())
    for row in x:
        path.record((torch.ones(2),), row, torch.zeros(1), 0.2)
    found = measured(path, top=2, every=4)
    logs = (1 - 0.2 * x).abs().log()
    used = logs[found.settling :]
    for exponent, seen, all_seen in zip(found.exponents, used.T, logs.T, strict=True):
        assert exponent.value == pytest.approx(float(seen.mean()), abs=1e-3)
        expected = float(all_seen.std()) / len(seen) ** 0.5
        # Ten blocks know a standard error to a quarter of itself.
        assert exponent.stderr == pytest.approx(expected, rel=0.75)
        low, high = exponent.interval
        assert high - low == pytest.approx(2 * 1.833 * exponent.stderr, rel=1e-3)


@pytest.mark.slow
def test_record_is_plain_json(float64):
    found = measured(descent(Training(lr=0.05, epochs=30)), top=2, every=10)
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert len(record["exponents"]) == 2
    # Three stretches are no basis for an error, and are not given one.
    assert {e["status"] for e in record["exponents"]} == {"not_converged"}
    single = measured(descent(Training(lr=0.05, epochs=3)), top=2)
    json.dumps(single.to_dict(), allow_nan=False)
    assert single.drift == ()


@pytest.mark.slow
def test_the_tracker_has_them(float64):
    made = quadratic("A", CURVATURES[:3], seed=1)
    model = linear(3)
    tracker = capacity.TransportTracker(model, made.task.loss_of, tangents=2)
    for _ in range(120):
        tracker.observe(made.task.train.x, made.task.train.y, lr=0.1)
        model.zero_grad()
        made.task.loss_of(model(made.task.train.x), made.task.train.y).backward()
        with torch.no_grad():
            model.weight -= 0.1 * model.weight.grad
    found = tracker.lyapunov(top=1, every=5)
    assert found.exponents[0].value == pytest.approx(math.log(0.99), abs=1e-4)


def test_bad_input(float64):
    path = descent(Training(lr=0.05, epochs=3))
    generator = torch.Generator()
    with pytest.raises(ValueError, match="top = 6 exceeds the 5"):
        lyapunov([path], top=6, generator=generator)
    with pytest.raises(ValueError, match="every = 0"):
        lyapunov([path], top=1, every=0, generator=generator)
    with pytest.raises(ValueError, match=r"settling = 1.0 must lie in \[0, 1\)"):
        lyapunov([path], top=1, settling=1.0, generator=generator)
    with pytest.raises(ValueError, match="hold no step"):
        lyapunov([], top=1, generator=generator)
    wild = Trajectory(path.loss, path.update)
    step = next(path.forwards())
    for _ in range(3):
        wild.record(step.state, step.x, step.y, 1e200)
    with pytest.raises(FloatingPointError, match="step 3 of phase 0"):
        lyapunov([wild], top=5, generator=generator)
