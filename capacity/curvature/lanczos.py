"""Krylov methods on operators that are only multiplied with: spectra, traces, log-determinants.

Vectors are rows: an operator maps (K, P) to (K, P). Small matrices are float64 throughout, and
every basis is fully reorthogonalised, so there are no ghost copies of converged values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.estimate import Estimate, Status, from_error
from capacity.interruption import check

Operator = Callable[[Tensor], Tensor]
"""Rows (K, P) to rows (K, P)."""

SpectralFunction = Callable[[Tensor], Tensor]
"""Elementwise, on eigenvalues."""


def random_signs(count: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw Rademacher probes.

    Args:
        count: Number of probes K.
        like: A vector (P,) whose dtype and device they take.
        generator: Source, on that device.

    Returns:
        Rows of +1 and -1 (K, P).
    """
    shape = (count, like.numel())
    bits = torch.randint(0, 2, shape, generator=generator, device=generator.device)
    return (2 * bits - 1).to(like)


def quadrature(operator: Operator, probes: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Gauss quadrature of every probe's spectral measure, by Lanczos.

    For a probe z: z'f(A)z is about |z|^2 sum_j w_j f(x_j); exact once `steps` reaches the grade.

    Args:
        operator: A, symmetric.
        probes: Starting vectors (K, P), not zero.
        steps: Lanczos steps m.

    Returns:
        Nodes x (K, m) and weights w (K, m), float64; weights of a row add up to 1.
    """
    count, size = probes.shape
    steps = min(steps, size)
    diagonal = probes.new_zeros(count, steps, dtype=torch.float64)
    off = probes.new_zeros(count, max(steps - 1, 0), dtype=torch.float64)
    basis = probes.new_zeros(count, steps, size)
    basis[:, 0] = probes / probes.norm(dim=-1, keepdim=True)
    scale = torch.zeros(count, dtype=torch.float64, device=probes.device)
    for j in range(steps):
        check()
        q = basis[:, j]
        image = operator(q)
        diagonal[:, j] = (image.double() * q.double()).sum(-1)
        scale = torch.maximum(scale, image.double().norm(dim=-1))
        if j + 1 == steps:
            break
        known = basis[:, : j + 1]
        for _ in range(2):
            image = image - torch.einsum(
                "kj,kjp->kp", torch.einsum("kjp,kp->kj", known, image), known
            )
        norm = image.double().norm(dim=-1)
        # Where the Krylov space is exhausted the next vector is zero: its node has weight 0.
        alive = norm > 1e2 * torch.finfo(probes.dtype).eps * scale
        off[:, j] = torch.where(alive, norm, torch.zeros_like(norm))
        inverse = torch.where(alive, 1 / norm.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
        basis[:, j + 1] = image * inverse[:, None].to(image.dtype)
    small = torch.diag_embed(diagonal) + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    if not bool(torch.isfinite(small).all()):
        lost = torch.full_like(diagonal, torch.nan)
        return lost, lost
    nodes, vectors = torch.linalg.eigh(small)
    return nodes, vectors[:, 0].square()


def spectral_sums(
    operator: Operator,
    like: Tensor,
    functions: Sequence[SpectralFunction],
    *,
    probes: int,
    steps: int,
    generator: torch.Generator,
) -> list[Estimate]:
    """Estimate tr f(A) for several f from the same products (stochastic Lanczos quadrature).

    Args:
        operator: A, symmetric.
        like: A vector (P,) whose size, dtype and device the probes take.
        functions: The functions f.
        probes: Number of Rademacher probes, at least 2.
        steps: Lanczos steps per probe.
        generator: Source of the probes.

    Returns:
        One estimate per function; the standard error is over probes (the quadrature's own error,
        which falls geometrically with `steps`, is not in it). `cost` counts operator products.
    """
    z = random_signs(probes, like, generator)
    nodes, weights = quadrature(operator, z, steps)
    made = []
    for function in functions:
        samples = like.numel() * (weights * function(nodes)).sum(-1)
        value = float(samples.mean())
        stderr = float(samples.std()) / math.sqrt(probes)
        made.append(from_error(value, stderr, n=probes, cost=float(probes * steps)))
    return made


@dataclass(frozen=True, kw_only=True)
class Eigenpairs:
    """Some eigenpairs of a symmetric operator.

    Attributes:
        values: Eigenvalues (k,), float64, in the order asked for.
        vectors: Orthonormal eigenvectors, one per row (k, P).
        residuals: |A v - lambda v| (k,): an eigenvalue lies within it of the value.
        status: `ok`, or `not_converged` when the products ran out first.
        products: Operator products spent.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    status: Status
    products: int


def eigenpairs(
    operator: Operator,
    like: Tensor,
    *,
    generator: torch.Generator,
    count: int | None = None,
    above: float | None = None,
    by_magnitude: bool = False,
    block: int = 8,
    tolerance: float = 1e-3,
    max_products: int = 512,
) -> Eigenpairs:
    """Find the top eigenpairs of a symmetric operator by block Krylov with Rayleigh-Ritz.

    Args:
        operator: A, symmetric.
        like: A vector (P,) whose size, dtype and device the vectors take.
        generator: Source of the starting block.
        count: How many to find; or
        above: find all eigenvalues above this number.
        by_magnitude: Order by |lambda| instead of lambda (with `count` only).
        block: Vectors per product.
        tolerance: Residual, relative to the largest |lambda|, at which a pair has converged.
        max_products: Most operator products to spend.

    Returns:
        The pairs found.

    Raises:
        ValueError: If not exactly one of `count` and `above` is given.
    """
    # A product that is not finite ends in a FloatingPointError (`_require_finite`).
    if (count is None) == (above is None):
        raise ValueError("give exactly one of count and above")
    size = like.numel()
    block = min(block, size)
    limit = min(size, max_products)
    # Filled as it grows: one allocation, and products with a slice instead of a concatenation.
    basis, image = like.new_empty(limit, size), like.new_empty(limit, size)
    rows = orthonormal(random_signs(block, like, generator), basis[:0])
    known = 0
    while True:
        check()
        rows = rows[: limit - known]
        basis[known : known + len(rows)] = rows
        image[known : known + len(rows)] = operator(rows)
        known += len(rows)
        q, aq = basis[:known], image[:known]
        small = q.double() @ aq.double().T
        _require_finite(small)
        values, coefficients = torch.linalg.eigh((small + small.T) / 2)
        order = (values.abs() if by_magnitude else values).argsort(descending=True)
        values, coefficients = values[order], coefficients[:, order]
        scale = float(values.abs().max())
        if above is None:
            assert count is not None
            wanted, looked, bound = count, count, tolerance * scale
        else:
            # Ritz values settle from the top down: when a whole block below the threshold has
            # settled, too, nothing above it is missing.
            wanted = int((values > above).sum())
            looked, bound = wanted + block, min(tolerance * scale, 0.1 * abs(above))
        wanted, looked = min(wanted, known), min(looked, known)
        chosen = coefficients[:, :looked].T.to(like.dtype)
        vectors = chosen @ q
        errors = chosen @ aq - values[:looked, None].to(like.dtype) * vectors
        residuals = errors.double().norm(dim=-1)
        settled = looked < known and bool((residuals <= bound).all())
        done = known == size or settled
        if done or known >= limit:
            return Eigenpairs(
                values=values[:wanted],
                vectors=vectors[:wanted],
                residuals=residuals[:wanted],
                status=Status.OK if done else Status.NOT_CONVERGED,
                products=known,
            )
        rows = orthonormal(image[known - len(rows) : known], q)
        if not len(rows):  # an invariant subspace: start again outside it
            rows = orthonormal(random_signs(block, like, generator), q)


def _require_finite(products: Tensor) -> None:
    if not bool(torch.isfinite(products).all()):
        raise FloatingPointError("a product with the operator is not finite; its spectrum is lost")


def orthonormal(rows: Tensor, against: Tensor) -> Tensor:
    """Orthonormalise rows against a basis and among themselves, dropping dependent ones.

    Args:
        rows: Vectors (K, P).
        against: Orthonormal rows (m, P).

    Returns:
        Orthonormal rows (at most K and at most P - m, P).
    """
    kept = rows[: max(rows.shape[1] - len(against), 0)]
    for _ in range(2):
        kept = kept - (kept @ against.T) @ against
        if not len(kept):
            return kept
        norms = kept.norm(dim=-1, keepdim=True)
        kept = kept[(norms > 0).squeeze(-1)] / norms[(norms > 0).squeeze(-1)]
        q, r = torch.linalg.qr(kept.T)
        good = r.diagonal().abs() > 1e3 * torch.finfo(rows.dtype).eps
        kept = q.T[good]
    return kept
