"""Krylov methods on operators that are only multiplied with: spectra, traces, log-determinants.

Vectors are rows: an operator maps (K, P) to (K, P). Small matrices are float64 throughout, and
every basis is fully reorthogonalised, so there are no ghost copies of converged values.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from capacity.base.interruption import check

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
