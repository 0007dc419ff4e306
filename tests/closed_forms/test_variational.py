"""Steps, actions and stationary laws against the iterated maps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import minimize, minimize_scalar

from capacity.closed_forms import (
    descent_action,
    explicit_step_ratio,
    gaussian_distance,
    implicit_step_ratio,
    jko_step,
    kernel_flow,
    kl_step,
    sde_stationary_variance,
    sgd_stationary_variance,
)


@pytest.mark.parametrize(("a", "lr"), [(0.7, 0.3), (2.0, 0.5), (1.0, 2.5)])
def test_one_step(a, lr):
    start = 1.3

    def loss(theta):
        return 0.5 * a * theta**2

    def ratio(end):
        return (loss(start) - loss(end)) / ((end - start) ** 2 / lr)

    assert explicit_step_ratio(curvature=a, lr=lr) == pytest.approx(ratio(start - lr * a * start))
    movement = minimize_scalar(
        lambda theta: loss(theta) + (theta - start) ** 2 / (2 * lr), options={"xtol": 1e-12}
    )
    assert implicit_step_ratio(curvature=a, lr=lr) == pytest.approx(ratio(movement.x), abs=1e-6)


BELIEF = {
    "curvature": 1.7, "target": 0.4, "temperature": 0.3, "mean": -0.8, "deviation": 0.5,
}  # fmt: skip


def free_energy(mean, deviation, curvature=1.7, target=0.4, temperature=0.3):
    energy = 0.5 * curvature * ((mean - target) ** 2 + deviation**2)
    return energy - temperature * np.log(deviation)


def transported(mean, deviation):
    return 0.5 * ((mean + 0.8) ** 2 + (deviation - 0.5) ** 2)


def divergence(mean, deviation):
    squares = (deviation**2 + (mean + 0.8) ** 2) / 0.25
    return 0.5 * squares - 0.5 - np.log(deviation / 0.5)


@pytest.mark.parametrize(("step", "away"), [(jko_step, transported), (kl_step, divergence)])
@pytest.mark.parametrize("lr", [0.05, 2.0])
def test_implicit_steps_of_a_belief_minimise_what_they_say(step, away, lr):
    found = minimize(
        lambda z: free_energy(z[0], np.exp(z[1])) + away(z[0], np.exp(z[1])) / lr,
        [-0.8, np.log(0.5)],
        tol=1e-13,
    ).x
    made = step(**BELIEF, lr=lr)
    assert made.mean == pytest.approx(found[0], abs=1e-5)
    assert made.deviation == pytest.approx(np.exp(found[1]), abs=1e-5)


@pytest.mark.parametrize("lr", [1e-3, 0.3, 50.0])
def test_implicit_steps_of_a_belief_are_stationary_to_rounding(lr):
    # dF and d(distance)/lr cancel where the step ends, in each coordinate.
    a, m, tau, mu, s = (float(BELIEF[k]) for k in BELIEF)
    for step, away in (
        (jko_step, lambda mean, deviation: (mean - mu, deviation - s)),
        (kl_step, lambda mean, deviation: ((mean - mu) / s**2, deviation / s**2 - 1 / deviation)),
    ):
        made = step(**BELIEF, lr=lr)
        slopes = a * (made.mean - m), a * made.deviation - tau / made.deviation
        for slope, held in zip(slopes, away(made.mean, made.deviation), strict=True):
            assert lr * float(slope) == pytest.approx(-float(held), rel=1e-9)


def test_many_small_implicit_steps_are_the_flows():
    # Transport: Ornstein-Uhlenbeck; information: L = L_0 e^{-tau t} + (a/tau)(1 - e^{-tau t}).
    time, count = 1.5, 20000
    known = {k: BELIEF[k] for k in ("curvature", "target", "temperature")}
    ends = []
    for step in (jko_step, kl_step):
        mean, deviation = BELIEF["mean"], BELIEF["deviation"]
        for _ in range(count):
            made = step(**known, mean=mean, deviation=deviation, lr=time / count)
            mean, deviation = made.mean, made.deviation
        ends.append((float(mean), float(deviation)))
    a, m, tau = known.values()
    decay = np.exp(-2 * a * time)
    flow = (m + np.exp(-a * time) * (-0.8 - m), np.sqrt(tau / a + decay * (0.25 - tau / a)))
    assert ends[0] == pytest.approx(flow, abs=1e-3)
    kept = np.exp(-tau * time)
    precision = 4 * kept + a / tau * (1 - kept)
    flow = (m + kept * 4 / precision * (-0.8 - m), precision**-0.5)
    assert ends[1] == pytest.approx(flow, abs=1e-3)


def test_an_implicit_step_lowers_the_free_energy_more_than_its_way_costs():
    for lr in (0.01, 1.0, 100.0):
        made = jko_step(**BELIEF, lr=lr)
        drop = free_energy(-0.8, 0.5) - free_energy(made.mean, made.deviation)
        assert drop >= transported(made.mean, made.deviation) / lr
    assert gaussian_distance(
        mean_start=-0.8, deviation_start=0.5, mean_end=made.mean, deviation_end=made.deviation
    ) == pytest.approx(
        gaussian_distance(
            mean_start=-0.8, deviation_start=0.5, mean_end=0.4, deviation_end=(0.3 / 1.7) ** 0.5
        ),
        rel=0.05,
    ), "a long step arrives at the minimum"


def test_action_and_drop_of_iterated_descent():
    lam, lr, steps = np.array([0.0, 0.3, 1.0, 2.0, 3.5]), 0.5, 13
    delta = np.array([0.0, 1.0, -2.0, 0.7, 0.4])
    root = np.where(lam > 0, np.sqrt(lam), 1.0)
    theta, action = delta / root, np.zeros(5)
    start = 0.5 * lam * theta**2
    for _ in range(steps):
        step = -lr * lam * theta
        theta, action = theta + step, action + step**2 / lr
    ours = descent_action(curvature=lam, residue=delta, lr=lr, steps=steps)
    np.testing.assert_allclose(ours.action, action, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(ours.loss_drop, start - 0.5 * lam * theta**2, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(ours.action * (1 - lr * lam / 2), ours.loss_drop, atol=1e-14)


def test_small_steps_are_gradient_flow():
    lam, delta, time = np.array([0.2, 1.5]), np.array([1.0, -0.6]), 4.0
    flow = kernel_flow(eigenvalues=lam, residues=delta, time=time)
    errors = []
    for steps in (10_000, 20_000):
        ours = descent_action(curvature=lam, residue=delta, lr=time / steps, steps=steps)
        errors.append(ours.action.sum() - float(flow.loss_drop))
    assert abs(2 * errors[1] - errors[0]) < 1e-8


def test_no_step_costs_nothing():
    ours = descent_action(curvature=[0.5, 2.0], residue=1.0, lr=0.5, steps=0)
    assert (ours.action == 0).all()
    assert (ours.loss_drop == 0).all()


@pytest.mark.parametrize("lr", [0.05, 0.6, 1.4])
def test_stationary_variance_of_sgd(lr):
    h, noise = 1.2, 0.8
    variance = 0.0
    for _ in range(2000):
        variance = (1 - lr * h) ** 2 * variance + lr**2 * noise
    ours = sgd_stationary_variance(curvature=h, lr=lr, noise=noise)
    assert ours == pytest.approx(variance, rel=1e-10)
    run = solve_ivp(lambda _, s: -2 * h * s + lr * noise, (0, 20), [0.0], rtol=1e-9, atol=1e-12)
    sde = sde_stationary_variance(curvature=h, lr=lr, noise=noise)
    assert sde == pytest.approx(run.y[0, -1], rel=1e-6)
    assert sde / ours == pytest.approx(1 - lr * h / 2)


def test_sampled_sgd_tells_the_map_from_the_sde():
    h, noise, lr, chains = 1.2, 0.8, 0.6, 100_000
    rng = np.random.default_rng(2)
    theta = np.zeros(chains)
    for _ in range(40):
        theta = theta - lr * (h * theta + np.sqrt(noise) * rng.standard_normal(chains))
    error = theta.var() * np.sqrt(2 / chains)
    assert abs(theta.var() - sgd_stationary_variance(curvature=h, lr=lr, noise=noise)) < 3 * error
    assert theta.var() - sde_stationary_variance(curvature=h, lr=lr, noise=noise) > 30 * error
