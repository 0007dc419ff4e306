"""Langevin training of high-dimensional linear regression: its speed limit, from Marchenko-Pastur.

n samples, d parameters, gamma = d/n fixed while both grow. Features Z are independent with
variance 1, labels y = Z w* without noise, |w*|^2 = alpha d. Training is Langevin dynamics in
V = |y - Z w|^2/(2n) + (c gamma/2) |w|^2 at temperature gamma/beta, c = lambda/beta, from the
prior N(0, 1/lambda) to equilibrium, the posterior of precision lambda + beta s/gamma along an
eigenvector of Z'Z/n with eigenvalue s. (In features Z/sqrt(d) the loss is |y - f|^2/2 at inverse
temperature beta; the scale chosen here makes time the learning time of the mean loss.)

Source: Seroussi, Alemi, Helias and Ringel, *Speed limits for deep learning*, arXiv 2307.14653,
appendix C and eqs. (8)-(11), [S]. Its slips are named where they occur, and together in
theory.md#misprints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from capacity.closed_forms._inputs import Array, non_negative, number, positive, together
from capacity.closed_forms._numerics import x_minus_log1p

MANY_SAMPLES_SPEED_LIMIT = 2.0
"""T_SL for gamma -> 0, whatever alpha, beta and lambda. [S] (10)/(83) prints 2 lambda alpha."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_PANELS = 50


@dataclass(frozen=True, kw_only=True, eq=False)
class RegressionCost:
    """Cost of training a regression to equilibrium; sums over modes are per parameter.

    Attributes:
        w2_squared: W2^2/d between prior and posterior.
        dissipation: Sigma/d = (F_0 - F_T)/d.
        loss_start: E|y - Z w|^2/(2 d n) of the prior, the mean loss at the start per parameter.
            This is our reading of [S] (77), which prints 1/(2 d^2 n) before the norm: that would
            vanish as d grows and break Sigma/d = E[L_0]/d + (gamma/beta) (ln Z_T - ln Z_0)/d.
        speed_limit: T_SL = W2^2/Sigma, in learning time.
    """

    w2_squared: Array
    dissipation: Array
    loss_start: Array
    speed_limit: Array


def marchenko_pastur_mean(function: Callable[[Array], Array], *, gamma: float) -> float:
    """Mean of a function over the spectrum of Z'Z/n as n and d grow with d/n = gamma.

    rho(s) = sqrt((s_+ - s)(s - s_-))/(2 pi gamma s) between s_-+ = (1 -+ sqrt gamma)^2, and for
    gamma > 1 the share 1 - 1/gamma at s = 0. (Marchenko and Pastur, 1967.)

    Args:
        function: Vectorised function of the eigenvalue s >= 0.
        gamma: Parameters per sample, above 0.

    Returns:
        The mean.
    """
    ratio = number("gamma", gamma)
    s, weight = _spectrum(np.asarray(ratio))
    mean = float((weight * function(s)).sum())
    empty = max(0.0, 1 - 1 / ratio)
    return mean + (empty * float(function(np.zeros(1))[0]) if empty else 0.0)


def regression_cost(
    *, alpha: ArrayLike, beta: ArrayLike, gamma: ArrayLike, lam: ArrayLike
) -> RegressionCost:
    """Cost and speed limit of Langevin training to equilibrium ([S] appendix C, corrected).

    With c = lambda/beta and integrals over the Marchenko-Pastur law,
    W2^2/d = alpha int s^2/(c gamma + s)^2 + int (lambda^-1/2 - (lambda + beta s/gamma)^-1/2)^2,
    Sigma/d = 1/(2 lambda) - (gamma/(2 beta)) int log(1 + beta s/(gamma lambda))
              + (alpha/2) int s^2/(c gamma + s).
    Slip of the source: (79) omits the last term of Sigma and so overstates T_SL (2.53 for 1.11 at
    alpha = lambda = 1, beta = 2, gamma = 1/2). Its limits: (8)/(80), beta -> infinity, is
    2 min(1, 1/gamma), not 2 (1 + alpha lambda)/int s; (10)/(83), gamma -> 0, is 2, not
    2 lambda alpha; and the two limits do commute, against (11). (Which limit is whose is our
    reading; the values are the form's own.)

    Args:
        alpha: Signal |w*|^2/d, 0 or more.
        beta: Inverse temperature, above 0.
        gamma: Parameters per sample d/n, above 0.
        lam: Precision lambda of the prior, above 0 (the weight decay).

    Returns:
        The cost per parameter.
    """
    ratio = positive("gamma", gamma)
    s, weight = _spectrum(ratio)
    return _cost(s, weight, alpha=alpha, beta=beta, gamma=ratio, lam=lam)


