"""log|det d theta_T / d theta_0| with momentum and adaptive steps against the truth."""

from __future__ import annotations

import pytest
import torch

from capacity.jacobian.framed_log_volume import framed_log_volume
from capacity.jacobian.trajectory import Trajectory
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.momentum import Momentum
from capacity.recipe.config import Training
from capacity.records.estimate import Status
from dense import dense_jacobian, digits_task, exact_log_volume, network, trained
from quadratics import linear, quadratic

TRAININGS = {
    "momentum": Training(optimizer="momentum", lr=0.1, schedule="cosine", epochs=12, batch_size=50),
    "nesterov": Training(
        optimizer="momentum", nesterov=True, weight_decay=0.01, lr=0.05, epochs=8, batch_size=50
    ),
    "adam": Training(optimizer="adam", lr=0.01, epochs=12, batch_size=50),
    "adamw": Training(optimizer="adamw", lr=0.01, weight_decay=0.1, epochs=8, batch_size=50),
    "rmsprop": Training(optimizer="rmsprop", lr=0.003, epochs=8, batch_size=50),
    "clipped": Training(lr=0.1, clip_norm=0.3, epochs=8, batch_size=50),
}


def path(name, *, hidden=1, **options):
    return trained(FlatModel(network(16, hidden, 4)), small_task(), TRAININGS[name], **options)


def small_task():
    from capacity.tasks.task import Split, Task

    whole = digits_task((0, 1, 2, 3))
    pixels = whole.train.x.reshape(-1, 4, 2, 4, 2).mean((2, 4)).flatten(1)
    split = Split(pixels, whole.train.y)
    return Task(name="small", train=split, test=split)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_short_trainings_match_the_dense_determinant(name, float64):
    trajectory = path(name)
    truth = float(torch.linalg.slogdet(dense_jacobian(trajectory))[1])
    for every in (5, 20):
        found = framed_log_volume(trajectory, every=every)
        assert found.status is Status.OK
        assert found.value == pytest.approx(truth, abs=1e-8)
        assert found.stderr < 1e-8
    assert truth < -0.5
    assert found.cost == trajectory.size * len(trajectory)


def heavy_ball_log_volume(curvatures, *, lr, mu, steps):
    """Per mode the first entry of [[1 - lr l, -lr mu], [l, mu]]^steps, scaled as it shrinks."""
    total = 0.0
    for l in curvatures.tolist():
        step = torch.tensor([[1 - lr * l, -lr * mu], [l, mu]])
        vector = torch.tensor([1.0, 0.0])
        for _ in range(steps):
            vector = step @ vector
            norm = float(vector.norm())
            vector, total = vector / norm, total + torch.tensor(norm).log().item()
        total += float(vector[0].abs().log())
    return total


@pytest.mark.slow
def test_heavy_ball_on_a_quadratic_where_the_dense_determinant_is_lost(float64):
    curvatures = torch.logspace(-4, 1.2, 12)
    steps, lr, mu = 150, 0.05, 0.5
    made = quadratic("A", curvatures, seed=1)
    training = Training(optimizer="momentum", momentum=mu, lr=lr, epochs=steps)
    trajectory = trained(FlatModel(linear(12)), made.task, training)
    expected = heavy_ball_log_volume(curvatures, lr=lr, mu=mu, steps=steps)
    found = framed_log_volume(trajectory)
    assert found.value == pytest.approx(expected, rel=1e-8)
    assert abs(found.value - expected) < 1e3 * found.stderr + 1e-8
    dense = torch.linalg.slogdet(dense_jacobian(trajectory))[1]
    assert abs(float(dense) - expected) > 1, "easy enough for the dense determinant"


@pytest.mark.slow
def test_plain_steps_agree_with_the_sum_of_their_own_determinants(float64):
    training = Training(lr=0.3, epochs=6, batch_size=50)
    trajectory = trained(FlatModel(network(16, 2, 4)), small_task(), training)
    exact = exact_log_volume(trajectory)
    assert framed_log_volume(trajectory).value == pytest.approx(exact, abs=1e-9)


@pytest.mark.slow
def test_single_precision_states_its_error(float64):
    exact = path("momentum")
    rough = Trajectory(exact.loss, exact.update)
    for step in exact.forwards():
        state = tuple(part.float() for part in step.state)
        rough.record(state, step.x.float(), step.y, step.lr)
    found = framed_log_volume(rough)
    error = abs(found.value - framed_log_volume(exact).value)
    assert found.stderr > 1e-6
    assert error < 5 * found.stderr


@pytest.mark.slow
def test_many_parameters_are_refused_with_the_reason(float64):
    found = framed_log_volume(path("momentum"), most=20)
    assert found.status is Status.NOT_DEFINED
    assert "up to P = 20 (here P = 25)" in found.note
    assert "a constant of the optimiser" in found.note
    assert "constant" not in framed_log_volume(path("clipped"), most=20).note


@pytest.mark.slow
def test_chunks_do_not_change_the_value(float64):
    trajectory = path("adam")
    whole, parts = framed_log_volume(trajectory), framed_log_volume(trajectory, chunk=7)
    assert parts.value == pytest.approx(whole.value, abs=1e-9)


@pytest.mark.slow
def test_lost_tangents_and_lost_digits_are_said(float64):
    lost = path("momentum")
    lost._states[3] = tuple(torch.full_like(part, torch.nan) for part in lost._states[3])
    assert framed_log_volume(lost).status is Status.DIVERGED

    def flat(theta, x, y):
        return 0.5 * (theta * theta * x).sum()

    trajectory = Trajectory(flat, Momentum(mu=0.5))
    # One step with lr l = 1 leaves theta nothing of itself: the frame lies in the moments.
    state = trajectory.update.init(torch.ones(2))
    trajectory.record(state, torch.tensor([1.0, 10.0]), torch.zeros(1), 0.1)
    assert framed_log_volume(trajectory).status is Status.NOT_RESOLVED
