"""The relaxation against its moment equations, its density on a grid and exact sampling."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.stats import norm

from capacity.closed_forms import (
    gaussian_entropy,
    gaussian_w2_squared,
    gibbs_divergence,
    one_mode_efficiency,
    ornstein_uhlenbeck,
)

CASES = {
    "cooling": {
        "rate": 0.8,
        "target": 1.5,
        "temperature": 0.3,
        "mean": -0.4,
        "variance": 2.0,
        "time": 1.7,
    },
    "heating": {
        "rate": 2.5,
        "target": 0.0,
        "temperature": 4.0,
        "mean": 1.0,
        "variance": 0.2,
        "time": 0.4,
    },
    "no noise": {
        "rate": 1.3,
        "target": -2.0,
        "temperature": 0.0,
        "mean": 0.5,
        "variance": 0.7,
        "time": 2.0,
    },
    "free": {
        "rate": 0.0,
        "target": 3.0,
        "temperature": 0.5,
        "mean": 0.5,
        "variance": 0.7,
        "time": 2.0,
    },
    "hilltop": {
        "rate": -0.6,
        "target": 0.2,
        "temperature": 0.5,
        "mean": 0.5,
        "variance": 0.7,
        "time": 1.5,
    },
}


@pytest.fixture(params=CASES, ids=str)
def case(request):
    return CASES[request.param]


def test_moment_equations(case):
    a, m, tau = case["rate"], case["target"], case["temperature"]

    def change(_, y):
        mu, s, _, jacobian = y
        velocity = -a * (mu - m)
        return [velocity, 2 * tau - 2 * a * s, velocity**2 + (tau / s - a) ** 2 * s, -a * jacobian]

    run = solve_ivp(
        change, (0, case["time"]), [case["mean"], case["variance"], 0, 1], rtol=1e-11, atol=1e-13
    )
    mean, variance, dissipation, jacobian = run.y[:, -1]
    ours = ornstein_uhlenbeck(**case)
    assert ours.mean == pytest.approx(mean, abs=1e-8)
    assert ours.variance == pytest.approx(variance, abs=1e-8)
    assert ours.dissipation == pytest.approx(dissipation, abs=1e-8)
    assert ours.jacobian == pytest.approx(jacobian, abs=1e-8)
    assert ours.free_energy_start - ours.free_energy == pytest.approx(dissipation, abs=1e-8)


@pytest.mark.slow
def test_rate_entropy_and_distance_from_the_density_itself(case):
    ours = ornstein_uhlenbeck(**case)
    mu, root = float(ours.mean), float(np.sqrt(ours.variance))
    theta = mu + root * np.linspace(-10, 10, 4001)
    step = theta[1] - theta[0]
    density = norm.pdf(theta, mu, root)
    log_slope = np.gradient(norm.logpdf(theta, mu, root), theta, edge_order=2)
    velocity = -case["rate"] * (theta - case["target"]) - case["temperature"] * log_slope
    assert ours.sigma == pytest.approx((density * velocity**2).sum() * step, abs=1e-7)
    surprise = -density * norm.logpdf(theta, mu, root)
    assert ours.entropy == pytest.approx(surprise.sum() * step, abs=1e-7)

    start_root = np.sqrt(case["variance"])

    def gap(u):
        return (norm.ppf(u, mu, root) - norm.ppf(u, case["mean"], start_root)) ** 2

    assert ours.w2_squared == pytest.approx(quad(gap, 0, 1, epsabs=1e-9)[0], abs=1e-6)


def test_paths_drawn_from_the_exact_transition():
    case = CASES["cooling"]
    paths, legs = 200_000, 4
    rng = np.random.default_rng(7)
    start = case["mean"] + np.sqrt(case["variance"]) * rng.standard_normal(paths)
    theta = start.copy()
    decay = np.exp(-case["rate"] * case["time"] / legs)
    kick = np.sqrt(case["temperature"] / case["rate"] * (1 - decay**2))
    for _ in range(legs):
        theta = case["target"] + decay * (theta - case["target"]) + kick * rng.normal(size=paths)
    ours = ornstein_uhlenbeck(**case)
    for expected, samples in (
        (ours.mean, theta),
        (ours.variance, (theta - ours.mean) ** 2),
        (ours.displacement_squared, (theta - start) ** 2),
    ):
        assert abs(samples.mean() - expected) < 3 * samples.std() / np.sqrt(paths)


def test_speed_limit_holds_and_paths_move_further_than_the_plan():
    rng = np.random.default_rng(1)
    size = 2000
    time = rng.exponential(2, size)
    ours = ornstein_uhlenbeck(
        rate=rng.exponential(1, size),
        target=rng.normal(size=size),
        temperature=rng.exponential(1, size),
        mean=rng.normal(size=size),
        variance=rng.exponential(1, size),
        time=time,
    )
    assert (time * ours.dissipation >= ours.w2_squared * (1 - 1e-12)).all()
    assert (ours.displacement_squared >= ours.w2_squared).all()
    assert (ours.sigma >= 0).all()


def test_limits():
    case = CASES["no noise"]
    ours = ornstein_uhlenbeck(**case)
    efficiency = ours.w2_squared / (case["time"] * ours.dissipation)
    assert efficiency == pytest.approx(
        one_mode_efficiency(curvature=case["rate"], time=case["time"]), rel=1e-13
    )
    still = ornstein_uhlenbeck(
        rate=2.0, target=1.0, temperature=3.0, mean=1.0, variance=1.5, time=5.0
    )
    assert still.dissipation == still.w2_squared == still.sigma == 0
    late = ornstein_uhlenbeck(**CASES["cooling"] | {"time": 200.0})
    assert late.mean == pytest.approx(1.5)
    assert late.variance == pytest.approx(0.3 / 0.8)
    none = ornstein_uhlenbeck(**CASES["cooling"] | {"time": 0.0})
    assert none.dissipation == none.w2_squared == none.displacement_squared == 0
    # A billionth of a time unit: Sigma = sigma dt, where F_0 - F_t has lost every digit.
    short = ornstein_uhlenbeck(**CASES["cooling"] | {"time": 1e-9})
    assert short.dissipation == pytest.approx(1e-9 * none.sigma, rel=1e-8)


def test_modes_broadcast_and_agree_with_the_distance_of_gaussians():
    rate = np.array([0.5, 1.0, 2.0])
    ours = ornstein_uhlenbeck(
        rate=rate, target=1.0, temperature=0.2, mean=0.0, variance=1.0, time=[[0.5], [3.0]]
    )
    assert ours.dissipation.shape == (2, 3)
    distance = gaussian_w2_squared(
        mean_start=0.0, variance_start=1.0, mean_end=ours.mean, variance_end=ours.variance
    )
    np.testing.assert_allclose(ours.w2_squared, distance, rtol=1e-12)
    np.testing.assert_allclose(ours.entropy, gaussian_entropy(variance=ours.variance))


def test_the_divergence_from_the_gibbs_law_by_quadrature_and_along_a_relaxation():
    case = {k: CASES["cooling"][k] for k in ("rate", "target", "temperature")}
    mean, variance = -0.4, 2.0
    law, gibbs = norm(mean, variance**0.5), norm(1.5, (0.3 / 0.8) ** 0.5)
    truth = quad(lambda x: law.pdf(x) * (law.logpdf(x) - gibbs.logpdf(x)), -12, 12)[0]
    ours = gibbs_divergence(**case, mean=mean, variance=variance)
    assert ours == pytest.approx(truth, rel=1e-8)
    later = ornstein_uhlenbeck(**case, mean=mean, variance=variance, time=1.7)
    left = gibbs_divergence(**case, mean=later.mean, variance=later.variance)
    assert ours - left == pytest.approx(float(later.dissipation) / 0.3, rel=1e-12)
    assert gibbs_divergence(**case, mean=1.5, variance=0.3 / 0.8) == pytest.approx(0, abs=1e-15)
