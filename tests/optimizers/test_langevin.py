"""Langevin dynamics with inertia and in its exact form, against their stationary laws."""

from __future__ import annotations

import math

import pytest
import torch

import capacity
from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.from_recipe import from_training
from capacity.optimizers.langevin import ExactLangevin, UnderdampedLangevin
from dense import digits_task, network, run_map, trained


@pytest.mark.slow
def test_the_exact_step_does_not_depend_on_how_time_is_cut(float64):
    rate, target = torch.tensor([0.0, 0.5, 3.0]), torch.tensor([0.3, -1.0, 2.0])
    theta = torch.zeros(4000, 3)
    for cuts in (1, 5):
        update = ExactLangevin(0.4, rate, target, seed=cuts)
        state = update.init(theta)
        for count in range(1, cuts + 1):
            state = update.step(state, theta, 1.5 / cuts, count)
        kept = torch.exp(-1.5 * rate)
        variance = torch.tensor([2 * 0.4 * 1.5, *(0.4 / rate[1:] * (1 - kept[1:] ** 2))])
        mean = target * (1 - kept)
        error = 3 / math.sqrt(len(theta))
        assert bool(((state[0].mean(0) - mean).abs() < error * variance.sqrt()).all())
        assert bool(((state[0].var(0) / variance - 1).abs() < error * math.sqrt(2)).all())


def test_without_noise_the_exact_step_is_the_exponential(float64):
    update = ExactLangevin(0.0, 2.0, 1.0)
    (theta,) = update.step((torch.zeros(2, 3),), torch.zeros(2, 3), 0.7, 1)
    torch.testing.assert_close(theta, torch.full((2, 3), 1 - math.exp(-1.4)))


def test_replicas_have_their_own_noise_wherever_they_stand():
    update = UnderdampedLangevin(0.5, seed=3)
    together = update.init(torch.zeros(4, 6))[1]
    later = UnderdampedLangevin(0.5, seed=3, first=2).init(torch.zeros(2, 6))[1]
    assert torch.equal(together[2:], later)
    assert not torch.equal(together[0], together[1])


@pytest.mark.slow
def test_a_ballistic_start_and_a_fluctuation_dissipation_end(float64):
    # Without force and friction theta moves at the speed of its momentum.
    update = UnderdampedLangevin(0.5, friction=1e-12, seed=1)
    state = update.init(torch.zeros(3, 5))
    moved = update.step(state, torch.zeros(3, 5), 0.2, 1)
    torch.testing.assert_close(moved[0], 0.2 * state[1], rtol=1e-4, atol=1e-5)
    # With both, momenta keep the temperature.
    update = UnderdampedLangevin(0.5, friction=2.0, seed=1)
    state = update.init(torch.zeros(800, 5))
    for count in range(1, 40):
        state = update.step(state, torch.zeros(800, 5), 0.1, count)
    assert float(state[1].var()) == pytest.approx(0.5, rel=3 * math.sqrt(2 / 4000))


def one_mode(step, friction, curvature):
    """The step of (theta, p) in 1/2 curvature theta^2, without its noise: a matrix."""
    update = UnderdampedLangevin(1e-12, friction)

    def add_hessian(v, into):
        return into.add_(v, alpha=curvature)

    rows = update.push(
        (torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]])), step, add_hessian
    )
    return torch.cat(rows, dim=1).T


@pytest.mark.parametrize("step", [0.1, 0.9, 1.7])
def test_the_stationary_variance_of_theta_is_exact_at_every_stable_step(step, float64):
    curvature, friction, tau = 1.3, 0.8, 0.4
    moved = one_mode(step, friction, curvature)
    assert float(torch.linalg.det(moved)) == pytest.approx(math.exp(-friction * step), rel=1e-12)
    # The noise enters p between the half drifts; the law solves S = M S M' + n n'.
    size = math.sqrt(tau * (1 - math.exp(-2 * friction * step)))
    noise = size * torch.tensor([0.5 * step, 1.0])
    flat = torch.eye(4) - torch.kron(moved, moved)
    law = torch.linalg.solve(flat, torch.outer(noise, noise).flatten()).view(2, 2)
    assert float(law[0, 0]) == pytest.approx(tau / curvature, rel=1e-10)
    # p between the half kicks; at the end of the second it has tau (1 - a h^2/4).
    kick = torch.tensor([[1.0, 0.0], [-0.5 * step * curvature, 1.0]])
    ended = kick @ law @ kick.T
    assert float(ended[1, 1]) == pytest.approx(tau * (1 - curvature * step**2 / 4), rel=1e-10)


