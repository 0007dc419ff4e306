"""The geodesic: its protocol run as Langevin dynamics ends where it should, at the least cost."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

from capacity.closed_forms import (
    gaussian_entropy,
    gaussian_w2_squared,
    geodesic,
    geodesic_cost,
    ornstein_uhlenbeck,
    reachable_radius,
)

CASES = {
    "narrower": {"mean_start": -1.0, "variance_start": 2.0, "mean_end": 2.0, "variance_end": 0.3},
    "wider": {"mean_start": 0.5, "variance_start": 0.2, "mean_end": 0.0, "variance_end": 4.0},
    "shifted": {"mean_start": 0.0, "variance_start": 1.0, "mean_end": 3.0, "variance_end": 1.0},
}
SETTINGS = {"duration": 2.5, "temperature": 0.7}


@pytest.fixture(params=CASES, ids=str)
def case(request):
    return CASES[request.param] | SETTINGS


def test_the_protocol_drives_the_law_along_the_geodesic_at_the_least_cost(case):
    tau, duration = case["temperature"], case["duration"]

    def change(t, y):
        mu, s, _ = y
        there = geodesic(**case, time=min(t, duration))
        k = float(there.stiffness)
        slope = -float(there.mean_rate) + k * (mu - float(there.mean))  # V' at mu
        return [-slope, 2 * tau - 2 * k * s, slope**2 + (tau / s - k) ** 2 * s]

    start = [case["mean_start"], case["variance_start"], 0.0]
    run = solve_ivp(change, (0, duration), start, rtol=1e-10, atol=1e-12)
    mean, variance, dissipation = run.y[:, -1]
    cost = geodesic_cost(**case)
    assert mean == pytest.approx(case["mean_end"], abs=1e-7)
    assert variance == pytest.approx(case["variance_end"], abs=1e-7)
    assert dissipation == pytest.approx(float(cost.dissipation), abs=1e-7)
    assert duration * dissipation == pytest.approx(float(cost.w2_squared), abs=1e-7)


def test_the_centre_is_where_the_potential_is_level(case):
    there = geodesic(**case, time=[0.0, 0.9, 2.5])
    slope = there.stiffness * (there.mean - there.centre)
    np.testing.assert_allclose(slope, -there.mean_rate, atol=1e-12)


def test_work_is_the_mean_change_of_the_potential(case):
    duration, tau = case["duration"], case["temperature"]
    step = 1e-4

    def power(t):
        """Return E[dV/dt], V = k/2 (x - mu)^2 - mu' (x - mu), by differences of V's numbers."""
        here = geodesic(**case, time=t)
        back, ahead = (geodesic(**case, time=t + h) for h in (-step, step))

        def mean_potential(at):
            gap = here.mean - at.mean
            return 0.5 * at.stiffness * (here.variance + gap**2) - at.mean_rate * gap

        return float((mean_potential(ahead) - mean_potential(back)) / (2 * step))

    # The differences need a margin at both ends; the ends' share is power times margin.
    work = quad(power, step, duration - step, epsabs=1e-9)[0]
    work += step * (power(step) + power(duration - step))
    cost = geodesic_cost(**case)
    assert work == pytest.approx(float(cost.work), abs=1e-5)
    free = []
    for t in (0.0, duration):
        at = geodesic(**case, time=t)
        energy = 0.5 * at.stiffness * at.variance
        free.append(float(energy - tau * gaussian_entropy(variance=at.variance)))
    assert free[1] - free[0] == pytest.approx(float(cost.free_energy_change), abs=1e-12)
    assert cost.work - cost.free_energy_change == pytest.approx(float(cost.dissipation), abs=1e-12)


@pytest.mark.slow
def test_sampled_particles_follow_the_geodesic():
    case = CASES["narrower"] | SETTINGS
    paths, legs = 50_000, 400
    rng = np.random.default_rng(3)
    theta = case["mean_start"] + np.sqrt(case["variance_start"]) * rng.standard_normal(paths)
    dt = case["duration"] / legs
    # The potential stands still during a leg, at its middle: each leg is then an exact transition.
    at = geodesic(**case, time=(np.arange(legs) + 0.5) * dt)
    decay = np.exp(-at.stiffness * dt)
    kick = np.sqrt(case["temperature"] / at.stiffness * (1 - decay**2))
    for d, s, c in zip(decay, kick, at.centre, strict=True):
        theta = c + d * (theta - c) + s * rng.standard_normal(paths)
    assert abs(theta.mean() - case["mean_end"]) < 3 * theta.std() / np.sqrt(paths)
    assert abs(theta.var() - case["variance_end"]) < 3 * theta.var() * np.sqrt(2 / paths)


def test_a_relaxation_between_the_same_laws_costs_more():
    relaxed = ornstein_uhlenbeck(
        rate=1.2, target=2.0, temperature=0.5, mean=-1.0, variance=1.0, time=1.4
    )
    cost = geodesic_cost(
        mean_start=-1.0,
        variance_start=1.0,
        mean_end=relaxed.mean,
        variance_end=relaxed.variance,
        duration=1.4,
        temperature=0.5,
    )
    assert cost.w2_squared == pytest.approx(float(relaxed.w2_squared), rel=1e-12)
    assert relaxed.dissipation > 1.1 * cost.dissipation
    # A budget pays for the cheapest way: the relaxation stays inside its own ball.
    radius = reachable_radius(duration=1.4, free_energy_drop=relaxed.dissipation)
    assert np.sqrt(relaxed.w2_squared) < radius


def test_equal_laws_cost_nothing():
    same = {"mean_start": 1.0, "variance_start": 2.0, "mean_end": 1.0, "variance_end": 2.0}
    cost = geodesic_cost(**same, **SETTINGS)
    assert cost.w2_squared == cost.dissipation == cost.work == cost.free_energy_change == 0
    there = geodesic(**same, **SETTINGS, time=1.0)
    assert there.centre == 1.0
    assert there.stiffness == pytest.approx(0.7 / 2.0)
    assert gaussian_w2_squared(**same) == 0


def test_a_straight_slope_has_no_centre():
    # tau/s = b: noise alone widens the law as fast as the geodesic does.
    case = {"mean_start": 0.0, "variance_start": 1.0, "mean_end": 1.0, "variance_end": 4.0}
    there = geodesic(**case, duration=1.0, time=0.0, temperature=1.0)
    assert there.stiffness == 0
    assert np.isinf(there.centre)
    drifting = geodesic(**case | {"mean_end": 0.0}, duration=1.0, time=0.0, temperature=1.0)
    assert drifting.centre == 0
