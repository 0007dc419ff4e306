"""Fisher-Rao geometry of von Mises laws, the Gaussians of the circle.

Density exp(kappa cos(x - mu))/(2 pi I0(kappa)), A = I1/I0. In (kappa, mu) the metric is that of a
surface of revolution, g_kk = A' = 1 - A/kappa - A^2 and g_mumu = kappa A; kappa = 0, the uniform
law, is its tip, an ordinary point. Its curvature is *not* constant: 0 at the tip, about -0.51
around kappa = 5, -1/2 at infinity, where the laws become Gaussian. (Equations: Caraffa,
arXiv 2601.17330, [FR], theory.md#fisher-rao; curvature and distance follow from the metric.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import i0e, i1e

from capacity.closed_forms._inputs import Array, finite, non_negative, together

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)
_NEAR_TIP = 0.5
_FAR = 30.0


@dataclass(frozen=True, kw_only=True, eq=False)
class VonMises:
    """A von Mises law's geometry.

    Attributes:
        resultant: A = I1/I0, the mean of cos(x - mu).
        metric_mean: g_mumu = kappa A, the Fisher information on mu.
        metric_concentration: g_kk = 1 - A/kappa - A^2, the Fisher information on kappa.
        entropy: H = ln(2 pi I0) - kappa A, in nats.
        curvature: Gaussian curvature of the Fisher-Rao surface at this kappa.
    """

    resultant: Array
    metric_mean: Array
    metric_concentration: Array
    entropy: Array
    curvature: Array


def von_mises(*, concentration: ArrayLike) -> VonMises:
    """Resultant, metric, entropy and curvature of von Mises laws.

    Args:
        concentration: kappa, 0 (uniform) or more.

    Returns:
        The geometry at each kappa.
    """
    kappa = non_negative("concentration", concentration)
    resultant, slope = _resultant(kappa)
    return VonMises(
        resultant=resultant,
        metric_mean=kappa * resultant,
        metric_concentration=slope,
        entropy=np.log(2 * np.pi * i0e(kappa)) + kappa * (1 - resultant),
        curvature=_curvature(kappa),
    )


def von_mises_distance(
    *,
    mean_start: ArrayLike,
    concentration_start: ArrayLike,
    mean_end: ArrayLike,
    concentration_end: ArrayLike,
) -> Array:
    """Fisher-Rao distance of two von Mises laws.

    At equal means the integral of sqrt(g_kk) over kappa. Otherwise the geodesic is found from
    Clairaut's law, g_mumu dmu/ds = constant: the kappa where it turns is solved for so that the
    angle comes out right.

    Args:
        mean_start: Direction mu of one, in radians.
        concentration_start: Its kappa, 0 or more.
        mean_end: Direction of the other, in radians.
        concentration_end: Its kappa, 0 or more.

    Returns:
        The distance, to about ten digits.
    """
    mu0, kappa0, mu1, kappa1 = together(
        mean_start=finite("mean_start", mean_start),
        concentration_start=non_negative("concentration_start", concentration_start),
        mean_end=finite("mean_end", mean_end),
        concentration_end=non_negative("concentration_end", concentration_end),
    )
    angle = np.abs(np.arctan2(np.sin(mu1 - mu0), np.cos(mu1 - mu0)))
    pairs = zip(angle.flat, kappa0.flat, kappa1.flat, strict=True)
    return np.array([_distance(a, min(k, l), max(k, l)) for a, k, l in pairs]).reshape(angle.shape)


def _resultant(kappa: Array) -> tuple[Array, Array]:
    """A and its slope A' = 1 - A/kappa - A^2; far out from a series, where the formula cancels."""
    safe = np.where(kappa > 0, kappa, 1.0)
    near = np.minimum(safe, _FAR)
    value = i1e(safe) / i0e(safe)
    part = i1e(near) / i0e(near)
    slope = 1 - part / near - part**2
    far = np.maximum(safe, _FAR)
    power = np.arange(len(_ASYMPTOTIC))
    series = (-power * _ASYMPTOTIC * far[..., None] ** -(power + 1.0)).sum(-1)
    slope = np.where(kappa > _FAR, series, np.where(kappa > 0, slope, 0.5))
    return np.where(kappa > 0, value, 0.0), slope


def _asymptotic(terms: int) -> Array:
    """Coefficients of A = sum a_n kappa^-n, from A' = 1 - A/kappa - A^2."""
    a = np.zeros(terms)
    a[0] = 1.0
    for n in range(1, terms):
        a[n] = 0.5 * ((n - 2) * a[n - 1] - a[1:n] @ a[n - 1 : 0 : -1])
    return a


def _tip(terms: int) -> Array:
    """Coefficients of A = kappa sum b_j kappa^(2j), from the same equation."""
    b = np.zeros(terms)
    b[0] = 0.5
    for j in range(1, terms):
        b[j] = -(b[:j] @ b[j - 1 :: -1][:j]) / (2 * j + 2)
    return b


_ASYMPTOTIC = _asymptotic(24)
_TIP = np.polynomial.Polynomial(_tip(16))