def test_with_much_friction_it_is_langevin_dynamics_in_the_time_over_the_friction(float64):
    curvature, tau, time, spread = 1.3, 0.4, 0.7, 2.0

    def moments(friction):
        """Mean and variance of theta at t/friction, from a mean of 1 and thermal momenta."""
        step = 1e-3 / friction
        moved = one_mode(step, friction, curvature)
        size = math.sqrt(tau * (1 - math.exp(-2 * friction * step)))
        noise = size * torch.tensor([0.5 * step, 1.0])
        # The affine map of (second moments, 1), so that powers take all steps at once.
        second = torch.eye(5)
        second[:4, :4] = torch.kron(moved, moved)
        second[:4, 4] = torch.outer(noise, noise).flatten()
        steps = round(time * friction / step)
        start = torch.tensor([spread, 0.0, 0.0, tau, 1.0])
        ended = torch.linalg.matrix_power(second, steps) @ start
        return float(torch.linalg.matrix_power(moved, steps)[0, 0]), float(ended[0])

    known = capacity.closed_forms.ornstein_uhlenbeck(
        rate=curvature, target=0.0, temperature=tau, mean=1.0, variance=spread, time=time
    )
    truth = float(known.mean), float(known.variance)
    off = [
        max(abs(found / true - 1) for found, true in zip(moments(g), truth, strict=True))
        for g in (10.0, 100.0, 1000.0)
    ]
    # The correction is of the order of curvature/friction^2.
    assert off[0] > 80 * off[1] > 4000 * off[2]
    assert off[2] < 2e-6


@pytest.mark.slow
def test_the_jacobian_on_the_extended_state_is_exact(float64):
    plan = capacity.Training(
        optimizer="underdamped", temperature=1e-3, options={"friction": 0.7}, weight_decay=0.1,
        lr=0.3, epochs=2, batch_size=16,
    )  # fmt: skip
    path = trained(FlatModel(network(64, 2, 3)), digits_task((0, 1, 2), 32), plan)
    v, u = torch.randn(2, path.size), torch.randn(2, path.size)
    jacobian = TrainingJacobian([path])
    forward = jacobian.forward(v)
    moved = 1e-5 * v[0]
    seen = (run_map(path, path.like + moved) - run_map(path, path.like - moved)) / 2e-5
    assert float((forward[0] - seen).norm() / seen.norm()) < 1e-6
    assert float((forward[0] - v[0]).norm() / v[0].norm()) > 0.02
    torch.testing.assert_close(forward @ u.T, v @ jacobian.adjoint(u).T)


def test_a_recipe_asks_for_it_with_a_temperature_and_friction():
    plan = capacity.Training(optimizer="underdamped", temperature=0.01, options={"friction": 2.0})
    made = from_training(plan, seed=3, path=("order", 1))
    assert made == UnderdampedLangevin(0.01, 2.0, seed=3, path=("order", 1))
    assert plan.noisy
    for fields, said in (
        ({}, r"optimizer = 'underdamped' needs a temperature"),
        ({"temperature": 0.1, "options": {"friction": 0.0}}, r"options.friction = 0"),
        ({"temperature": 0.1, "options": {"gamma": 1.0}}, r"options = 'gamma' is not known"),
    ):
        with pytest.raises(ValueError, match=said):
            capacity.Training(optimizer="underdamped", **fields)


def test_friction_must_be_there():
    with pytest.raises(ValueError, match="friction = 0"):
        UnderdampedLangevin(0.5, friction=0)


def test_without_friction_the_symplectic_form_and_the_energy_are_kept(float64):
    # V = sum log cosh: no quadratic, so that the step's Jacobian differs from place to place.
    update = UnderdampedLangevin(1e-300, friction=1e-300)

    def step(state, lr):
        theta, p = state.chunk(2)
        return torch.cat(update.step((theta, p), theta.tanh(), lr, 1))

    eye, nothing = torch.eye(3), torch.zeros(3, 3)
    form = torch.cat([torch.cat([nothing, eye], 1), torch.cat([-eye, nothing], 1)])
    start = torch.tensor([0.7, -1.2, 0.3, 0.4, 0.1, -0.8])
    moved = torch.func.jacrev(lambda state: step(step(state, 0.3), 0.3))(start)
    torch.testing.assert_close(moved.T @ form @ moved, form)
    assert float((moved - torch.eye(6)).norm()) > 0.1

    def drift(lr, steps):
        state, energies = start, []
        for _ in range(steps):
            theta, p = state.chunk(2)
            # The momentum's last half kick: the energy is of one moment.
            half = p - 0.5 * lr * theta.tanh()
            energies.append(float(theta.cosh().log().sum() + 0.5 * half.square().sum()))
            state = step(state, lr)
        return max(energies) - min(energies)

    coarse, fine = drift(0.2, 80), drift(0.1, 160)
    assert coarse < 0.05  # it does not grow with the time, 16
    assert 3 < coarse / fine < 5.5  # of the second order in the step
