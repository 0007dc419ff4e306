"""Gram matrices of an ensemble's displacement, per layer, streamed over blocks of coordinates.

For N replicas, the rows [theta_0 - mean theta_0; theta_t - theta_0] of each layer have a 2N x 2N
matrix of inner products. It carries everything that W2 between the two ensembles needs
(theory.md#wasserstein-bounds): path coupling, assignment, trace bounds, the U-statistic, and each
of them without any one replica. It is taken in float64 of displacements, never of raw weights,
whose large common part eats the digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.base.interruption import check

BLOCK_BYTES = 32 << 20
"""Size of a block of coordinates in float64, both rows together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerGrams:
    """Inner products of starts and displacements, per layer.

    Attributes:
        names: Names of the layers (blocks of theta), L of them.
        start: A A' (L, N, N), A = theta_0 - mean theta_0.
        cross: A D' (L, N, N), D = theta_t - theta_0.
        moved: D D' (L, N, N).
    """

    names: tuple[str, ...]
    start: Tensor
    cross: Tensor
    moved: Tensor

    @property
    def count(self) -> int:
        """N."""
        return self.moved.shape[-1]

    def total(self) -> LayerGrams:
        """Add up the layers.

        Returns:
            The same with one layer, all of theta.
        """
        parts = {n: getattr(self, n).sum(0, keepdim=True) for n in ("start", "cross", "moved")}
        return LayerGrams(names=("all",), **parts)


def layer_grams(
    start: Tensor,
    end: Tensor,
    sizes: dict[str, int],
    *,
    rows: Tensor | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> LayerGrams:
    """Stream the Gram matrices over blocks of coordinates.

    Args:
        start: theta_0 (N, P), in memory or mapped from disk, on any device.
        end: theta_t (N, P), likewise.
        sizes: Layer names and their numbers of coordinates, in order; they add up to P.
        rows: Replicas to keep (n,); None keeps all.
        block_bytes: Memory of one block of coordinates in float64.

    Returns:
        The Gram matrices, float64, on the CPU.
    """
    count = len(start) if rows is None else len(rows)
    width = max(1, block_bytes // (16 * count))
    found: dict[str, list[Tensor]] = {"start": [], "cross": [], "moved": []}
    first = 0
    for size in sizes.values():
        sums = [torch.zeros(count, count, dtype=torch.float64) for _ in found]
        for at in range(first, first + size, width):
            check()
            span = slice(at, min(at + width, first + size))
            a, b = _picked(start, rows, span), _picked(end, rows, span)
            d = b - a
            a = a - a.mean(0)
            for held, product in zip(sums, (a @ a.T, a @ d.T, d @ d.T), strict=True):
                held += product.cpu()
        for name, held in zip(found, sums, strict=True):
            found[name].append(held)
        first += size
    return LayerGrams(names=tuple(sizes), **{n: torch.stack(parts) for n, parts in found.items()})


def squared_distance(
    one: Tensor,
    other: Tensor,
    *,
    rows: Tensor | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Tensor:
    """|one_i - other_i|^2 of every replica, streamed over blocks of coordinates.

    Args:
        one: Positions (N, P).
        other: Positions (N, P).
        rows: Replicas to keep (n,); None keeps all.
        block_bytes: Memory of one block.

    Returns:
        Squared distances (n,), float64, on the CPU.
    """
    count = len(one) if rows is None else len(rows)
    width = max(1, block_bytes // (16 * count))
    held = torch.zeros(count, dtype=torch.float64)
    for at in range(0, one.shape[1], width):
        span = slice(at, at + width)
        held += (_picked(other, rows, span) - _picked(one, rows, span)).square().sum(-1).cpu()
    return held


def _picked(theta: Tensor, rows: Tensor | None, span: slice) -> Tensor:
    block = theta[:, span]
    return (block if rows is None else block[rows.to(block.device)]).double()