def _curvature(kappa: Array) -> Array:
    """Curvature of ds^2 = G dkappa^2 + e dmu^2, e = kappa A, G = A'."""
    # Near the tip all is a series in x = kappa^2: A = kappa a(x), e = x a, and the poles cancel.
    x = np.minimum(kappa, _NEAR_TIP) ** 2
    a, a1, a2 = _TIP(x), _TIP.deriv(1)(x), _TIP.deriv(2)(x)
    p, p1 = a + x * a1, 2 * a1 + x * a2
    g, g1 = a + 2 * x * a1, 3 * a1 + 2 * x * a2
    tip = -((2 * a * p1 - p * a1) / (a**2 * g) - p * g1 / (a * g**2))

    k = np.maximum(kappa, _NEAR_TIP)
    value, slope = _resultant(k)
    bend = _bend(k, value, slope)
    e, e1, e2 = k * value, value + k * slope, 2 * slope + k * bend
    away = -(e2 / (2 * e * slope) - e1**2 / (4 * e**2 * slope) - e1 * bend / (4 * e * slope**2))
    return np.where(kappa < _NEAR_TIP, tip, away)


def _bend(kappa: Array, value: Array, slope: Array) -> Array:
    """A''."""
    far = np.maximum(kappa, _FAR)
    power = np.arange(len(_ASYMPTOTIC))
    series = (power * (power + 1) * _ASYMPTOTIC * far[..., None] ** -(power + 2.0)).sum(-1)
    direct = -slope / kappa + value / kappa**2 - 2 * value * slope
    return np.where(kappa > _FAR, series, direct)


def _distance(angle: float, inner: float, outer: float) -> float:
    """Distance between kappa = inner <= outer at an angle in [0, pi]."""
    if angle == 0 or inner == 0:
        return _radius(outer) - _radius(inner)

    # One number w names the geodesic, whose turning point is at kappa = inner (1 - w^2): with w < 0
    # it runs outwards all the way, with w > 0 inwards first. The angle grows with w from 0 to pi.
    def missing(w: float) -> float:
        return _swing(w, inner, outer)[0] - angle

    last = 1 - 1e-12
    if missing(last) < 0:
        return _radius(outer) + _radius(inner)  # straight through the tip
    if missing(-last) > 0:
        return _radius(outer) - _radius(inner)
    return _swing(brentq(missing, -last, last, xtol=1e-300), inner, outer)[1]


def _radius(kappa: float) -> float:
    """Length of sqrt(g_kk) from the tip to kappa, on panels that double."""
    doubling = 2.0 ** np.arange(np.ceil(np.log2(max(kappa, 1.0))))
    edges = np.concatenate([[0.0], doubling[doubling < kappa], [kappa]])
    half = 0.5 * np.diff(edges)[:, None]
    slope = _resultant(edges[:-1, None] + half * (1 + _NODES))[1]
    return float((half * np.sqrt(slope) * _WEIGHTS).sum())


def _swing(w: float, inner: float, outer: float) -> tuple[float, float]:
    """Angle and length of the geodesic named by w."""
    ahead = inner * w**2
    least = inner - ahead
    near = _from_turn(least, ahead)
    far = _from_turn(least, ahead + (outer - inner))
    sign = np.sign(w)
    return far[0] + sign * near[0], far[1] + sign * near[1]


def _from_turn(least: float, ahead: float) -> tuple[float, float]:
    """Angle and length from the turning point at kappa = least, c^2 = g_mumu, out by `ahead`."""
    if ahead == 0:
        return 0.0, 0.0
    # kappa = least + u^2 takes away the root singularity of dmu = c ds/g_mumu and
    # ds = sqrt(g_kk g_mumu/(g_mumu - c^2)) dkappa; panels in u double.
    end = np.sqrt(ahead)
    start = min(end, 0.25 * np.sqrt(least))
    count = int(np.ceil(np.log2(end / start)))
    edges = np.concatenate([[0.0], np.geomspace(start, end, count + 1)])
    half = 0.5 * np.diff(edges)[:, None]
    u = edges[:-1, None] + half * (1 + _NODES)
    weight = half * _WEIGHTS
    kappa = least + u**2
    value, slope = _resultant(kappa)
    squared = kappa * value
    constant = least * _resultant(np.asarray(least))[0]
    speed = 2 * np.sqrt(slope * squared / _rise(least, u**2))
    return float((weight * np.sqrt(constant) / squared * speed).sum()), float(
        (weight * speed).sum()
    )


def _rise(least: float, ahead: Array) -> Array:
    """(g_mumu(least + ahead) - g_mumu(least))/ahead; nearby the mean slope A + kappa A'."""
    close = 0.5 * (1 + least)
    middle = least + 0.5 * np.minimum(ahead, close)[..., None] * (1 + _NODES)
    value, slope = _resultant(middle)
    mean = 0.5 * (value + middle * slope) @ _WEIGHTS
    ends = [k * _resultant(k)[0] for k in (least + ahead, np.asarray(least))]
    return np.where(ahead <= close, mean, (ends[0] - ends[1]) / ahead)
