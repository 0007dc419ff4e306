"""The bridge of Gaussians against numeric minimisation, its limits, and the noisy speed limit."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import sqrtm
from scipy.optimize import minimize, minimize_scalar

from capacity.closed_forms import ornstein_uhlenbeck, schroedinger_bridge


def plan_divergence(rho, m0, s0, m1, s1, tau, time):
    """KL of a Gaussian plan with correlation rho from diffusion with the same start."""
    variance = 2 * tau * time
    moved = (m1 - m0) ** 2 + s0 + s1 - 2 * rho * np.sqrt(s0 * s1)
    kept = s1 * (1 - rho**2)  # of the end, given the start
    return moved / (2 * variance) + 0.5 * np.log(variance / kept) - 0.5


@pytest.mark.parametrize(
    "case", [(0.3, 0.5, -0.8, 1.2, 0.2, 1.5), (0.0, 1e-3, 2.0, 0.7, 0.01, 1.0)]
)
def test_it_is_the_least_of_all_gaussian_plans(case):
    least = minimize_scalar(
        lambda rho: plan_divergence(rho, *case), bounds=(-1 + 1e-9, 1 - 1e-9), method="bounded",
        options={"xatol": 1e-12},
    )  # fmt: skip
    m0, s0, m1, s1, tau, time = case
    made = schroedinger_bridge(
        mean_start=m0, variance_start=s0, mean_end=m1, variance_end=s1, temperature=tau, time=time
    )
    assert float(made.divergence) == pytest.approx(least.fun, rel=1e-8)


def of_matrices(moved, a, b, tau, time):
    """Theory's form for covariances: D = (4 A^1/2 B A^1/2 + sig^4)^1/2, traces and log det."""
    sig2, size, eye = 2 * tau * time, len(a), np.eye(len(a))
    root = np.real(sqrtm(a))
    d = np.real(sqrtm(4 * root @ b @ root + sig2**2 * eye))
    transport = moved @ moved + np.trace(a + b - d) + size * sig2 * (1 - np.log(2 * sig2))
    transport += sig2 * np.linalg.slogdet(d + sig2 * eye)[1]
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * b)[1]
    return transport / (2 * sig2) - entropy + 0.5 * size * np.log(2 * np.pi * sig2)


def test_it_is_that_of_matrices_which_is_the_least_of_all_gaussian_plans():
    source = np.random.default_rng(5)
    a, b = (r @ r.T + 0.2 * np.eye(2) for r in source.normal(size=(2, 2, 2)))
    moved, tau, time = source.normal(size=2), 0.3, 1.4
    sig2 = 2 * tau * time

    def of_plan(entries):
        cross = entries.reshape(2, 2)
        sign, kept = np.linalg.slogdet(2 * np.pi * np.e * (b - cross.T @ np.linalg.solve(a, cross)))
        apart = moved @ moved + np.trace(a + b - 2 * cross)
        return apart / (2 * sig2) + np.log(2 * np.pi * sig2) - 0.5 * (kept if sign > 0 else -1e9)

    least = minimize(of_plan, np.zeros(4), method="Nelder-Mead", options={
        "xatol": 1e-10, "fatol": 1e-13, "maxiter": 4000, "maxfev": 4000,
    })  # fmt: skip
    assert np.abs(a @ b - b @ a).max() > 0.1
    assert of_matrices(moved, a, b, tau, time) == pytest.approx(least.fun, rel=1e-6)
    modes = [np.diag(np.diag(x)) for x in (a, b)]
    ours = schroedinger_bridge(
        mean_start=0.0, variance_start=np.diag(a), mean_end=moved, variance_end=np.diag(b),
        temperature=tau, time=time,
    )  # fmt: skip
    assert ours.divergence.sum() == pytest.approx(of_matrices(moved, *modes, tau, time), rel=1e-12)


def test_without_noise_it_is_the_distance_and_from_a_point_a_divergence_of_gaussians():
    given = {"mean_start": 0.3, "mean_end": -1.1, "variance_end": 0.9, "time": 2.0}
    cold = schroedinger_bridge(**given, variance_start=0.4, temperature=1e-6)
    w2 = 1.4**2 + (np.sqrt(0.9) - np.sqrt(0.4)) ** 2
    assert float(4 * 1e-6 * 2.0 * cold.divergence) == pytest.approx(w2, rel=1e-4)
    point = schroedinger_bridge(**given, variance_start=0.0, temperature=0.1)
    kl = 0.5 * (1.4**2 / 0.4 + 0.9 / 0.4 - 1 - np.log(0.9 / 0.4))
    assert float(point.divergence) == pytest.approx(kl, rel=1e-12)


def test_langevin_training_spends_no_less_in_two_hundred_cases():
    source = np.random.default_rng(3)
    for _ in range(200):
        rate, tau, time = np.exp(source.uniform(-2, 1, 3))
        start, variance = source.normal(0, 2), np.exp(source.uniform(-3, 1))
        given = {
            "rate": rate,
            "target": 0.0,
            "temperature": tau,
            "mean": start,
            "variance": variance,
        }
        end = ornstein_uhlenbeck(**given, time=time)

        def force(t, given=given, rate=rate):
            at = ornstein_uhlenbeck(**given, time=t)
            return rate**2 * float(at.mean**2 + at.variance)

        spent = quad(force, 0, time)[0] / (4 * tau)
        least = schroedinger_bridge(
            mean_start=start, variance_start=variance, mean_end=end.mean, variance_end=end.variance,
            temperature=tau, time=time,
        )  # fmt: skip
        assert spent >= float(least.divergence) * (1 - 1e-9)


@pytest.mark.parametrize("name", ["variance_end", "temperature", "time"])
def test_what_is_no_bridge_is_refused(name):
    given = dict.fromkeys(
        ("mean_start", "variance_start", "mean_end", "variance_end", "temperature", "time"), 1.0
    )
    with pytest.raises(ValueError, match=name):
        schroedinger_bridge(**{**given, name: 0.0})
