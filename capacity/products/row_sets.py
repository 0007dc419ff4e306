"""Sets of feature rows Phi, in factors or written out, and what is asked of them.

One set answers three questions: products Phi v and Phi' u, and the Gram matrix with another set of
the same network. Which of the two forms it has is nobody's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from capacity.base.interruption import check

BUDGET = 256 << 20
"""Most bytes of written-out rows that are held at a time."""


class Features(Protocol):
    """Phi: m rows of length P, which may never be written out.

    Attributes:
        count: m.
    """

    count: int

    def gram(self, other: Features) -> Tensor:
        """Phi_X Phi_Y' (m, m'), float64."""

    def apply(self, vectors: Tensor) -> Tensor:
        """Phi v of rows v (K, P): (K, m)."""

    def adjoint(self, weights: Tensor) -> Tensor:
        """Phi' u of rows u (K, m): (K, P)."""


@dataclass(frozen=True)
class Layer:
    """What one linear layer puts into the rows of n samples.

    Attributes:
        a: What goes in (n, in).
        d: What comes back (n, q, out).
        weight: Place of its weight in theta; None where that is not trained.
        bias: Place of its bias; None where that is not trained.
    """

    a: Tensor
    d: Tensor
    weight: slice | None
    bias: slice | None


class LayerFeatures:
    """Rows as sums of outer products, layer by layer.

    Attributes:
        count: m = n q.
    """

    def __init__(self, layers: Sequence[Layer], size: int) -> None:
        self._layers, self._size = tuple(layers), size
        samples, kept, _ = self._layers[0].d.shape
        self._kept, self.count = kept, samples * kept

    def gram(self, other: Features) -> Tensor:
        """Multiply with the rows of another set.

        Args:
            other: Rows of the same network, in factors too.

        Returns:
            Phi_X Phi_Y' (m, m'), float64.
        """
        if not isinstance(other, LayerFeatures):
            return other.gram(self).T
        total = torch.zeros(
            self.count, other.count, dtype=torch.float64, device=self._layers[0].a.device
        )
        for own, its in zip(self._layers, other._layers, strict=True):
            check()
            left = own.d.double().flatten(0, 1)
            right = left if own is its else its.d.double().flatten(0, 1)
            inputs = torch.zeros(len(own.a), len(its.a)).to(total)
            if own.weight is not None:
                inputs += own.a.double() @ its.a.double().T
            if own.bias is not None:
                inputs += 1.0
            back = (left @ right.T).view(len(own.a), self._kept, len(its.a), other._kept)
            total += (back * inputs[:, None, :, None]).view_as(total)
        return total

    def squares(self) -> Tensor:
        """Sum the squares of the rows, parameter by parameter.

        Returns:
            The diagonal of Phi' Phi (P,), in the precision of the features.
        """
        made = self._layers[0].a.new_zeros(self._size)
        for layer in self._layers:
            signal = layer.d.square().sum(1)
            if layer.weight is not None:
                made[layer.weight] = (signal.T @ layer.a.square()).flatten()
            if layer.bias is not None:
                made[layer.bias] = signal.sum(0)
        return made

    def apply(self, vectors: Tensor) -> Tensor:
        """Multiply with vectors of parameters.

        Args:
            vectors: Rows (K, P).

        Returns:
            Phi v (K, m).
        """
        total = vectors.new_zeros(len(vectors), *self._layers[0].d.shape[:2])
        for layer in self._layers:
            width = layer.d.shape[-1]
            moved = vectors.new_zeros(len(vectors), len(layer.a), width)
            if layer.weight is not None:
                matrix = vectors[:, layer.weight].view(len(vectors), width, -1)
                moved = moved + torch.einsum("koi,ni->kno", matrix, layer.a.to(vectors))
            if layer.bias is not None:
                moved = moved + vectors[:, None, layer.bias]
            total = total + torch.einsum("kno,nqo->knq", moved, layer.d.to(vectors))
        return total.flatten(1)

    def adjoint(self, weights: Tensor) -> Tensor:
        """Combine rows.

        Args:
            weights: Rows (K, m).

        Returns:
            Phi' u (K, P), in the precision of the features.
        """
        first = self._layers[0]
        made = first.a.new_zeros(len(weights), self._size)
        w = weights.to(made).view(len(weights), len(first.a), self._kept)
        for layer in self._layers:
            signal = torch.einsum("knq,nqo->kno", w, layer.d)
            if layer.weight is not None:
                made[:, layer.weight] = torch.einsum("kno,ni->koi", signal, layer.a).flatten(1)
            if layer.bias is not None:
                made[:, layer.bias] = signal.sum(1)
        return made


