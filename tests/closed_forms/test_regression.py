"""High-dimensional regression: Langevin dynamics on real data sets against Marchenko-Pastur."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from capacity.closed_forms import (
    MANY_SAMPLES_SPEED_LIMIT,
    marchenko_pastur_mean,
    regression_cost,
    sampled_regression_cost,
    zero_temperature_speed_limit,
)

FIELDS = ("w2_squared", "dissipation", "loss_start", "speed_limit")


def spectrum(rng, *, samples, parameters):
    z = rng.standard_normal((samples, parameters))
    values = np.linalg.eigvalsh(z.T @ z / samples if parameters <= samples else z @ z.T / samples)
    return np.concatenate([np.zeros(max(0, parameters - samples)), np.maximum(values, 0.0)])


def extrapolated(*, settings, parameters, draws, seed):
    """Mean and standard error over data sets, extrapolated from d and 2d to infinite size."""
    rng = np.random.default_rng(seed)
    rows = []
    for size in (parameters, 2 * parameters):
        values = np.array([
            spectrum(rng, samples=round(size / settings["gamma"]), parameters=size)
            for _ in range(draws)
        ])
        cost = sampled_regression_cost(eigenvalues=values, **settings)
        rows.append(np.array([getattr(cost, name) for name in FIELDS]))
    mean = 2 * rows[1].mean(1) - rows[0].mean(1)
    error = np.sqrt((4 * rows[1].var(1) + rows[0].var(1)) / (draws - 1))
    return dict(zip(FIELDS, zip(mean, error, strict=True), strict=True))


@pytest.mark.parametrize("samples", [9, 4], ids=["more data", "less data"])
def test_langevin_training_on_one_data_set(samples):
    """Integrate mean and covariance of the weights as full matrices, in the stated potential."""
    d, alpha, beta, lam = 6, 1.4, 3.0, 0.8
    rng = np.random.default_rng(5)
    z = rng.standard_normal((samples, d))
    gamma = d / samples
    hessian, decay, tau = z.T @ z / samples, lam / beta * gamma, gamma / beta
    drift = hessian + decay * np.eye(d)

    def change(_, y):
        # One column of `mean` per teacher w* = sqrt(alpha) e_i: together the signal is alpha d.
        mean, covariance = y[: d * d].reshape(d, d), y[d * d : -1].reshape(d, d)
        velocity = -hessian @ (mean - np.sqrt(alpha) * np.eye(d)) - decay * mean
        pull = drift @ covariance
        excess = tau * np.linalg.inv(covariance) - drift
        rate = (velocity**2).sum() + np.trace(excess @ covariance @ excess)
        return np.concatenate([
            velocity.ravel(),
            (2 * tau * np.eye(d) - pull - pull.T).ravel(),
            [rate],
        ])

    start = np.concatenate([np.zeros(d * d), (np.eye(d) / lam).ravel(), [0.0]])
    run = solve_ivp(change, (0, 25 / decay), start, method="LSODA", rtol=1e-9, atol=1e-11)
    mean, covariance = run.y[: d * d, -1], run.y[d * d : -1, -1].reshape(d, d)
    roots = np.sqrt(np.linalg.eigvalsh(covariance))  # the prior is isotropic: they commute
    w2_squared = ((mean**2).sum() + ((roots - lam**-0.5) ** 2).sum()) / d
    ours = sampled_regression_cost(
        eigenvalues=np.maximum(np.linalg.eigvalsh(hessian), 0),
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        lam=lam,
    )
    assert ours.w2_squared == pytest.approx(w2_squared, rel=1e-6)
    assert ours.dissipation == pytest.approx(run.y[-1, -1] / d, rel=1e-6)
    assert ours.speed_limit == pytest.approx(w2_squared * d / run.y[-1, -1], rel=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_drawn_data_sets_come_to_the_integrals(gamma):
    settings = {"alpha": 1.0, "beta": 2.0, "gamma": gamma, "lam": 1.0}
    measured = extrapolated(settings=settings, parameters=40, draws=100, seed=11)
    ours = regression_cost(**settings)
    for name, (mean, error) in measured.items():
        assert abs(mean - getattr(ours, name)) < 3 * error, name


@pytest.mark.parametrize("gamma", [0.05, 0.999, 1.0, 1.001, 3.0])
def test_marchenko_pastur_moments(gamma):
    assert marchenko_pastur_mean(np.ones_like, gamma=gamma) == pytest.approx(1, rel=1e-12)
    assert marchenko_pastur_mean(lambda s: s, gamma=gamma) == pytest.approx(1, rel=1e-12)
    second, third = (marchenko_pastur_mean(lambda s, p=p: s**p, gamma=gamma) for p in (2, 3))
    assert second == pytest.approx(1 + gamma, rel=1e-12)
    assert third == pytest.approx(1 + 3 * gamma + gamma**2, rel=1e-12)
    # The resolvent int 1/(s + z) solves a quadratic equation, at any distance from the edge.
    for z in (1e-8, 1e-3, 1.0):
        resolvent = marchenko_pastur_mean(lambda s, z=z: 1 / (s + z), gamma=gamma)
        b = z + 1 - gamma
        closed = 2 / (b + np.sqrt(b * b + 4 * gamma * z)) if b > 0 else None
        if closed is not None:
            assert resolvent == pytest.approx(closed, rel=1e-10)


def test_stable_form_is_the_direct_one():
    alpha, beta, gamma, lam = 0.7, 5.0, 0.4, 1.3
    c = lam / beta

    def mean(function):
        return marchenko_pastur_mean(function, gamma=gamma)

    w2 = alpha * mean(lambda s: (s / (c * gamma + s)) ** 2)
    w2 += mean(lambda s: (lam**-0.5 - (lam + beta * s / gamma) ** -0.5) ** 2)
    sigma = 1 / (2 * lam) - gamma / (2 * beta) * mean(lambda s: np.log1p(beta * s / (gamma * lam)))
    sigma += alpha / 2 * mean(lambda s: s**2 / (c * gamma + s))
    ours = regression_cost(alpha=alpha, beta=beta, gamma=gamma, lam=lam)
    assert ours.w2_squared == pytest.approx(w2, rel=1e-13)
    assert ours.dissipation == pytest.approx(sigma, rel=1e-13)


def test_limits():
    gamma = np.array([0.2, 1.0, 4.0])
    settings = {"alpha": 0.6, "lam": 1.7}
    cold = regression_cost(beta=1e13, gamma=gamma, **settings).speed_limit
    np.testing.assert_allclose(cold, zero_temperature_speed_limit(gamma=gamma), rtol=1e-5)
    # The width of the posterior comes in as sqrt(gamma): a hundredth of gamma, a tenth of the gap.
    many = regression_cost(beta=3.0, gamma=[1e-8, 1e-10], **settings).speed_limit
    gap = MANY_SAMPLES_SPEED_LIMIT - many
    assert abs(gap[0]) < 2e-4
    assert gap[1] / gap[0] == pytest.approx(0.1, rel=1e-2)
    # Hot and without signal prior and posterior nearly coincide: T_SL = beta/(gamma lam).
    hot = regression_cost(alpha=0.0, beta=1e-6, gamma=0.5, lam=1.0)
    assert hot.speed_limit == pytest.approx(1e-6 / 0.5, rel=1e-5)
    assert regression_cost(
        alpha=[0.0, 1.0], beta=1.0, gamma=[[0.5], [2.0]], lam=1.0
    ).w2_squared.shape == (2, 2)
