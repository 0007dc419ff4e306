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


class Quadrature:
    """Gauss quadrature of every probe's spectral measure, by Lanczos steps that can go on.

    For a probe z: z'f(A)z is about |z|^2 sum_j w_j f(x_j); exact once the steps reach the grade.

    Args:
        operator: A, symmetric.
        probes: Starting vectors (K, P), not zero.
    """

    def __init__(self, operator: Operator, probes: Tensor) -> None:
        self._operator, self._size = operator, probes.shape[1]
        first = probes / probes.norm(dim=-1, keepdim=True)
        self._basis = first[:, None]
        self._scale = torch.zeros(len(probes), dtype=torch.float64, device=probes.device)
        self._diagonal: list[Tensor] = []
        self._off: list[Tensor] = []
        self._image = first

    def nodes(self, steps: int) -> tuple[Tensor, Tensor]:
        """Take the steps that are not taken yet, and give the quadrature after so many.

        Args:
            steps: Lanczos steps m; P are the most there are.

        Returns:
            Nodes x (K, m) and weights w (K, m), float64; weights of a row add up to 1.
        """
        steps = min(steps, self._size)
        while len(self._diagonal) < steps:
            self._step()
        diagonal = torch.stack(self._diagonal[:steps], dim=1)
        small = torch.diag_embed(diagonal)
        if steps > 1:
            off = torch.stack(self._off[: steps - 1], dim=1)
            small = small + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
        # Decided where the numbers are: to ask would be to wait for them.
        finite = torch.isfinite(small).all()
        nodes, vectors = torch.linalg.eigh(torch.where(finite, small, 0.0))
        weights = vectors[:, 0].square()
        return torch.where(finite, nodes, torch.nan), torch.where(finite, weights, torch.nan)

    def _step(self) -> None:
        check()
        if self._diagonal:
            self._turn()
        q = self._basis[:, -1]
        self._image = self._operator(q)
        self._diagonal.append((self._image.double() * q.double()).sum(-1))
        self._scale = torch.maximum(self._scale, self._image.double().norm(dim=-1))

    def _turn(self) -> None:
        """Add the next basis vector."""
        image, known = self._image, self._basis
        for _ in range(2):
            parts = known @ image[:, :, None]  # (K, j, 1); einsum would plan each anew
            image = image - (parts.mT @ known)[:, 0]
        norm = image.double().norm(dim=-1)
        # Where the Krylov space is exhausted the next vector is zero: its node has weight 0.
        alive = norm > 1e2 * torch.finfo(image.dtype).eps * self._scale
        self._off.append(torch.where(alive, norm, torch.zeros_like(norm)))
        inverse = torch.where(alive, 1 / norm.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
        following = image * inverse[:, None].to(image.dtype)
        self._basis = torch.cat([known, following[:, None]], dim=1)


def quadrature(operator: Operator, probes: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Give `Quadrature` after some steps.

    Args:
        operator: A, symmetric.
        probes: Starting vectors (K, P), not zero.
        steps: Lanczos steps m.

    Returns:
        Nodes x (K, m) and weights w (K, m), float64.
    """
    return Quadrature(operator, probes).nodes(steps)


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