class RowFeatures:
    """Rows written out, all at once where they fit the budget, else chunk by chunk, each time anew.

    Attributes:
        count: m.
    """

    def __init__(
        self, make: Callable[[int, int], Tensor], count: int, size: int, chunk: int
    ) -> None:
        self._make, self.count, self._size, self._chunk = make, count, size, chunk
        self._kept: Tensor | None = None

    def chunks(self) -> list[slice]:
        """List the ranges of rows that are held together.

        Returns:
            Slices that cover all rows in order.
        """
        starts = range(0, self.count, self._chunk)
        return [slice(start, min(start + self._chunk, self.count)) for start in starts]

    def rows(self, part: slice) -> Tensor:
        """Write rows out.

        Args:
            part: Which.

        Returns:
            Rows (k, P).
        """
        check()
        if self._chunk < self.count:
            return self._make(part.start, part.stop)
        if self._kept is None:
            self._kept = self._make(0, self.count)
        return self._kept[part]

    def gram(self, other: Features) -> Tensor:
        """Multiply with the rows of another set.

        Args:
            other: Rows of the same network.

        Returns:
            Phi_X Phi_Y' (m, m'), float64.
        """
        total = []
        for part in self.chunks():
            rows = self.rows(part)
            if isinstance(other, RowFeatures):
                blocks = [_product(rows, other.rows(its)) for its in other.chunks()]
                total.append(torch.cat(blocks, dim=1))
            else:
                total.append(other.apply(rows).double())
        return torch.cat(total)

    def apply(self, vectors: Tensor) -> Tensor:
        """Multiply with vectors of parameters.

        Args:
            vectors: Rows (K, P).

        Returns:
            Phi v (K, m).
        """
        return torch.cat([vectors @ self.rows(part).to(vectors).T for part in self.chunks()], 1)

    def adjoint(self, weights: Tensor) -> Tensor:
        """Combine rows.

        Args:
            weights: Rows (K, m).

        Returns:
            Phi' u (K, P), in the precision of the features.
        """
        total: Tensor | None = None
        for part in self.chunks():
            rows = self.rows(part)
            made = weights[:, part].to(rows) @ rows
            total = made if total is None else total + made
        assert total is not None
        return total


class Stacked:
    """Rows of several sets below one another, as the old tasks' are.

    Attributes:
        count: m, the sum of theirs.
    """

    def __init__(self, parts: Sequence[Features]) -> None:
        self._parts = tuple(parts)
        self.count = sum(part.count for part in parts)

    def gram(self, other: Features) -> Tensor:
        """Multiply with the rows of another set.

        Args:
            other: Rows of the same network.

        Returns:
            Phi_X Phi_Y' (m, m'), float64.
        """
        if isinstance(other, Stacked):
            return torch.cat([self.gram(part) for part in other._parts], dim=1)
        return torch.cat([part.gram(other) for part in self._parts])

    def apply(self, vectors: Tensor) -> Tensor:
        """Multiply with vectors of parameters.

        Args:
            vectors: Rows (K, P).

        Returns:
            Phi v (K, m).
        """
        return torch.cat([part.apply(vectors) for part in self._parts], dim=1)

    def adjoint(self, weights: Tensor) -> Tensor:
        """Combine rows.

        Args:
            weights: Rows (K, m).

        Returns:
            Phi' u (K, P).
        """
        split = weights.split([part.count for part in self._parts], dim=1)
        made = [part.adjoint(w) for part, w in zip(self._parts, split, strict=True)]
        return torch.stack(made).sum(0)


def _product(left: Tensor, right: Tensor) -> Tensor:
    # Converted in pieces of columns: float64 copies of all rows would be three times the memory.
    step = max(1, BUDGET // (8 * (len(left) + len(right))))
    pairs = zip(left.split(step, dim=1), right.split(step, dim=1), strict=True)
    total = torch.zeros(len(left), len(right), dtype=torch.float64, device=left.device)
    for a, b in pairs:
        total += a.double() @ b.double().T
    return total