def sampled_regression_cost(
    *,
    eigenvalues: ArrayLike,
    alpha: ArrayLike,
    beta: ArrayLike,
    gamma: ArrayLike,
    lam: ArrayLike,
) -> RegressionCost:
    """Cost and speed limit for one actual data set in place of the Marchenko-Pastur law.

    As `regression_cost`, with the mean over eigenvalues for the integral; exact at finite d and n
    for a teacher w* whose signal is spread evenly over the eigenvectors.

    Args:
        eigenvalues: All d eigenvalues of Z'Z/n, zeros included, along the last axis.
        alpha: Signal |w*|^2/d, 0 or more.
        beta: Inverse temperature, above 0.
        gamma: Parameters per sample d/n, above 0.
        lam: Precision lambda of the prior, above 0.

    Returns:
        The cost per parameter.
    """
    s = np.atleast_1d(non_negative("eigenvalues", eigenvalues))
    weight = np.full_like(s, 1 / s.shape[-1])
    return _cost(s, weight, alpha=alpha, beta=beta, gamma=positive("gamma", gamma), lam=lam)


def zero_temperature_speed_limit(*, gamma: ArrayLike) -> Array:
    """T_SL = 2 min(1, 1/gamma) for beta -> infinity, whatever alpha and lambda.

    min(1, 1/gamma) is the share of directions that the data see. [S] (8)/(80) prints
    2 (1 + alpha lambda)/int s instead.

    Args:
        gamma: Parameters per sample d/n, above 0.

    Returns:
        The limit of `regression_cost(...).speed_limit`.
    """
    return 2 * np.minimum(1.0, 1 / positive("gamma", gamma))


def _spectrum(gamma: Array) -> tuple[Array, Array]:
    """Nodes and weights of the Marchenko-Pastur law, without its share at 0, on a last axis."""
    # s = 1 + gamma - 2 sqrt(gamma) cos(phi), phi in (0, pi), smooths both edges. The lower edge is
    # close to 0 when gamma is close to 1, and the integrands turn there at s = c gamma: panels that
    # halve towards phi = 0 resolve both at any scale.
    edges = np.pi * np.concatenate([[0.0], 2.0 ** np.arange(1 - _PANELS, 1)])
    half = 0.5 * (edges[1:] - edges[:-1])
    phi = (edges[:-1, None] + half[:, None] * (1 + _NODES)).ravel()
    weight = (half[:, None] * _WEIGHTS).ravel()
    root = np.sqrt(gamma)[..., None]
    s = (1 - root) ** 2 + 4 * root * np.sin(phi / 2) ** 2
    return s, 2 / np.pi * np.sin(phi) ** 2 / s * weight


def _cost(
    s: Array, weight: Array, *, alpha: ArrayLike, beta: ArrayLike, gamma: Array, lam: ArrayLike
) -> RegressionCost:
    signal, b, ratio, precision = together(
        alpha=non_negative("alpha", alpha),
        beta=positive("beta", beta),
        gamma=gamma,
        lam=positive("lam", lam),
    )
    decay = (precision / b * ratio)[..., None]
    # x = beta s/(gamma lambda), the information of the data over that of the prior.
    x = s / decay
    shrink = 0.5 * (weight * x_minus_log1p(x)).sum(-1) * ratio / b
    narrow = (weight * np.expm1(-0.5 * np.log1p(x)) ** 2).sum(-1) / precision
    moved = signal * (weight * (s / (decay + s)) ** 2).sum(-1)
    w2_squared = moved + narrow
    dissipation = shrink + 0.5 * signal * (weight * s**2 / (decay + s)).sum(-1)
    return RegressionCost(
        w2_squared=w2_squared,
        dissipation=dissipation,
        loss_start=0.5 * (signal + 1 / precision) * (weight * s).sum(-1),
        speed_limit=w2_squared / dissipation,
    )
