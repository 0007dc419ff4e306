"""The cheapest way from one Gaussian to another: the Wasserstein geodesic and how to drive it.

Along the geodesic the mean and the standard deviation are linear in time, every particle keeps its
speed, and the Epistemic Speed Limit holds with equality, T Sigma = W2^2. A fixed potential never
moves a Gaussian that way; a Langevin process does when its quadratic potential is moved and
stiffened by the protocol given here, which then does work. Everything is per mode (commuting
covariances); add the modes. (Equations: optimal transport between Gaussians, and the continuity
equation solved for the potential that makes the transport; theory.md#geodesic.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from capacity.closed_forms._inputs import Array, finite, non_negative, positive, together


@dataclass(frozen=True, kw_only=True, eq=False)
class GeodesicPoint:
    """A moment of the geodesic and the potential V = k/2 (x - c)^2 that drives it there.

    Attributes:
        mean: mu.
        variance: s.
        mean_rate: d mu/dt, constant.
        spread_rate: b = d ln sqrt(s)/dt.
        stiffness: k = tau/s - b; below 0 where the law must widen faster than noise alone does it.
        centre: c = mu + (d mu/dt)/k; infinite where k = 0, for V is a straight slope there
            (-(d mu/dt) (x - mu), which is V up to a constant at every k, with k/2 (x - mu)^2).
    """

    mean: Array
    variance: Array
    mean_rate: Array
    spread_rate: Array
    stiffness: Array
    centre: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class GeodesicCost:
    """The bill of the whole geodesic, per mode.

    Attributes:
        w2_squared: Squared Wasserstein-2 distance of the ends.
        dissipation: Sigma = W2^2/T, the least that T allows.
        free_energy_change: F_T - F_0, each in its own potential (V = 0 at the mean).
        work: What moving the potential costs, the integral of E[dV/dt]; W - dF = Sigma.
    """

    w2_squared: Array
    dissipation: Array
    free_energy_change: Array
    work: Array


def gaussian_w2_squared(
    *,
    mean_start: ArrayLike,
    variance_start: ArrayLike,
    mean_end: ArrayLike,
    variance_end: ArrayLike,
) -> Array:
    """Squared Wasserstein-2 distance (d mu)^2 + (d sqrt s)^2 of two Gaussians, per mode.

    Args:
        mean_start: Mean of one.
        variance_start: Variance of one, 0 (a point) or more.
        mean_end: Mean of the other.
        variance_end: Variance of the other, 0 or more.

    Returns:
        W2^2, additive over independent modes.
    """
    mu0, s0, mu1, s1 = together(
        mean_start=finite("mean_start", mean_start),
        variance_start=non_negative("variance_start", variance_start),
        mean_end=finite("mean_end", mean_end),
        variance_end=non_negative("variance_end", variance_end),
    )
    return (mu1 - mu0) ** 2 + (np.sqrt(s1) - np.sqrt(s0)) ** 2


def geodesic(
    *,
    mean_start: ArrayLike,
    variance_start: ArrayLike,
    mean_end: ArrayLike,
    variance_end: ArrayLike,
    duration: ArrayLike,
    time: ArrayLike,
    temperature: ArrayLike,
) -> GeodesicPoint:
    """Follow the geodesic and its Langevin protocol dx = -V'(x) dt + sqrt(2 tau) dW.

    mu and sqrt(s) are linear in time; V = k/2 (x - c)^2 with k = tau/s - b, c = mu + mu'/k and
    b = (sqrt s)'/sqrt s. At the ends the potential is not the equilibrium one of either law: it
    jumps to c and k at the start and back at the end.

    Args:
        mean_start: Mean at time 0.
        variance_start: Variance at time 0, above 0.
        mean_end: Mean at the end.
        variance_end: Variance at the end, above 0.
        duration: Learning time T of the whole way, above 0.
        time: When to look, from 0 to T.
        temperature: tau of the Langevin noise, 0 or more.

    Returns:
        The law and its potential at `time`.

    Raises:
        ValueError: If an argument is out of its range, or `time` is after `duration`.
    """
    mu0, s0, mu1, s1, length, t, tau = together(
        mean_start=finite("mean_start", mean_start),
        variance_start=positive("variance_start", variance_start),
        mean_end=finite("mean_end", mean_end),
        variance_end=positive("variance_end", variance_end),
        duration=positive("duration", duration),
        time=non_negative("time", time),
        temperature=non_negative("temperature", temperature),
    )
    if np.any(t > length):
        raise ValueError(f"time = {t[t > length].flat[0]:g} must not be after duration")
    part = t / length
    root_rate = (np.sqrt(s1) - np.sqrt(s0)) / length
    mu = (1 - part) * mu0 + part * mu1
    root = (1 - part) * np.sqrt(s0) + part * np.sqrt(s1)
    mu_rate = (mu1 - mu0) / length
    b = root_rate / root
    k = tau / root**2 - b
    # No drift needs no lean of the potential, whatever k; only a drift at k = 0 has no centre.
    with np.errstate(divide="ignore"):
        lean = np.where(mu_rate == 0, 0.0, mu_rate / np.where(mu_rate == 0, 1.0, k))
    return GeodesicPoint(
        mean=mu,
        variance=root**2,
        mean_rate=mu_rate,
        spread_rate=b,
        stiffness=k,
        centre=mu + lean,
    )


def geodesic_cost(
    *,
    mean_start: ArrayLike,
    variance_start: ArrayLike,
    mean_end: ArrayLike,
    variance_end: ArrayLike,
    duration: ArrayLike,
    temperature: ArrayLike,
) -> GeodesicCost:
    """Cost of the whole geodesic: T Sigma = W2^2 and W - dF = Sigma.

    dF = -(d sqrt s)^2/(2T) - tau/2 ln(s_T/s_0) and W = dF + W2^2/T, with the potential's free
    constant chosen so that V = 0 at the mean. Another choice moves W and dF alike. Written as
    Sigma >= W2^2 or W2^2 <= Sigma, without T, the speed limit is wrong unless T = 1.

    Args:
        mean_start: Mean at time 0.
        variance_start: Variance at time 0, above 0.
        mean_end: Mean at the end.
        variance_end: Variance at the end, above 0.
        duration: Learning time T, above 0.
        temperature: tau of the Langevin noise, 0 or more.

    Returns:
        The costs, per mode.
    """
    mu0, s0, mu1, s1, length, tau = together(
        mean_start=finite("mean_start", mean_start),
        variance_start=positive("variance_start", variance_start),
        mean_end=finite("mean_end", mean_end),
        variance_end=positive("variance_end", variance_end),
        duration=positive("duration", duration),
        temperature=non_negative("temperature", temperature),
    )
    spread = (np.sqrt(s1) - np.sqrt(s0)) ** 2
    w2_squared = (mu1 - mu0) ** 2 + spread
    dissipation = w2_squared / length
    change = -0.5 * spread / length - 0.5 * tau * np.log(s1 / s0)
    return GeodesicCost(
        w2_squared=w2_squared,
        dissipation=dissipation,
        free_energy_change=change,
        work=dissipation + change,
    )


def reachable_radius(*, duration: ArrayLike, free_energy_drop: ArrayLike) -> Array:
    """Radius sqrt(T (F_0 - F_1)) of the W2 ball that a dissipation budget can reach in time T.

    From T Sigma >= W2^2. The slides of arXiv 2602.07950 print this ball otherwise; the root and the
    time both belong there. The ball is sharp: a geodesic with Sigma = F_0 - F_1 ends on its rim.

    Args:
        duration: Learning time T, 0 or more.
        free_energy_drop: Budget Sigma = F_0 - F_1, 0 or more. (Where a protocol does work, pass
            F_0 - F_1 + W.)

    Returns:
        The largest W2 that can be travelled, in units of theta.
    """
    length, budget = together(
        duration=non_negative("duration", duration),
        free_energy_drop=non_negative("free_energy_drop", free_energy_drop),
    )
    return np.sqrt(length * budget)
