"""Gradient flow of a linear model, integrated in parameter space, against the sums over modes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.special import zeta

from capacity.closed_forms import (
    converged_speed_limit,
    kernel_flow,
    one_mode_efficiency,
    power_law_flow_loss,
)


def linear_model(*, samples=5, parameters=9, seed=0):
    rng = np.random.default_rng(seed)
    phi = rng.standard_normal((samples, parameters)) / np.sqrt(parameters)
    start, labels = rng.standard_normal(parameters), rng.standard_normal(samples)
    eigenvalues, vectors = np.linalg.eigh(phi @ phi.T)
    return phi, start, labels, eigenvalues, vectors.T @ (phi @ start - labels)


@pytest.mark.parametrize("time", [0.01, 1.0, 20.0])
def test_gradient_flow_in_parameter_space(time):
    phi, start, labels, eigenvalues, residues = linear_model()

    def change(_, y):
        velocity = -phi.T @ (phi @ y[:-2] - labels)
        return [*velocity, velocity @ velocity, np.linalg.norm(velocity)]

    run = solve_ivp(change, (0, time), [*start, 0, 0], rtol=1e-11, atol=1e-13)
    theta, dissipation, length = run.y[:-2, -1], run.y[-2, -1], run.y[-1, -1]
    ours = kernel_flow(eigenvalues=eigenvalues, residues=residues, time=time)
    moved = ((theta - start) ** 2).sum()
    drop = 0.5 * ((phi @ start - labels) ** 2).sum() - 0.5 * ((phi @ theta - labels) ** 2).sum()
    assert ours.displacement_squared == pytest.approx(moved, rel=1e-7)
    assert ours.loss_drop == pytest.approx(drop, rel=1e-7)
    assert ours.loss_drop == pytest.approx(dissipation, rel=1e-7)
    assert ours.length == pytest.approx(length, rel=1e-7)
    assert ours.speed_limit == pytest.approx(moved / drop, rel=1e-7)
    assert ours.speed_limit <= time


def test_gradient_descent_extrapolated_to_small_steps():
    phi, start, labels, eigenvalues, residues = linear_model(seed=4)
    time = 3.0

    def descend(steps):
        theta, length, lr = start.copy(), 0.0, time / steps
        for _ in range(steps):
            step = -lr * phi.T @ (phi @ theta - labels)
            theta = theta + step
            length += np.linalg.norm(step)
        drop = ((phi @ start - labels) ** 2).sum() - ((phi @ theta - labels) ** 2).sum()
        return np.array([((theta - start) ** 2).sum(), 0.5 * drop, length])

    coarse, middle, fine = (descend(n) for n in (1000, 2000, 4000))
    first, second = 2 * middle - coarse, 2 * fine - middle
    measured = (4 * second - first) / 3
    ours = kernel_flow(eigenvalues=eigenvalues, residues=residues, time=time)
    np.testing.assert_allclose(
        [ours.displacement_squared, ours.loss_drop, ours.length], measured, rtol=1e-7
    )


def test_one_mode():
    lam, time = 0.7, np.array([1e-9, 0.1, 1.0, 10.0, 1e4])
    ours = kernel_flow(eigenvalues=[lam], residues=[1.3], time=time)
    efficiency = one_mode_efficiency(curvature=lam, time=time)
    np.testing.assert_allclose(ours.speed_limit / time, efficiency, rtol=1e-12)
    # One mode moves on a straight line: length is chord.
    np.testing.assert_allclose(ours.length**2, ours.displacement_squared, rtol=1e-10)
    assert one_mode_efficiency(curvature=lam, time=0.0) == 1
    assert one_mode_efficiency(curvature=0.0, time=3.0) == 1
    assert one_mode_efficiency(curvature=1.0, time=1e6) == pytest.approx(2e-6)


def test_isometry_and_dead_modes():
    # Equal eigenvalues move along one straight line, however many they are.
    ours = kernel_flow(eigenvalues=np.full(6, 0.4), residues=np.arange(6.0), time=2.0)
    assert ours.length**2 == pytest.approx(float(ours.displacement_squared), rel=1e-12)
    assert ours.speed_limit / 2.0 == pytest.approx(
        float(one_mode_efficiency(curvature=0.4, time=2.0)), rel=1e-12
    )
    dead = kernel_flow(eigenvalues=[0.4, 0.0], residues=[1.0, 5.0], time=2.0)
    alive = kernel_flow(eigenvalues=[0.4], residues=[1.0], time=2.0)
    assert dead.loss_drop == alive.loss_drop
    assert dead.displacement_squared == alive.displacement_squared
    nothing = kernel_flow(eigenvalues=[0.0], residues=[1.0], time=2.0)
    assert np.isnan(nothing.speed_limit)


def test_late_training_reaches_the_converged_limit():
    _, _, _, eigenvalues, residues = linear_model(seed=2)
    late = kernel_flow(eigenvalues=eigenvalues, residues=residues, time=100 / eigenvalues[0])
    limit = converged_speed_limit(eigenvalues=eigenvalues, residues=residues)
    assert late.speed_limit == pytest.approx(float(limit), rel=1e-10)


def test_stiff_spectra_keep_their_length():
    # Nine decades: the fast mode is over before the slow one starts, a right angle of two legs.
    ours = kernel_flow(eigenvalues=[1e9, 1.0], residues=[1e5, 2.0], time=50.0)
    legs = 1e5 / np.sqrt(1e9) + 2.0
    assert ours.length == pytest.approx(legs, rel=1e-6)


@pytest.mark.parametrize(("spectrum", "residue"), [(1.0, 1.5), (2.0, 3.0), (1.5, 1.2)])
def test_power_law_spectra_summed_mode_by_mode(spectrum, residue):
    time = np.array([100.0, 1000.0])
    ours = power_law_flow_loss(spectrum=spectrum, residue=residue, time=time)
    k = np.arange(1.0, 400_001)
    left = 0.5 * k**-residue * np.exp(-2 * time[:, None] * k**-spectrum)
    # Beyond the last mode: some terms of exp(-2 t k^-a), each a tail of Hurwitz' zeta.
    tail = sum(
        0.5
        * (-2 * time) ** j
        / np.prod(np.arange(1, j + 1))
        * zeta(residue + j * spectrum, k[-1] + 1)
        for j in range(4)
    )
    np.testing.assert_allclose(left.sum(-1) + tail, ours, rtol=1e-5)
