"""Fisher-Rao geometry of Gaussians: line element, curvature, distance, entropy.

The Fisher information is a Riemannian metric on a family of laws. For Gaussians it is a hyperbolic
half-space whose constant curvature shrinks as 1/P with the number of dimensions. (Equations:
Caraffa, arXiv 2601.17330, [FR]; theory.md#fisher-rao.) Von Mises laws are in `von_mises`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from capacity.closed_forms._inputs import Array, finite, positive, together


def gaussian_line_element(
    *, deviation: ArrayLike, mean_step: ArrayLike, deviation_step: ArrayLike
) -> Array:
    """Squared length (dmu^2 + 2 dsigma^2)/sigma^2 of a small step between Gaussians ([FR]).

    Twice the Kullback-Leibler divergence to second order, in nats.

    Args:
        deviation: Standard deviation sigma, above 0.
        mean_step: Change of the mean, dmu.
        deviation_step: Change of the standard deviation, dsigma.

    Returns:
        ds^2; add it over independent coordinates.
    """
    sigma, moved, widened = together(
        deviation=positive("deviation", deviation),
        mean_step=finite("mean_step", mean_step),
        deviation_step=finite("deviation_step", deviation_step),
    )
    return (moved**2 + 2 * widened**2) / sigma**2


def isotropic_curvature(*, dimensions: ArrayLike = 1) -> Array:
    """Sectional curvature -1/(2P) of isotropic Gaussians in P dimensions; -1/2 for P = 1 ([FR]).

    Args:
        dimensions: P, at least 1.

    Returns:
        The curvature, the same everywhere.
    """
    return -1 / (2 * _dimensions(dimensions))


def gaussian_distance(
    *,
    mean_start: ArrayLike,
    deviation_start: ArrayLike,
    mean_end: ArrayLike,
    deviation_end: ArrayLike,
) -> Array:
    """Fisher-Rao distance of two Gaussians on the line ([FR]).

    sqrt(2) arccosh(1 + ((mu_1 - mu_2)^2/2 + (sigma_1 - sigma_2)^2)/(2 sigma_1 sigma_2)).

    Args:
        mean_start: Mean of one.
        deviation_start: Its standard deviation, above 0.
        mean_end: Mean of the other.
        deviation_end: Its standard deviation, above 0.

    Returns:
        The distance. Squares add over independent coordinates.
    """
    mu0, sigma0, mu1, sigma1 = together(
        mean_start=finite("mean_start", mean_start),
        deviation_start=positive("deviation_start", deviation_start),
        mean_end=finite("mean_end", mean_end),
        deviation_end=positive("deviation_end", deviation_end),
    )
    return _hyperbolic((mu1 - mu0) ** 2, sigma0, sigma1, np.ones(()))


def isotropic_distance(
    *,
    mean_distance: ArrayLike,
    deviation_start: ArrayLike,
    deviation_end: ArrayLike,
    dimensions: ArrayLike,
) -> Array:
    """Fisher-Rao distance of two isotropic Gaussians in P dimensions, within that family ([FR]).

    sqrt(2P) arccosh(1 + (|mu_1 - mu_2|^2/(2P) + (sigma_1 - sigma_2)^2)/(2 sigma_1 sigma_2)).

    Args:
        mean_distance: Euclidean distance |mu_1 - mu_2| of the means.
        deviation_start: Standard deviation of one per coordinate, above 0.
        deviation_end: Standard deviation of the other, above 0.
        dimensions: P, at least 1.

    Returns:
        The distance.
    """
    moved, sigma0, sigma1, size = together(
        mean_distance=finite("mean_distance", mean_distance),
        deviation_start=positive("deviation_start", deviation_start),
        deviation_end=positive("deviation_end", deviation_end),
        dimensions=_dimensions(dimensions),
    )
    return _hyperbolic(moved**2, sigma0, sigma1, size)


def isotropic_entropy(*, deviation: ArrayLike, dimensions: ArrayLike = 1) -> Array:
    """Entropy P/2 ln(2 pi e sigma^2) of an isotropic Gaussian, in nats.

    Args:
        deviation: Standard deviation per coordinate, above 0.
        dimensions: P, at least 1.

    Returns:
        The differential entropy.
    """
    sigma, size = together(
        deviation=positive("deviation", deviation), dimensions=_dimensions(dimensions)
    )
    return size * (0.5 * np.log(2 * np.pi * np.e) + np.log(sigma))


def _hyperbolic(moved: Array, sigma0: Array, sigma1: Array, size: Array) -> Array:
    ratio = (moved / (2 * size) + (sigma1 - sigma0) ** 2) / (2 * sigma0 * sigma1)
    # arccosh(1 + r) = 2 arsinh(sqrt(r/2)) keeps its digits for laws that nearly coincide.
    return np.sqrt(2 * size) * 2 * np.arcsinh(np.sqrt(0.5 * ratio))


def _dimensions(value: ArrayLike) -> Array:
    size = positive("dimensions", value)
    if np.any(size % 1 != 0):
        raise ValueError(f"dimensions = {size[size % 1 != 0].flat[0]:g} must be a whole number")
    return size
