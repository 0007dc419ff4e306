"""Distances against geodesics followed step by step; metrics against the Fisher information."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.stats import norm, vonmises

from capacity.closed_forms import (
    gaussian_distance,
    gaussian_line_element,
    isotropic_curvature,
    isotropic_distance,
    isotropic_entropy,
    von_mises,
    von_mises_distance,
)


def shoot(metric, start, heading, length):
    """Follow the geodesic of ds^2 = g dr^2 + e dm^2, where metric(r) = (g, g', e, e')."""

    def change(_, y):
        r, _, dr, dm = y
        g, g1, e, e1 = metric(r)
        return [dr, dm, (-0.5 * g1 * dr**2 + 0.5 * e1 * dm**2) / g, -e1 / e * dr * dm]

    g, _, e, _ = metric(start)
    state = [start, 0.0, np.cos(heading) / np.sqrt(g), np.sin(heading) / np.sqrt(e)]
    run = solve_ivp(change, (0, length), state, method="DOP853", rtol=1e-11, atol=1e-12)
    return run.y[0, -1], run.y[1, -1]


HEADINGS = [0.0, 0.4, 1.5, 2.2, 2.9, np.pi]


@pytest.mark.parametrize("heading", HEADINGS)
@pytest.mark.parametrize("dimensions", [1, 7])
def test_gaussian_distance_is_the_length_of_the_geodesic(heading, dimensions):
    def metric(sigma):
        return 2 * dimensions / sigma**2, -4 * dimensions / sigma**3, sigma**-2, -2 / sigma**3

    length = 1.7
    sigma, mu = shoot(metric, 0.8, heading, length)
    ours = isotropic_distance(
        mean_distance=mu, deviation_start=0.8, deviation_end=sigma, dimensions=dimensions
    )
    assert ours == pytest.approx(length, abs=1e-8)
    if dimensions == 1:
        one = gaussian_distance(mean_start=0, deviation_start=0.8, mean_end=mu, deviation_end=sigma)
        assert one == pytest.approx(length, abs=1e-8)


@pytest.mark.slow
def test_line_element_is_the_fisher_information():
    sigma, step = 0.6, 1e-3

    def twice_divergence(mean, deviation):
        """Return 2 KL from the Gaussian to a nearby one."""

        def integrand(x):
            return norm.pdf(x, 0, sigma) * (
                norm.logpdf(x, 0, sigma) - norm.logpdf(x, mean, deviation)
            )

        return 2 * quad(integrand, -6, 6, epsabs=1e-13)[0]

    for mean_step, deviation_step in [(step, 0.0), (0.0, step), (step, -step)]:
        both = [
            twice_divergence(sign * mean_step, sigma + sign * deviation_step) for sign in (-1, 1)
        ]
        ours = gaussian_line_element(
            deviation=sigma, mean_step=mean_step, deviation_step=deviation_step
        )
        assert np.mean(both) == pytest.approx(float(ours), rel=1e-4)


def test_gaussian_distance_close_by_and_far_away():
    near = gaussian_distance(
        mean_start=0.0, deviation_start=2.0, mean_end=1e-9, deviation_end=2.0 + 1e-9
    )
    element = gaussian_line_element(deviation=2.0, mean_step=1e-9, deviation_step=1e-9)
    assert near**2 == pytest.approx(float(element), rel=1e-6)
    same = gaussian_distance(mean_start=1.0, deviation_start=2.0, mean_end=1.0, deviation_end=2.0)
    assert same == 0
    scale = gaussian_distance(mean_start=0, deviation_start=1, mean_end=0, deviation_end=np.e**3)
    assert scale == pytest.approx(3 * np.sqrt(2))


@pytest.mark.parametrize("dimensions", [1, 4])
def test_isotropic_curvature_from_the_metric(dimensions):
    # ds^2 = dr^2 + f^2 dmu^2 with r = sqrt(2P) ln sigma, f = 1/sigma: the curvature is -f''/f.
    r, h = 0.3, 1e-3

    def f(r):
        return np.exp(-r / np.sqrt(2 * dimensions))

    curvature = -(f(r + h) - 2 * f(r) + f(r - h)) / h**2 / f(r)
    assert isotropic_curvature(dimensions=dimensions) == pytest.approx(curvature, rel=1e-5)


def test_isotropic_entropy_is_that_of_its_coordinates():
    one = norm(0, 0.7).entropy()
    assert isotropic_entropy(deviation=0.7, dimensions=5) == pytest.approx(5 * float(one))


@pytest.mark.parametrize("kappa", [1e-3, 0.3, 2.0, 20.0, 60.0])
def test_von_mises_metric_and_entropy_by_quadrature(kappa):
    ours = von_mises(concentration=kappa)
    x = np.linspace(-np.pi, np.pi, 4001)[:-1]
    density = vonmises.pdf(x, kappa) * (x[1] - x[0])
    resultant = (density * np.cos(x)).sum()
    assert ours.resultant == pytest.approx(resultant, rel=1e-10)
    assert ours.metric_mean == pytest.approx((density * (kappa * np.sin(x)) ** 2).sum(), rel=1e-10)
    spread = (density * (np.cos(x) - resultant) ** 2).sum()
    assert ours.metric_concentration == pytest.approx(spread, rel=1e-10)
    assert ours.entropy == pytest.approx(-(density * vonmises.logpdf(x, kappa)).sum(), rel=1e-10)


def test_von_mises_metric_by_sampling():
    kappa, samples = 1.8, 200_000
    x = np.random.default_rng(0).vonmises(0.0, kappa, samples)
    ours = von_mises(concentration=kappa)
    for expected, score in (
        (ours.metric_mean, kappa * np.sin(x)),
        (ours.metric_concentration, np.cos(x) - ours.resultant),
    ):
        squared = score**2
        assert abs(squared.mean() - expected) < 3 * squared.std() / np.sqrt(samples)


@pytest.mark.parametrize("kappa", [0.2, 0.499, 0.501, 1.0, 5.0, 15.0])
def test_von_mises_curvature_from_the_metric(kappa):
    # f'' along the radius r, by differences over points that are equally far apart in r.
    h = 2e-3

    def metric(k):
        geometry = von_mises(concentration=k)
        return float(geometry.metric_mean), float(geometry.metric_concentration)

    def walk(length):
        def change(_, k):
            return length / np.sqrt(metric(k[0])[1])

        return solve_ivp(change, (0, 1), [kappa], rtol=1e-12, atol=1e-13).y[0, -1]

    f = [np.sqrt(metric(walk(j * h))[0]) for j in (-2, -1, 0, 1, 2)]
    second = (-f[0] + 16 * f[1] - 30 * f[2] + 16 * f[3] - f[4]) / (12 * h**2)
    assert von_mises(concentration=kappa).curvature == pytest.approx(-second / f[2], abs=1e-5)


def test_von_mises_curvature_is_not_constant():
    at = von_mises(concentration=[0.0, 1e-4, 5.0, 1e6]).curvature
    assert at[0] == 0
    assert abs(at[1]) < 1e-8
    assert at[2] == pytest.approx(-0.51, abs=5e-4)
    assert at[3] == pytest.approx(-0.5, abs=1e-9)
    # The three formulas (tip, middle, far) meet.
    for seam in (0.5, 30.0):
        near, far = von_mises(concentration=[seam - 1e-9, seam + 1e-9]).curvature
        assert near == pytest.approx(far, abs=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("heading", HEADINGS)
def test_von_mises_distance_is_the_length_of_the_geodesic(heading):
    def metric(kappa):
        here = von_mises(concentration=abs(kappa))
        a, g = float(here.resultant), float(here.metric_concentration)
        return g, -g / kappa + a / kappa**2 - 2 * a * g, kappa * a, a + kappa * g

    length = 0.9
    kappa, mu = shoot(metric, 2.0, heading, length)
    ours = von_mises_distance(
        mean_start=0.3, concentration_start=2.0, mean_end=0.3 + mu, concentration_end=kappa
    )
    assert ours == pytest.approx(length, abs=1e-8)
    back = von_mises_distance(
        mean_start=mu, concentration_start=kappa, mean_end=0.0, concentration_end=2.0
    )
    assert back == pytest.approx(float(ours), abs=1e-12)


@pytest.mark.slow
def test_von_mises_distance_at_the_edges():
    def distance(k, mu, l):
        return float(
            von_mises_distance(
                mean_start=0.0, concentration_start=k, mean_end=mu, concentration_end=l
            )
        )

    along = quad(lambda k: np.sqrt(von_mises(concentration=k).metric_concentration), 0.4, 9)[0]
    assert distance(0.4, 0.0, 9.0) == pytest.approx(along, rel=1e-9)
    # Opposite directions go straight through the uniform law, which has no direction.
    through = distance(0.0, 0.0, 1.0) + distance(0.0, 0.0, 3.0)
    assert distance(1.0, np.pi, 3.0) == pytest.approx(through, rel=1e-9)
    assert distance(0.0, 1.0, 3.0) == distance(0.0, 0.0, 3.0)
    assert distance(1.0, 2 * np.pi, 1.0) == pytest.approx(0.0, abs=1e-12)
    element = np.sqrt(float(von_mises(concentration=1.0).metric_mean))
    assert distance(1.0, 1e-7, 1.0) == pytest.approx(1e-7 * element, rel=1e-6)
    # Concentrated laws are Gaussians of deviation kappa^-1/2.
    gauss = gaussian_distance(
        mean_start=0.0, deviation_start=1e4**-0.5, mean_end=0.02, deviation_end=4e4**-0.5
    )
    assert distance(1e4, 0.02, 4e4) == pytest.approx(float(gauss), rel=1e-4)
