"""How many singular values lie where, and traces of functions of them, from one Krylov space.

Probes z with E zz' = 1 turn counts into averages: n(a < s <= b) = E sum_j (z . v_j)^2 over the
singular values s_j between a and b. Three things keep the average honest and narrow:

- Ritz values that have converged from the top down are counted as they are (deflation); only the
  rest is left to the probes, whose noise shrinks accordingly.
- The nodes of the Gauss rule are counted, not interpolated: interpolation fails beside the atom at
  1 that training leaves. What the quadrature does not resolve is bracketed by the block Gauss-Radau
  rule with a node at the threshold: its mass below, and below and at the threshold. That is the
  theorem of Chebyshev, Markov and Stieltjes for one probe, carried over to a block of them
  (checked against dense spectra, not proved); the mass at the threshold is the squared residual
  of block MINRES for (J'J - t) y = z.
- The standard error adds the spread over probes to that of a value anywhere in the bracket.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.krylov.block_krylov import SingularSpace
from capacity.records.estimate import Estimate, Status
from capacity.records.intervals import interval

RESOLVED = 0.15
"""Half-width of the bracket, relative to the count, up to which a count is resolved."""

_CLUSTER = 0.01
"""Relative width of a cluster. A block of b probes shows at most b copies of an eigenvalue, so b
values this close may stand for more."""

_TOLERANCE = 1e-3

Edges = tuple[Tensor, Tensor, Tensor]
"""Per probe: the count, and its bracket."""


@dataclass(frozen=True, kw_only=True)
class SpectralMeasure:
    """The singular values of a map: some known exactly, the rest by quadrature.

    Attributes:
        known: Singular values that are certain, largest first (C,), float64; all others are less.
        nodes: Nodes of the rest (k,), float64.
        weights: How many singular values each node stands for, per probe (b, k).
        total: Dimension of the space that the map acts on, per probe (b,).
        space: Where the nodes come from; None where all values are known.
    """

    known: Tensor
    nodes: Tensor
    weights: Tensor
    total: Tensor
    space: SingularSpace | None

    @property
    def exact(self) -> bool:
        """Whether all values are known."""
        return self.space is None

    @property
    def dimension(self) -> float:
        """Dimension of the space that the map acts on."""
        return float(self.total.mean())

    def count(self, low: float = 0.0, high: float = math.inf) -> Estimate:
        """Count the singular values s with low < s <= high; a low end of 0 includes 0.

        Args:
            low: Lower end.
            high: Upper end.

        Returns:
            The count; `not_resolved` where the bracket is wide. Exact counts have no error.
        """
        value, least, most = self.bracket(low, high)
        found, bottom, top = (float(part.mean()) for part in (value, least, most))
        if self.exact:
            return Estimate(value=found)
        errors = [float(part.std()) / math.sqrt(len(part)) for part in (least, value, most)]
        degrees = len(value) - 1
        resolved = most_is_near(bottom, top, found)
        note = "" if resolved else f"Between {bottom:.0f} and {top:.0f}; more sweeps narrow it."
        return Estimate(
            value=found,
            stderr=math.hypot(errors[1], (top - bottom) / math.sqrt(12)),
            status=Status.OK if resolved else Status.NOT_RESOLVED,
            interval=(
                max(interval(bottom, errors[0], degrees=degrees)[0], 0.0),
                min(interval(top, errors[2], degrees=degrees)[1], self.dimension),
            ),
            n=len(value),
            note=note,
        )

    def bracket(self, low: float, high: float) -> Edges:
        """Count per probe, with the bracket that the quadrature leaves.

        Args:
            low: Lower end.
            high: Upper end.

        Returns:
            The count, the least and the most that it can be, each per probe.
        """
        zero = torch.zeros_like(self.total)
        lower = (self.total, self.total, self.total) if low <= 0 else self._above(low)
        upper = (zero, zero, zero) if math.isinf(high) else self._above(high)
        least, most = lower[1] - upper[2], lower[2] - upper[1]
        return lower[0] - upper[0], least.clamp(min=0), torch.minimum(most, self.total)

    def sums(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Sum a function of the singular values.

        Args:
            function: Elementwise, on singular values.

        Returns:
            One sample of the sum per probe, float64; equal ones where all values are known.
        """
        certain = function(self.known).sum()
        return certain + (self.weights * function(self.nodes)).sum(-1) + 0 * self.total

    def _above(self, edge: float) -> Edges:
        certain = float((self.known > edge).sum())
        flat = torch.full_like(self.total, certain)
        if self.space is None or (len(self.known) and edge >= float(self.known[-1])):
            return flat, flat, flat
        counted = certain + (self.weights * (self.nodes > edge)).sum(-1)
        if self.space.closed:
            return counted, counted, counted
        nodes, at, overlaps = radau(self.space, edge**2, self.space.sweeps)
        keep = slice(len(self.known), None)  # both sorted from the top: the same ones are certain
        weights = _scaled(overlaps.square()[:, keep], self.total - certain, self._normal)
        strictly = certain + (weights * ((nodes > edge**2) & ~at)[keep]).sum(-1)
        return counted, strictly, strictly + (weights * at[keep]).sum(-1)

    @property
    def _normal(self) -> bool:
        return bool((self.total == self.total[0]).all())


