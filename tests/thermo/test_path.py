"""Path costs against closed forms of gradient descent and flow (theory.md#closed-forms)."""

from __future__ import annotations

import math

import pytest
import torch

from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from capacity.records.estimate import Status
from capacity.thermo.path import PathObserver
from capacity.training.data_order import DataOrder
from capacity.training.steps import Step
from capacity.training.train import train
from quadratics import linear, quadratic


def descend(curvatures, *, lr, steps, optimizer="sgd"):
    made = quadratic("A", torch.tensor(curvatures), seed=3)
    training = Training(optimizer=optimizer, lr=lr, epochs=steps, batch_size=1000)
    flat = FlatModel(linear(len(curvatures)))
    theta = flat.initial()[None]
    batches = DataOrder(
        samples=len(made.task.train), batch_size=1000, epochs=steps, replicas=1, seed=0
    )
    observer = PathObserver()
    phase = train(flat, theta, made.task, training, batches, observers=[observer])
    losses = [evaluate(flat, t, made.task, made.task.train).loss for t in (theta, phase.theta)]
    cost = observer.cost(*losses, plain=optimizer == "sgd", full=True)
    return made, theta[0], cost


@pytest.mark.slow
def test_action_of_gradient_descent(float64):
    curvatures = [0.2, 1.0, 3.0]
    lr, steps = 0.1, 25
    made, theta, cost = descend(curvatures, lr=lr, steps=steps)
    values, vectors = torch.linalg.eigh(made.hessian)
    delta = vectors.T @ (theta - made.minimum)
    q = 1 - lr * values
    # Per mode: sum (lr lambda delta q^k)^2/lr = lambda delta^2 (1 - q^2K)/(2 - lr lambda).
    action = (values * delta**2 * (1 - q ** (2 * steps)) / (2 - lr * values)).sum()
    assert cost.action.value == pytest.approx(float(action), rel=1e-10)
    assert cost.learning_time == pytest.approx(lr * steps)
    drop = (0.5 * values * delta**2 * (1 - q ** (2 * steps))).sum()
    assert cost.loss_drop.value == pytest.approx(float(drop), rel=1e-10)


@pytest.mark.slow
def test_inefficiency_of_one_mode_is_that_of_gradient_flow(float64):
    rate, time, found = 0.8, 3.0, []
    x = rate * time
    flow = (x / 2) / math.tanh(x / 2)
    for steps in (150, 300):
        lr = time / steps
        _, _, cost = descend([rate], lr=lr, steps=steps)
        q = (1 - lr * rate) ** steps
        drop = (x / 2) * (1 + q) / (1 - q)
        assert cost.loss_drop_ratio.value == pytest.approx(drop, rel=1e-9)
        assert cost.loss_drop_ratio.status is Status.OK
        # Per step the action is the drop of the flow to first order in lr * rate.
        path = drop / (1 - lr * rate / 2)
        assert cost.inefficiency_path.value == pytest.approx(path, rel=1e-9)
        assert cost.length_ratio.value == pytest.approx(1.0, rel=1e-9)
        found.append((cost.loss_drop_ratio.value, cost.inefficiency_path.value))
    for coarse, fine in zip(*found, strict=True):
        assert 2 * fine - coarse == pytest.approx(flow, rel=1e-4), "the limit of small steps"


def test_momentum_has_a_path_but_no_loss_drop_inefficiency(float64):
    _, _, cost = descend([0.2, 2.0], lr=0.05, steps=40, optimizer="momentum")
    assert cost.loss_drop_ratio.status is Status.NOT_DEFINED
    assert cost.loss_drop_ratio.value is None
    assert cost.inefficiency_path.value >= 1


