"""The cost of equilibrium against the relaxation itself, quadratic and double-well."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

from capacity.closed_forms import (
    equilibrium_cost,
    ornstein_uhlenbeck,
    quadratic_equilibrium_cost,
)

BETA, PRIOR = 1.3, 2.0


def double_well(theta):
    return 0.5 * (theta**2 - 1.5) ** 2 + 0.4 * theta


def dissipated(*, cells, half_width=4.5):
    """Return the integral of E|v|^2 by solving the Fokker-Planck equation on a grid."""
    tau = 1 / BETA
    edges = np.linspace(-half_width, half_width, cells + 1)
    x, dx = 0.5 * (edges[1:] + edges[:-1]), edges[1] - edges[0]
    potential = double_well(x) + 0.5 * PRIOR * x**2
    start = np.exp(-0.5 * BETA * PRIOR * x**2)
    # Jumps between neighbours in detailed balance with e^{-beta V}.
    up = tau / dx**2 * np.exp(-0.5 * BETA * np.diff(potential))
    down = tau / dx**2 * np.exp(0.5 * BETA * np.diff(potential))
    force = -np.diff(potential) / dx

    def change(_, law):
        return np.diff(down * law[1:] - up * law[:-1], prepend=0.0, append=0.0)

    times = np.concatenate([[0.0], np.geomspace(1e-5, 12.0, 24)])
    nodes, weights = np.polynomial.legendre.leggauss(8)
    half = 0.5 * np.diff(times)[:, None]
    seen_at, weight = (times[:-1, None] + half * (1 + nodes)).ravel(), (half * weights).ravel()
    run = solve_ivp(
        change,
        (0, times[-1]),
        start / start.sum(),
        t_eval=seen_at,
        method="LSODA",
        lband=1,
        uband=1,
        rtol=1e-9,
        atol=1e-16,
    )
    law = np.maximum(run.y, 1e-300)
    middle = 0.5 * (law[1:] + law[:-1])
    velocity = force[:, None] - tau * np.diff(np.log(law), axis=0) / dx
    # Where hardly anyone is, the solver's rounding would pass for velocity.
    return ((middle * velocity**2 * (middle > 1e-11)).sum(0) * weight).sum()


@pytest.mark.slow
def test_a_double_well_relaxes_at_this_cost():
    coarse, fine = dissipated(cells=300), dissipated(cells=600)
    measured = BETA * (4 * fine - coarse) / 3
    ours = equilibrium_cost(double_well, beta=BETA, half_width=8.0)
    assert ours.entropy_production == pytest.approx(measured, abs=1e-5)
    assert ours.error < 1e-10


@pytest.mark.parametrize("prior", [0.5, 2.0])
def test_a_quadratic_relaxes_at_this_cost(prior):
    h, m, beta = np.array([0.3, 4.0]), np.array([2.0, -0.5]), 1.7
    relaxed = ornstein_uhlenbeck(
        rate=h + prior,
        target=h * m / (h + prior),
        temperature=1 / beta,
        mean=0.0,
        variance=1 / (beta * prior),
        time=60.0,
    )
    ours = quadratic_equilibrium_cost(curvature=h, target=m, beta=beta, prior_curvature=prior)
    np.testing.assert_allclose(ours.entropy_production, beta * relaxed.dissipation, rtol=1e-10)
    np.testing.assert_allclose(
        ours.entropy_production,
        ours.log_z_end - ours.log_z_start + beta * ours.loss_start,
        rtol=1e-10,
    )


def test_both_ways_to_the_same_number():
    settings = {"beta": 0.8, "prior_curvature": 1.5}
    closed = quadratic_equilibrium_cost(curvature=3.0, target=1.2, **settings)
    summed = equilibrium_cost(lambda x: 1.5 * (x - 1.2) ** 2, half_width=15.0, **settings)
    for name in ("log_z_start", "log_z_end", "loss_start", "entropy_production"):
        assert getattr(summed, name) == pytest.approx(float(getattr(closed, name)), rel=1e-10)


def test_the_partition_function_normalises_the_posterior():
    ours = equilibrium_cost(double_well, beta=1.3, half_width=8.0)

    def density(x):
        return np.exp(-1.3 * (double_well(x) + x**2) - float(ours.log_z_end))

    assert quad(density, -8, 8)[0] == pytest.approx(1.0, abs=1e-9)


def test_nothing_to_learn_costs_nothing():
    none = quadratic_equilibrium_cost(curvature=0.0, target=3.0, beta=2.0)
    assert none.entropy_production == 0
    flat = equilibrium_cost(lambda x: 0.3 + 0 * x, beta=2.0, half_width=8.0)
    assert flat.entropy_production == pytest.approx(0.0, abs=1e-12)
    # A faint task keeps its digits: h^2 (1/4p^2 + beta m^2/2p), not a difference of logarithms.
    faint = quadratic_equilibrium_cost(curvature=1e-9, target=1.0, beta=2.0)
    assert faint.entropy_production == pytest.approx(1e-18 * (1 / 16 + 0.5), rel=1e-6)


def test_a_narrow_interval_or_a_broken_loss_is_refused():
    with pytest.raises(ValueError, match="half_width = 1 cuts off the prior"):
        equilibrium_cost(double_well, beta=1.0, half_width=1.0)
    with pytest.raises(ValueError, match="loss must return one finite number per theta"):
        equilibrium_cost(lambda x: np.where(x > 0, np.nan, x), beta=1.0, half_width=9.0)