def known_measure(values: Tensor) -> SpectralMeasure:
    """Make the measure of a spectrum that is known.

    Args:
        values: All singular values, largest first (n,).

    Returns:
        The measure.
    """
    values = values.double()
    return SpectralMeasure(
        known=values,
        nodes=values[:0],
        weights=values.new_zeros(1, 0),
        total=values.new_full((1,), len(values)),
        space=None,
    )


def measure_of(space: SingularSpace, *, rank: int | None) -> SpectralMeasure:
    """Read the measure of a Krylov space's probes.

    Args:
        space: The space.
        rank: Dimension of the space that the map acts on (P, or that of a projector's range); None
            where it is not known and the probes have to tell.

    Returns:
        The measure.
    """
    if rank is not None and len(space.values) >= rank:
        return known_measure(space.values[:rank])
    certain = _certain(space)
    total = space.lengths if rank is None else torch.full_like(space.lengths, float(rank))
    rest = space.right_overlaps[:, certain:].square()
    return SpectralMeasure(
        known=space.values[:certain],
        nodes=space.values[certain:],
        weights=_scaled(rest, total - certain, rank is not None),
        total=total,
        space=space,
    )


def radau(space: SingularSpace, t: float, sweeps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Block Gauss-Radau rule of J'J with a node at t.

    Args:
        space: The space.
        t: The node.
        sweeps: How many of the space's sweeps to use.

    Returns:
        Nodes, largest first (d,), which of them are the one at t (d,), and the overlaps of the
        probes with them (b, d).
    """
    size, last = sum(space.blocks[:sweeps]), space.blocks[sweeps - 1]
    matrix = space.small[:, :size].T @ space.small[:, :size]
    inner = size - last
    eye = torch.eye(size, dtype=matrix.dtype, device=matrix.device)
    shift = torch.zeros(last, last, dtype=matrix.dtype, device=matrix.device)
    if inner:
        couple = matrix[inner:, :inner]
        # A hair beside t, which may be an eigenvalue of the inner part already.
        moved = matrix[:inner, :inner] - t * (1 + 1e-10) * eye[:inner, :inner]
        shift = couple @ torch.linalg.solve(moved, couple.T)
    matrix[inner:, inner:] = t * eye[inner:, inner:] + (shift + shift.T) / 2
    nodes, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    nodes, vectors = nodes.flip(0), vectors.flip(1)
    at = torch.zeros(size, dtype=torch.bool, device=matrix.device)
    at[(nodes - t).abs().argsort()[:last]] = True
    return nodes, at, space.starts[:, :size] @ vectors


def open_mass(space: SingularSpace, edge: float, sweeps: int) -> float:
    """Give the width of the bracket at a threshold after some of the sweeps.

    Args:
        space: The space.
        edge: Threshold on the singular values.
        sweeps: How many of the space's sweeps to use.

    Returns:
        Mean over probes of the mass that may lie on either side.
    """
    _, at, overlaps = radau(space, edge**2, sweeps)
    return float((overlaps.square() * at).sum(-1).mean())


def most_is_near(least: float, most: float, value: float) -> bool:
    """Say whether a bracket is narrow enough to call its count resolved.

    Args:
        least: Lower end.
        most: Upper end.
        value: The count.

    Returns:
        Whether the half-width is within 15 % of the count, or below a half.
    """
    return (most - least) / 2 <= max(RESOLVED * value, 0.5)


def _scaled(squares: Tensor, total: Tensor, normal: bool) -> Tensor:
    """Make the weights of every probe add up to what is left, where that is known."""
    if not normal:
        return squares
    return squares * (total / squares.sum(-1).clamp(min=1e-300))[:, None]


def _certain(space: SingularSpace) -> int:
    """Count the Ritz values that converged from the top down, one singular value each."""
    values = space.values
    good = (space.residuals <= _TOLERANCE * values).tolist()
    block = len(space.lengths)
    for j in range(len(values)):
        ahead = j + block - 1
        crowded = ahead < len(values) and values[ahead] >= (1 - _CLUSTER) * values[j]
        if not good[j] or crowded:
            return j
    # As many values as vectors, all converged, and yet not the whole space: leave some to probes.
    return max(len(values) - block, 0)
