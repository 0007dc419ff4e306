"""Langevin dynamics in a quadratic potential: every thermodynamic quantity of the relaxation.

d theta = -a (theta - m) dt + sqrt(2 tau) dW, the process of Ornstein and Uhlenbeck, started from a
Gaussian. It is the one ensemble whose entropy production, free energy and Wasserstein distance are
all known at every time, and hence the yardstick for their estimators
(theory.md#ornstein-uhlenbeck).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from capacity.closed_forms._inputs import Array, finite, non_negative, positive, together
from capacity.closed_forms._numerics import grown, x_minus_log1p


@dataclass(frozen=True, kw_only=True, eq=False)
class Relaxation:
    """One mode, or an array of modes, some time into its relaxation.

    Add the entries of independent modes for a system of many (all but `mean`, `variance` and
    `jacobian` are additive). Losses, free energies and dissipation share the unit of the potential;
    time is learning time.

    Attributes:
        mean: Mean of theta.
        variance: Variance of theta.
        sigma: Rate of dissipation E|v|^2 = -dF/dt at this time, v the velocity of the density.
        dissipation: Sigma = integral of `sigma` from 0 = F_0 - F_t. Divide by tau for the physical
            entropy production in nats.
        free_energy_start: F_0 = E[V] - tau H of the initial law.
        free_energy: F_t.
        entropy: Differential entropy H_t in nats.
        w2_squared: Squared Wasserstein-2 distance from the initial law.
        displacement_squared: E|theta_t - theta_0|^2 along the noisy paths; never below
            `w2_squared`.
        jacobian: d theta_t / d theta_0 at fixed noise.
    """

    mean: Array
    variance: Array
    sigma: Array
    dissipation: Array
    free_energy_start: Array
    free_energy: Array
    entropy: Array
    w2_squared: Array
    displacement_squared: Array
    jacobian: Array


def ornstein_uhlenbeck(
    *,
    rate: ArrayLike,
    target: ArrayLike,
    temperature: ArrayLike,
    mean: ArrayLike,
    variance: ArrayLike,
    time: ArrayLike,
) -> Relaxation:
    """Relax Gaussians in V = a/2 (theta - m)^2 at temperature tau = 1/beta.

    mu_t = m + e^{-at} (mu_0 - m),  s_t = tau/a + e^{-2at} (s_0 - tau/a),
    sigma = a^2 (mu_t - m)^2 + (tau/s_t - a)^2 s_t,  Sigma = F_0 - F_t,
    W2^2 = (mu_t - mu_0)^2 + (sqrt s_t - sqrt s_0)^2,
    E|theta_t - theta_0|^2 = (mu_t - mu_0)^2 + (1 - e^{-at})^2 s_0 + (tau/a) (1 - e^{-2at}).

    The Epistemic Speed Limit is T Sigma >= W2^2 with W2^2 *squared* and with the time T. (Some
    summaries of arXiv 2602.07950 leave T out, which is right at T = 1 only; in Seroussi et al.,
    arXiv 2307.14653, the calligraphic W2 stands for the square. That paper says before its eq. 7
    that T R/beta, here T Sigma, equals the cost of the optimal plan: a relaxation always pays
    more; equality holds on the geodesic only.)

    Args:
        rate: Curvature a of the potential; 0 is free diffusion, below 0 a hilltop.
        target: Position m of the potential's extremum.
        temperature: tau in the unit of the potential; 0 is gradient flow, below 0 is refused.
        mean: Initial mean mu_0.
        variance: Initial variance s_0, above 0.
        time: Learning time t, 0 or more.

    Returns:
        The relaxation, each field of the arguments' common shape.
    """
    a, m, tau, mu0, s0, t = together(
        rate=finite("rate", rate),
        target=finite("target", target),
        temperature=non_negative("temperature", temperature),
        mean=finite("mean", mean),
        variance=positive("variance", variance),
        time=non_negative("time", time),
    )
    decay = np.exp(-a * t)
    lost = a * grown(a, t)  # 1 - e^{-at}
    moved = -lost * (mu0 - m)
    mu = m + decay * (mu0 - m)
    noise = 2 * tau * grown(2 * a, t)  # (tau/a)(1 - e^{-2at}), also at a = 0
    s = decay**2 * s0 + noise
    change = 2 * (tau - a * s0) * grown(2 * a, t)  # s_t - s_0
    # F_0 - F_t, written so that no two large numbers are subtracted near the start or the end.
    dissipation = (
        a**2 * grown(2 * a, t) * (mu0 - m) ** 2
        + 0.5 * change * (tau / s0 - a)
        - 0.5 * tau * x_minus_log1p(change / s0)
    )
    return Relaxation(
        mean=mu,
        variance=s,
        sigma=a**2 * (mu - m) ** 2 + (tau / s - a) ** 2 * s,
        dissipation=dissipation,
        free_energy_start=0.5 * a * ((mu0 - m) ** 2 + s0) - tau * gaussian_entropy(variance=s0),
        free_energy=0.5 * a * ((mu - m) ** 2 + s) - tau * gaussian_entropy(variance=s),
        entropy=gaussian_entropy(variance=s),
        w2_squared=moved**2 + (change / (np.sqrt(s) + np.sqrt(s0))) ** 2,
        displacement_squared=moved**2 + lost**2 * s0 + noise,
        jacobian=decay,
    )


def gibbs_divergence(
    *,
    rate: ArrayLike,
    target: ArrayLike,
    temperature: ArrayLike,
    mean: ArrayLike,
    variance: ArrayLike,
) -> Array:
    """Divergence KL(N(mean, variance) || Gibbs law) in V = a/2 (theta - m)^2, in nats per mode.

    The Gibbs law is N(m, tau/a), and the divergence (F - F_min)/tau: how far a relaxation has to
    go yet. It falls by Sigma/tau.

    Args:
        rate: Curvature a, above 0.
        target: m.
        temperature: tau, above 0.
        mean: Mean of the law.
        variance: Its variance, above 0.

    Returns:
        The divergence, additive over independent modes.
    """
    a, m, tau, mu, s = together(
        rate=positive("rate", rate),
        target=finite("target", target),
        temperature=positive("temperature", temperature),
        mean=finite("mean", mean),
        variance=positive("variance", variance),
    )
    return 0.5 * x_minus_log1p(a * s / tau - 1) + 0.5 * a * (mu - m) ** 2 / tau


def gaussian_entropy(*, variance: ArrayLike) -> Array:
    """Differential entropy 1/2 ln(2 pi e s) of a Gaussian, in nats per mode.

    Args:
        variance: Variance s, above 0.

    Returns:
        The entropy.
    """
    return 0.5 * np.log(2 * np.pi * np.e * positive("variance", variance))
