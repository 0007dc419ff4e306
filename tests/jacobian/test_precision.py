"""Products in another precision than the training's, and what they say of their error."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.jacobian.trajectory import Trajectory
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.own_steps import BatchStep
from capacity.recipe.config import Training
from capacity.records.estimate import Status
from dense import digits_task, network, trained

TRAININGS = {
    "sgd": Training(lr=0.3, epochs=2, batch_size=48),
    "adam": Training(optimizer="adam", lr=0.01, epochs=2, batch_size=48),
    "clipped": Training(optimizer="momentum", lr=0.05, epochs=2, batch_size=48, clip_norm=0.3),
}


@pytest.fixture(params=TRAININGS)
def trajectory(request):
    return trained(FlatModel(network(64, 4, 10)), digits_task(), TRAININGS[request.param])


def off(found, truth):
    return float((found.double() - truth.double()).norm() / truth.double().norm())


@pytest.mark.slow
def test_the_error_is_what_it_is_said_to_be(trajectory):
    v = torch.randn(3, trajectory.size)
    exact = TrainingJacobian([trajectory], precision=torch.float64)
    assert exact.like.dtype == torch.float64
    errors = {}
    for precision in (torch.bfloat16, torch.float32):
        jacobian = TrainingJacobian([trajectory], precision=precision)
        assert jacobian.forward(v).dtype == torch.float32  # the sums are never in less
        said = jacobian.precision_error()
        found = [
            off(getattr(jacobian, direction)(v), getattr(exact, direction)(v))
            for direction in ("forward", "adjoint")
        ]
        assert said.value / 5 < max(found) < said.value * 5
        errors[precision] = said.value
        assert "|J v - v|" in said.note
        assert said.cost == 4 * 4 * len(trajectory)
    assert 10 * errors[torch.float32] < errors[torch.bfloat16] < 0.2
    assert errors[torch.float32] < 1e-4


@pytest.mark.slow
def test_float64_is_that_of_float64_all_along(trajectory):
    """The recorded path, taken as a path of float64 numbers, has these products."""
    jacobian = TrainingJacobian([trajectory], precision=torch.float64)
    v, u = (torch.randn(4, trajectory.size, dtype=torch.float64) for _ in range(2))
    forward, adjoint = jacobian.forward(v), jacobian.adjoint(u)
    # To rounding in float64, which float32 products miss by 1e-7.
    torch.testing.assert_close((forward * u).sum(-1), (v * adjoint).sum(-1), rtol=1e-11, atol=1e-11)
    rough = TrainingJacobian([trajectory])
    assert off(rough.forward(v.float()), forward) > 1e-9
    assert jacobian.precision_error().status is Status.NOT_DEFINED


@pytest.mark.slow
def test_a_training_in_float64_in_float32(float64):
    trajectory = trained(FlatModel(network(64, 4, 10)), digits_task(), TRAININGS["adam"])
    v = torch.randn(3, trajectory.size)
    rough = TrainingJacobian([trajectory], precision=torch.float32).forward(v)
    assert rough.dtype == torch.float32
    assert 1e-9 < off(rough, TrainingJacobian([trajectory]).forward(v)) < 1e-4


@pytest.mark.slow
def test_a_network_with_fixed_tensors():
    """Batch norm in evaluation mode holds buffers; they follow."""
    layers = [nn.Linear(64, 4), nn.BatchNorm1d(4).eval(), nn.Tanh(), nn.Linear(4, 10)]
    trajectory = trained(FlatModel(nn.Sequential(*layers)), digits_task(), TRAININGS["sgd"])
    for precision, most in ((torch.float64, 1e-4), (torch.bfloat16, 0.2)):
        v = torch.randn(2, trajectory.size)
        found = TrainingJacobian([trajectory], precision=precision).forward(v)
        assert off(found, TrainingJacobian([trajectory]).forward(v)) < most


def test_bad_input(trajectory):
    with pytest.raises(ValueError, match=r"torch.float16; accepted: .*bfloat16.*overflows"):
        TrainingJacobian([trajectory], precision=torch.float16)
    with pytest.raises(ValueError, match="at least 2"):
        TrainingJacobian([trajectory]).precision_error(tangents=1)
    matrix = torch.ones(1, 3)  # of the loss's own, and of one precision

    def loss(theta, x, y):
        return (matrix @ theta - y).square().sum()

    stuck = Trajectory(loss, trajectory.update)
    state = trajectory.update.init(torch.ones(3))
    stuck.record(state, torch.ones(1), torch.ones(1), 0.1)
    with pytest.raises(ValueError, match="must follow theta's dtype"):
        TrainingJacobian([stuck], precision=torch.float64)
    own = Trajectory(loss, BatchStep(lambda loss, state, x, y, lr, count: state))
    own.record((torch.ones(3),), torch.ones(1), torch.ones(1), 0.1)
    with pytest.raises(ValueError, match="BatchStep has none"):
        TrainingJacobian([own], precision=torch.bfloat16)