def test_path_invariant_is_asserted_and_can_fail():
    observer = PathObserver()
    start, end = torch.zeros(1, 4), torch.ones(1, 4)
    zero = torch.zeros(1)
    observer.observe(Step(1, 0.1, (start,), (end,), start, zero))
    assert observer.cost(zero, zero, plain=True, full=True).smallest_ratio == pytest.approx(1.0)
    # A path whose accounting lost a step: the displacement is then more than the action allows.
    observer.observe(Step(2, 1e-9, (end,), (end,), start, zero))
    observer._meter.action *= 0.5
    with pytest.raises(AssertionError, match="path invariant broken"):
        observer.cost(zero, zero, plain=True, full=True)


@pytest.mark.slow
def test_langevin_noise_is_not_called_transport(float64):
    """Halving the step doubles sum |d theta|^2/dt: it measures the step, not the training."""
    made = quadratic("A", torch.tensor([0.2, 2.0]), seed=3)
    flat, sums = FlatModel(linear(2)), []
    for steps in (40, 80):
        training = Training(
            optimizer="sgld", temperature=0.5, lr=4 / steps, epochs=steps, batch_size=1000
        )
        batches = DataOrder(samples=24, batch_size=1000, epochs=steps, replicas=50, seed=0)
        observer = PathObserver()
        start = flat.initial().expand(50, -1)
        train(flat, start, made.task, training, batches, observers=[observer])
        sums.append(float(observer._meter.action.mean()))
    assert sums[1] / sums[0] > 1.6
    cost = observer.cost(torch.ones(50), torch.zeros(50), plain=False, full=True, noisy=True)
    for name in ("action", "loss_drop_ratio", "inefficiency_path", "length_ratio"):
        found = getattr(cost, name)
        assert found.status is Status.NOT_DEFINED
        assert "Langevin" in found.note
    assert cost.loss_drop.value == pytest.approx(1.0)
    assert cost.displacement_sq.value > 0
    assert cost.smallest_ratio >= 1


def test_no_step_is_an_error():
    with pytest.raises(ValueError, match="steps: none was observed"):
        PathObserver().cost(torch.zeros(1), torch.zeros(1), plain=True, full=True)


def stepped(positions, rates, drop=0.0):
    """Walk a path of one network, and close its books."""
    observer, none = PathObserver(), torch.zeros(1)
    for k, lr in enumerate(rates):
        before, after = positions[k][None], positions[k + 1][None]
        observer.observe(Step(k + 1, lr, (before,), (after,), none, none))
    return observer.cost(none + drop, none, plain=True, full=True)


def test_the_loss_drop_ratio_is_out_of_regime_where_it_is_no_inefficiency():
    """Five steps of 1 at dt 1: T action/|d|^2 is 25/25, whatever the loss did."""
    positions = list(torch.arange(6.0)[:, None])
    for drop, status in ((5.0, Status.OK), (4.97, Status.OK), (2.0, Status.OUT_OF_REGIME)):
        cost = stepped(positions, [1.0] * 5, drop)
        assert cost.inefficiency_path.value == 1
        assert cost.loss_drop_ratio.value == pytest.approx(drop / 5)
        assert cost.loss_drop_ratio.status is status
    # An exploded training: the path is dear, not cheaper than nothing.
    cost = stepped([torch.tensor([v]) for v in (1.0, -3.0, 9.0, -27.0)], [4.0] * 3, -364.0)
    assert cost.inefficiency_path.value == pytest.approx(3 * (16 + 144 + 1296) / 784)
    assert cost.loss_drop_ratio.value < 0
    assert not cost.loss_drop_ratio.resolved
    assert "the loss drop is not what the path cost" in cost.loss_drop_ratio.note


def test_no_movement_has_no_inefficiency():
    cost = stepped([torch.ones(3)] * 4, [0.1] * 3)
    for found in (cost.inefficiency_path, cost.loss_drop_ratio, cost.length_ratio):
        assert (found.value, found.status) == (None, Status.NOT_DEFINED)
        assert "below the rounding" in found.note
    assert cost.smallest_ratio is None
