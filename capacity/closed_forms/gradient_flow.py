"""Gradient flow of linear models: displacement, loss drop, length and speed limit, mode by mode.

In the NTK regime (constant kernel Theta with eigenvalues lambda, residue Delta = f_0 - y in its
eigenbasis, loss L = 1/2 |f - y|^2) the outputs relax as Delta e^{-lambda t}, and the parameters
move by Delta/sqrt(lambda) (1 - e^{-lambda t}) along a direction of their own. [S] is Seroussi,
Alemi, Helias and Ringel, *Speed limits for deep learning*, arXiv 2307.14653
(theory.md#kernel-regime).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gamma as gamma_function
from scipy.special import gammainc

from capacity.closed_forms._inputs import Array, finite, non_negative, positive, together
from capacity.closed_forms._numerics import grown

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)


@dataclass(frozen=True, kw_only=True, eq=False)
class KernelFlow:
    """Gradient flow in the NTK regime up to a learning time.

    Attributes:
        displacement_squared: |theta_t - theta_0|^2, for a single start W2^2.
        loss_drop: L(0) - L(t) = Sigma, the dissipation.
        length: Curve length of theta; never below the root of `displacement_squared`.
        speed_limit: T_SL = |theta_t - theta_0|^2/Sigma, the least time for this displacement at
            this dissipation; the inefficiency is t/T_SL. NaN where nothing moves.
    """

    displacement_squared: Array
    loss_drop: Array
    length: Array
    speed_limit: Array


def one_mode_efficiency(*, curvature: ArrayLike, time: ArrayLike) -> Array:
    """W2^2/(T Sigma) = tanh(x/2)/(x/2), x = lambda T, of gradient flow along one mode.

    Starts at 1 (a mode that has hardly moved is as good as a geodesic) and falls as 2/x.

    Args:
        curvature: Curvature lambda of the loss along the mode, 0 or more.
        time: Learning time T, 0 or more.

    Returns:
        The efficiency, in (0, 1]; its inverse is the inefficiency T/T_SL.
    """
    rate, t = together(
        curvature=non_negative("curvature", curvature), time=non_negative("time", time)
    )
    half = 0.5 * rate * t
    return np.where(half > 0, np.tanh(half) / np.where(half > 0, half, 1.0), 1.0)


def kernel_flow(*, eigenvalues: ArrayLike, residues: ArrayLike, time: ArrayLike) -> KernelFlow:
    """Sum the modes of gradient flow with a constant kernel ([S] 12-16, 54-56, 66).

    |d theta|^2 = sum Delta^2/lambda (1 - e^{-lambda t})^2,
    Sigma = L_0 - L_t = 1/2 sum Delta^2 (1 - e^{-2 lambda t}),
    length = integral of sqrt(sum lambda Delta^2 e^{-2 lambda s}) ds.
    Slip of the source: its (13) and (14) lack the 1/2 of Sigma, so that its T_SL is half of the
    true one and an efficient flow looks half as efficient as it is.

    Args:
        eigenvalues: Kernel eigenvalues lambda, 0 or more; modes along the last axis.
        residues: Residues Delta in the kernel's eigenbasis, same modes.
        time: Learning time t, 0 or more: a number, or an array that broadcasts against the axes
            before the last.

    Returns:
        The sums over modes.
    """
    rates, delta, t = _modes(eigenvalues, residues, time)
    late = t[..., None]
    displacement = (delta**2 * rates * grown(rates, late) ** 2).sum(-1)
    drop = (delta**2 * rates * grown(2 * rates, late)).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        limit = np.where(drop > 0, displacement / drop, np.nan)
    return KernelFlow(
        displacement_squared=displacement,
        loss_drop=drop,
        length=_length(rates, delta, t),
        speed_limit=limit,
    )


def converged_speed_limit(*, eigenvalues: ArrayLike, residues: ArrayLike) -> Array:
    """T_SL of training to convergence, 2 Delta' Theta^-1 Delta/|Delta|^2 ([S] 12-16).

    The limit of `kernel_flow(...).speed_limit` at late times.

    Args:
        eigenvalues: Kernel eigenvalues lambda, above 0; modes along the last axis.
        residues: Residues Delta in the kernel's eigenbasis, not all 0.

    Returns:
        T_SL in learning time.

    Raises:
        ValueError: If an eigenvalue is not above 0, or every residue is 0.
    """
    rates, delta = together(
        eigenvalues=np.atleast_1d(positive("eigenvalues", eigenvalues)),
        residues=np.atleast_1d(finite("residues", residues)),
    )
    total = (delta**2).sum(-1)
    if np.any(total == 0):
        raise ValueError("residues are all 0: nothing is learned; give a residue that is not 0")
    return 2 * (delta**2 / rates).sum(-1) / total


def power_law_flow_loss(*, spectrum: ArrayLike, residue: ArrayLike, time: ArrayLike) -> Array:
    """Loss left at time t for lambda_k = k^-spectrum, Delta_k^2 = k^-residue, k from 1 on.

    1/2 integral of k^-d exp(-2 t k^-a) dk from 1 to infinity =
    (1/(2a)) (2t)^{-(d-1)/a} Gamma_lower((d-1)/a, 2t), a = `spectrum`, d = `residue`.
    The 1/a is the Jacobian from the mode's number to its eigenvalue; [S] (60) and (63a) print
    their integrals over a power-law spectrum without it. The sum over modes k = 1, 2, ... comes to
    the same as the integral at late times, up to terms that vanish faster than any power of t.

    Args:
        spectrum: Decay a of the eigenvalues, above 0.
        residue: Decay d of the squared residues, above 1.
        time: Learning time t, above 0.

    Returns:
        The loss that is left.

    Raises:
        ValueError: If an exponent or the time is out of its range.
    """
    a, d, t = together(
        spectrum=positive("spectrum", spectrum),
        residue=positive("residue", residue),
        time=positive("time", time),
    )
    if np.any(d <= 1):
        raise ValueError(f"residue = {d.min():g} must be above 1, else the loss starts infinite")
    order = (d - 1) / a
    lower = gammainc(order, 2 * t) * gamma_function(order)
    return (2 * t) ** -order * lower / (2 * a)


def _modes(
    eigenvalues: ArrayLike, residues: ArrayLike, time: ArrayLike
) -> tuple[Array, Array, Array]:
    t = non_negative("time", time)
    rates, delta, late = together(
        eigenvalues=np.atleast_1d(non_negative("eigenvalues", eigenvalues)),
        residues=np.atleast_1d(finite("residues", residues)),
        time=t[..., None],
    )
    return rates, delta, late[..., 0]


def _length(rates: Array, delta: Array, t: Array) -> Array:
    """Integrate the speed over panels that double: on each the surviving modes vary little."""
    fastest = float(rates.max(initial=0.0))
    latest = float(t.max(initial=0.0))
    panels = max(1, int(np.ceil(np.log2(max(1.0, fastest * latest)))) + 1)
    edges = np.concatenate([[0.0], 2.0 ** np.arange(1 - panels, 1)])
    length = np.zeros(t.shape)
    for left, right in pairwise(edges):
        at = 0.5 * (left + right) + 0.5 * (right - left) * _NODES
        late = t[..., None] * at
        squared = (rates * delta**2)[..., None, :] * np.exp(
            -2 * rates[..., None, :] * late[..., None]
        )
        speed = np.sqrt(squared.sum(-1))
        length += 0.5 * (right - left) * t * (speed @ _WEIGHTS)
    return length
