"""One test per slip of the sources: what is simulated agrees with ours and not with the print.

[S] is Seroussi et al., arXiv 2307.14653; [II] arXiv 2602.07950; [G] Graham, *Variational flows in
learning*. Slips whose printed formula is not on record here have no test.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

from capacity.closed_forms import (
    MANY_SAMPLES_SPEED_LIMIT,
    equilibrium_cost,
    explicit_step_ratio,
    geodesic_cost,
    implicit_step_ratio,
    kernel_flow,
    marchenko_pastur_mean,
    ornstein_uhlenbeck,
    power_law_flow_loss,
    quadratic_equilibrium_cost,
    reachable_radius,
    regression_cost,
    sampled_regression_cost,
    zero_temperature_speed_limit,
)


def settle(*, simulated, ours, printed, error):
    """Agree with ours within the error, and tell the printed form apart by ten errors."""
    simulated, ours, printed = float(simulated), float(ours), float(printed)
    assert abs(simulated - ours) <= error, f"ours {ours}, simulated {simulated} +- {error}"
    assert abs(simulated - printed) > 10 * error, f"printed {printed} would pass: {simulated}"


def sampled(*, samples, parameters, draws, seed, name="speed_limit", **settings):
    """Mean and three standard errors over drawn data sets."""
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(draws):
        z = rng.standard_normal((samples, parameters))
        values.append(np.maximum(np.linalg.eigvalsh(z.T @ z / samples), 0))
    cost = getattr(
        sampled_regression_cost(
            eigenvalues=np.array(values), gamma=parameters / samples, **settings
        ),
        name,
    )
    return cost.mean(), 3 * cost.std() / np.sqrt(draws - 1)


def test_density_is_divided_by_z_not_by_its_logarithm():
    beta = 1.4

    def loss(x):
        return 0.3 * x**4 - x

    log_z = float(equilibrium_cost(loss, beta=beta, half_width=8.0).log_z_end)
    mass = quad(lambda x: np.exp(-beta * (loss(x) + x**2)), -8, 8)[0]
    settle(simulated=1.0, ours=mass / np.exp(log_z), printed=mass / log_z, error=1e-8)


def test_t_r_over_beta_is_not_the_cost_of_the_plan():
    # Before (7): T R/beta = W2^2. A relaxation from prior to posterior pays more, the more the
    # longer one waits. R is simulated from the moments of the Langevin process.
    h, m, p, beta, time = 3.0, 1.5, 2.0, 1.2, 8.0
    rate, target, tau = h + p, h * m / (h + p), 1 / beta

    def change(_, y):
        mu, s, _ = y
        pull = -rate * (mu - target)
        return [pull, 2 * tau - 2 * rate * s, beta * (pull**2 + (tau / s - rate) ** 2 * s)]

    run = solve_ivp(change, (0, time), [0.0, tau / p, 0.0], rtol=1e-10, atol=1e-12)
    mu, s, produced = run.y[:, -1]
    ours = quadratic_equilibrium_cost(curvature=h, target=m, beta=beta, prior_curvature=p)
    w2_squared = mu**2 + (np.sqrt(s) - np.sqrt(tau / p)) ** 2
    settle(
        simulated=time * produced / beta,
        ours=time * ours.entropy_production / beta,
        printed=w2_squared,
        error=1e-5,
    )


@pytest.mark.parametrize("time", [0.5, 30.0])
def test_13_and_14_lack_one_half(time):
    rates, delta = np.array([2.0, 0.7, 0.1]), np.array([1.0, -1.5, 0.4])

    def change(_, y):
        velocity = -np.sqrt(rates) * (np.sqrt(rates) * y[:3] + delta)  # f = sqrt(lambda) theta
        return [*velocity, velocity @ velocity]

    run = solve_ivp(change, (0, time), np.zeros(4), rtol=1e-10, atol=1e-12)
    ours = kernel_flow(eigenvalues=rates, residues=delta, time=time)
    printed_drop = (delta**2 * (1 - np.exp(-2 * rates * time))).sum()
    settle(simulated=run.y[3, -1], ours=ours.loss_drop, printed=printed_drop, error=1e-5)
    moved = (run.y[:3, -1] ** 2).sum()
    settle(
        simulated=moved / run.y[3, -1],
        ours=ours.speed_limit,
        printed=moved / printed_drop,
        error=1e-5,
    )


def test_60_and_63a_lack_one_over_the_exponent():
    # Modes on a fine, dense power law, summed one by one; beyond the last the loss is 1/2 k^-3.
    spectrum, residue, time = 2.0, 3.0, 400.0
    k = np.arange(1.0, 1_000_001)
    left = 0.5 * (k**-residue * np.exp(-2 * time * k**-spectrum)).sum() + 0.25 * k[-1] ** -2
    ours = power_law_flow_loss(spectrum=spectrum, residue=residue, time=time)
    settle(simulated=left / ours, ours=1.0, printed=spectrum, error=1e-5)


@pytest.mark.slow
def test_77_is_normalised_by_2dn():
    # The loss of the untrained weights per parameter, drawn; read with one d more it vanishes.
    d, n, alpha, lam, draws = 30, 60, 1.3, 0.8, 4000
    rng = np.random.default_rng(4)
    norms = np.empty(draws)
    for i in range(draws):
        z = rng.standard_normal((n, d))
        gap = rng.normal(0, lam**-0.5, d) - np.sqrt(alpha) * rng.standard_normal(d)
        norms[i] = ((z @ gap) ** 2).sum()
    ours = regression_cost(alpha=alpha, beta=2.0, gamma=d / n, lam=lam).loss_start
    simulated = norms.mean() / (2 * d * n)
    error = 3 * norms.std() / (2 * d * n) / np.sqrt(draws)
    settle(simulated=simulated, ours=ours, printed=norms.mean() / (2 * d**2 * n), error=error)


@pytest.mark.parametrize("gamma", [0.3, 0.5, 2.0])
def test_77_closes_the_balance_of_the_free_energy(gamma):
    # Sigma/d = E[L_0]/d + tau (ln Z_T - ln Z_0)/d does not add up with one 1/d more, here d = 100.
    alpha, beta, lam = 1.0, 2.0, 1.0
    ours = regression_cost(alpha=alpha, beta=beta, gamma=gamma, lam=lam)
    decay, tau = lam / beta * gamma, gamma / beta
    log_z = marchenko_pastur_mean(
        lambda s: -0.5 * np.log1p(s / decay) - 0.5 / tau * alpha * s * decay / (s + decay),
        gamma=gamma,
    )
    settle(
        simulated=ours.dissipation,
        ours=ours.loss_start + tau * log_z,
        printed=ours.loss_start / 100 + tau * log_z,
        error=1e-9,
    )


@pytest.mark.slow
def test_79_omits_a_term_of_the_dissipation():
    settings = {"alpha": 1.0, "beta": 2.0, "lam": 1.0}
    ours = regression_cost(gamma=0.5, **settings)
    decay = 0.5 * settings["lam"] / settings["beta"]
    omitted = 0.5 * marchenko_pastur_mean(lambda s: s**2 / (decay + s), gamma=0.5)
    printed = ours.w2_squared / (ours.dissipation - omitted)
    assert ours.speed_limit == pytest.approx(1.110, abs=5e-4)
    assert printed == pytest.approx(2.533, abs=5e-4)
    coarse, coarse_error = sampled(samples=80, parameters=40, draws=200, seed=1, **settings)
    fine, fine_error = sampled(samples=160, parameters=80, draws=200, seed=2, **settings)
    settle(
        simulated=2 * fine - coarse,
        ours=ours.speed_limit,
        printed=printed,
        error=np.hypot(2 * fine_error, coarse_error),
    )


@pytest.mark.parametrize(("samples", "parameters"), [(80, 40), (40, 80)])
def test_8_and_80_at_zero_temperature(samples, parameters):
    alpha, lam, gamma = 0.6, 1.7, parameters / samples
    # Almost cold: what is left of the width is beta^-1/2.
    simulated, error = sampled(
        samples=samples, parameters=parameters, draws=20, seed=3, alpha=alpha, beta=1e8, lam=lam
    )
    printed = 2 * (1 + alpha * lam) / marchenko_pastur_mean(lambda s: s, gamma=gamma)
    settle(
        simulated=simulated,
        ours=zero_temperature_speed_limit(gamma=gamma),
        printed=printed,
        error=error + 1e-3,
    )


def test_10_and_83_with_many_samples():
    # Our reading of which limit (10) is: gamma -> 0. It is approached as sqrt(gamma).
    alpha, beta, lam, d = 1.5, 4.0, 0.5, 10
    measured = []
    for n, seed in ((4_000, 5), (16_000, 6)):
        simulated, error = sampled(
            samples=n, parameters=d, draws=8, seed=seed, alpha=alpha, beta=beta, lam=lam
        )
        near = regression_cost(alpha=alpha, beta=beta, gamma=d / n, lam=lam).speed_limit
        # The few modes of d = 10 are exact to O(1/n) here.
        assert abs(simulated - near) < error + 2e-4
        measured.append(simulated)
    settle(
        simulated=2 * measured[1] - measured[0],
        ours=MANY_SAMPLES_SPEED_LIMIT,
        printed=2 * lam * alpha,
        error=5e-3,
    )


def test_the_limits_of_11_commute():
    settings = {"alpha": 1.5, "lam": 0.5}
    small, cold = [1e-4, 1e-6, 1e-8], [1e4, 1e6, 1e8]
    gaps = []
    for gamma, beta in ((small[0], cold[2]), (small[2], cold[0]), (small[1], cold[1])):
        limit = regression_cost(gamma=gamma, beta=beta, **settings).speed_limit
        gaps.append(abs(limit - MANY_SAMPLES_SPEED_LIMIT))
    assert max(gaps) < 1e-4
    # As printed the two orders differ: 2 (1 + alpha lambda) against 2 lambda alpha.
    printed = [2 * (1 + 1.5 * 0.5), 2 * 1.5 * 0.5]
    assert min(abs(p - MANY_SAMPLES_SPEED_LIMIT) for p in printed) > 0.4
    assert zero_temperature_speed_limit(gamma=small[2]) == MANY_SAMPLES_SPEED_LIMIT


def test_speed_limit_without_the_time_is_wrong():
    # A geodesic of T = 2.5: Sigma = 3.668 < W2^2 = 9.17, as Sigma >= W2^2 would forbid.
    ends = {
        "mean_start": 0.0,
        "variance_start": 1.0,
        "mean_end": 3.0,
        "variance_end": (1 + np.sqrt(0.17)) ** 2,
    }
    cost = geodesic_cost(**ends, duration=2.5, temperature=1.0)
    assert cost.dissipation == pytest.approx(3.668, abs=1e-9)
    assert cost.w2_squared == pytest.approx(9.17, abs=1e-9)
    assert cost.dissipation < cost.w2_squared
    assert 2.5 * cost.dissipation == pytest.approx(float(cost.w2_squared), rel=1e-14)


def test_the_ball_of_the_slides_needs_both_the_root_and_the_time():
    # The rim is reached by the geodesic, so no other radius is right.
    ends = {"mean_start": -1.0, "variance_start": 0.5, "mean_end": 1.5, "variance_end": 2.0}
    duration = 2.5
    cost = geodesic_cost(**ends, duration=duration, temperature=0.3)
    reached = np.sqrt(cost.w2_squared)
    radius = reachable_radius(duration=duration, free_energy_drop=cost.dissipation)
    for other in (
        duration * cost.dissipation,
        np.sqrt(cost.dissipation),
        np.sqrt(2 * cost.dissipation),
    ):
        settle(simulated=reached, ours=radius, printed=other, error=1e-6)
    # Within a fixed potential the budget is the free energy that is lost.
    relaxed = ornstein_uhlenbeck(
        rate=0.01, target=90.0, temperature=0.0, mean=0.0, variance=1.0, time=duration
    )
    drop = relaxed.free_energy_start - relaxed.free_energy
    radius = float(reachable_radius(duration=duration, free_energy_drop=drop))
    assert np.sqrt(relaxed.w2_squared) == pytest.approx(radius, rel=1e-4)


def test_the_sign_of_a_finite_step():
    # [G] (56) and (58) contradict each other in this sign; the maps themselves decide.
    a, lr, start = 0.8, 0.5, 1.0
    explicit, implicit = start - lr * a * start, start / (1 + lr * a)
    for end, ours in (
        (explicit, explicit_step_ratio(curvature=a, lr=lr)),
        (implicit, implicit_step_ratio(curvature=a, lr=lr)),
    ):
        ratio = 0.5 * a * (start**2 - end**2) / ((end - start) ** 2 / lr)
        settle(simulated=ratio, ours=ours, printed=2 - ours, error=1e-9)
