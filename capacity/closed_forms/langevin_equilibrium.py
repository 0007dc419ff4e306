"""What it costs to come to equilibrium: R = ln Z_T - ln Z_0 + beta E[L_0].

Langevin training dtheta = -grad V dt + sqrt(2/beta) dW in V = L + U, with a quadratic prior
U = p/2 |theta|^2, started from the prior's own equilibrium e^{-beta U}/Z_0 and left until it has
come to e^{-beta V}/Z_T. R = beta Sigma is the entropy produced, in nats
(theory.md#langevin-equilibrium).

Slips of the source (Seroussi et al., arXiv 2307.14653): the densities are divided by Z, not by
ln Z as printed; and before its (7) "T R/beta" is said to equal the cost of the transport plan, but
it only bounds it from above (T R/beta grows without end while W2^2 stands still).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from capacity.closed_forms._inputs import (
    Array,
    finite,
    non_negative,
    number,
    positive,
    together,
)
from capacity.closed_forms._numerics import x_minus_log1p

_REFINED = 40_001


@dataclass(frozen=True, kw_only=True, eq=False)
class EquilibriumCost:
    """The entropy produced on the way to equilibrium, and what it is made of.

    Attributes:
        log_z_start: ln Z_0, of the prior.
        log_z_end: ln Z_T, of the posterior.
        loss_start: E[L_0], the mean loss of the initial law, in units of L.
        entropy_production: R = ln Z_T - ln Z_0 + beta E[L_0] in nats; never negative. R/beta is the
            dissipation Sigma = F_0 - F_T.
        error: Change of R when the quadrature is made twice as fine; 0 for a closed form.
    """

    log_z_start: Array
    log_z_end: Array
    loss_start: Array
    entropy_production: Array
    error: Array


def quadratic_equilibrium_cost(
    *,
    curvature: ArrayLike,
    target: ArrayLike,
    beta: ArrayLike,
    prior_curvature: ArrayLike = 2.0,
) -> EquilibriumCost:
    """R for L = h/2 (theta - m)^2 and U = p/2 theta^2, per mode ([S] 4, 21).

    ln Z_0 = 1/2 ln(2 pi/(beta p)), ln Z_T = 1/2 ln(2 pi/(beta (h+p))) - beta h p m^2/(2(h+p)),
    E[L_0] = h/2 (m^2 + 1/(beta p)). Additive over modes.

    Args:
        curvature: Curvature h of the loss, 0 or more.
        target: The loss's minimum m.
        beta: Inverse temperature, above 0.
        prior_curvature: Curvature p of the prior, above 0. The source's prior |theta|^2 has p = 2.

    Returns:
        The cost, per mode.
    """
    h, m, b, p = together(
        curvature=non_negative("curvature", curvature),
        target=finite("target", target),
        beta=positive("beta", beta),
        prior_curvature=positive("prior_curvature", prior_curvature),
    )
    start = 0.5 * np.log(2 * np.pi / (b * p))
    end = 0.5 * np.log(2 * np.pi / (b * (h + p))) - 0.5 * b * h * p / (h + p) * m**2
    # 1/2 (x - ln(1+x)) + beta h^2 m^2/(2 (h+p)), x = h/p: the sum of the three terms without loss.
    produced = 0.5 * x_minus_log1p(h / p) + 0.5 * b * h**2 / (h + p) * m**2
    return EquilibriumCost(
        log_z_start=start,
        log_z_end=end,
        loss_start=0.5 * h * (m**2 + 1 / (b * p)),
        entropy_production=produced,
        error=np.zeros_like(produced),
    )


def equilibrium_cost(
    loss: Callable[[Array], Array],
    *,
    beta: float,
    half_width: float,
    prior_curvature: float = 2.0,
) -> EquilibriumCost:
    """R for any loss of one parameter, by quadrature ([S] 4, 21).

    The trapezium rule converges faster than any power here, because the integrands vanish at both
    ends together with all their derivatives; `error` says how well it did.

    Args:
        loss: L as a function of an array of theta; bounded from below.
        beta: Inverse temperature, above 0.
        half_width: Integrate over [-half_width, half_width]; at its ends prior and posterior must
            have vanished.
        prior_curvature: Curvature p of the prior U = p/2 theta^2, above 0.

    Returns:
        The cost.

    Raises:
        ValueError: If a setting is out of its range, the loss is not finite on the interval, or
            `half_width` cuts off the prior or the posterior.
    """
    b = number("beta", beta)
    p = number("prior_curvature", prior_curvature)
    width = number("half_width", half_width)
    theta = np.linspace(-width, width, _REFINED)
    value = np.asarray(loss(theta), dtype=np.float64)
    if value.shape != theta.shape or not np.isfinite(value).all():
        raise ValueError(
            "loss must return one finite number per theta; got shape "
            f"{value.shape} for {theta.shape}, {int((~np.isfinite(value)).sum())} not finite"
        )
    exponents = [-0.5 * b * p * theta**2, -b * (0.5 * p * theta**2 + value)]
    for law, exponent in zip(("prior", "posterior"), exponents, strict=True):
        if max(exponent[0], exponent[-1]) > exponent.max() - 40:
            raise ValueError(
                f"half_width = {width:g} cuts off the {law}: its density there is still "
                f"{np.exp(max(exponent[0], exponent[-1]) - exponent.max()):.1g} of its peak; "
                "take a wider interval"
            )
    fine = _equilibrium(theta, value, exponents, b, 1)
    coarse = _equilibrium(theta, value, exponents, b, 2)
    return EquilibriumCost(
        log_z_start=fine[0],
        log_z_end=fine[1],
        loss_start=fine[2],
        entropy_production=fine[3],
        error=np.abs(fine[3] - coarse[3]),
    )


def _equilibrium(
    theta: Array, value: Array, exponents: list[Array], beta: float, every: int
) -> list[Array]:
    step = (theta[1] - theta[0]) * every
    sums = []
    for exponent in exponents:
        peak = exponent.max()
        sums.append(peak + np.log(step * np.exp(exponent[::every] - peak).sum()))
    start = step * (value * np.exp(exponents[0] - sums[0]))[::every].sum()
    return [np.asarray(x) for x in (*sums, start, sums[1] - sums[0] + beta * start)]
