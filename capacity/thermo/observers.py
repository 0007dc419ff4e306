"""What is summed up along the way: action, length, trapezoid and log-volume of every replica.

Streamed: each step is read once and forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from capacity.krylov.lanczos import quadrature
from capacity.thermo.action import ActionMeter
from capacity.thermo.ensemble_record import Series

_TINY = 1e-12
_SEEN = 1e-4
"""Change of a step's slope, over the slope, that float32 tells from rounding."""
_NAMES = ("loss", "action", "length", "trapezoid", "noise_free")


class StreamMeter:
    """Running sums over the steps of some replicas (see `Series` for what each is).

    Args:
        marks: Steps, ascending, at which the sums are kept; None keeps every step.
        curved: Whether the change of the gradient over a step is the Hessian's: the energy is the
            same at every step, and a step is theta - lr gradient, noise aside.
        noisy: Whether the steps carry thermal noise, so that their drive is summed up.
    """

    def __init__(
        self, marks: Sequence[int] | None = None, *, curved: bool = False, noisy: bool = False
    ) -> None:
        self._marks = None if marks is None else frozenset(marks)
        self._curved = curved
        self._path = ActionMeter()
        self._sums: dict[str, Tensor] = {}
        self._noisy = noisy
        names = (*_NAMES, "drive") if noisy else _NAMES
        self._kept: dict[str, list[Tensor]] = {name: [] for name in names}
        self._at: list[tuple[int, float]] = []
        self._last: tuple[float, Tensor, Tensor, Tensor] | None = None
        self._late = False
        self._count = 0
        self._lost: Tensor | None = None
        self._folds: Tensor | None = None
        # Fresh memory of this size costs as much as the product that is written to it.
        self._products: Tensor | None = None

    @torch.no_grad()
    def add(self, lr: float, before: Tensor, after: Tensor, gradient: Tensor, loss: Tensor) -> None:
        """Add one step.

        Args:
            lr: dt of the step.
            before: theta before it (n, P).
            after: theta after it (n, P).
            gradient: Gradient at `before` (n, P).
            loss: Energy at `before` (n,).
        """
        self._close(gradient)
        moved, squared = self._path.add(lr, before, after)
        if self._products is None:
            self._products = torch.empty_like(moved)
        slope = _dots(moved, gradient, self._products)
        self._last = (lr, moved, squared, slope)
        if not self._sums:
            self._sums = dict.fromkeys(("before", "after"), torch.zeros_like(squared))
            self._lost = torch.zeros_like(squared, dtype=torch.int64)
            self._folds = torch.zeros_like(self._lost)
        self._sums["before"] = self._sums["before"] - slope
        if self._noisy:
            pushed = lr * _dots(gradient, gradient, self._products)
            self._sums["drive"] = self._sums.get("drive", torch.zeros_like(pushed)) + pushed
        self._count += 1
        assert self._lost is not None
        bad = ~torch.isfinite(squared + loss)
        self._lost = torch.where(bad & (self._lost == 0), self._count, self._lost)
        if self._marks is None or self._count in self._marks:
            self._at.append((self._count, self._path.time))
            self._kept["loss"].append(loss.double())
            self._kept["action"].append(self._path.action)
            self._kept["length"].append(self._path.length)
            if self._noisy:
                self._kept["drive"].append(self._sums["drive"])
            self._late = True

    @property
    def lost(self) -> Tensor:
        """Step (from 1) at which each replica stopped being finite (n,), 0 where it did not."""
        assert self._lost is not None, "no step was taken"
        return self._lost

    @property
    def time(self) -> float:
        """Learning time so far."""
        return self._path.time

    @property
    def folds(self) -> Tensor | None:
        """Steps of each replica (n,) in which lr times the curvature along it was above 1.

        None where the steps do not show it.
        """
        return self._folds if self._curved else None

    def finish(self, gradient: Tensor) -> Series:
        """Close the books.

        Args:
            gradient: Gradient where the last step arrived (n, P), on a fresh batch.

        Returns:
            The sums at the marks.
        """
        self._close(gradient)
        kept = {name: torch.stack(values).cpu() for name, values in self._kept.items()}
        steps, times = zip(*self._at, strict=True)
        return Series(
            step=torch.tensor(steps), time=torch.tensor(times, dtype=torch.float64), **kept
        )

    @torch.no_grad()
    def _close(self, gradient: Tensor) -> None:
        """Add what the last step's sums owe to the gradient after it."""
        if self._last is None:
            return
        sums, (lr, moved, squared, slope) = self._sums, self._last
        assert self._products is not None
        arrived = _dots(moved, gradient, self._products)
        sums["after"] = sums["after"] - arrived
        if self._curved:
            assert self._folds is not None
            bent = lr * (arrived - slope)
            told = bent > _SEEN * lr * slope.abs()
            self._folds = self._folds + ((bent > squared) & told).long()
        self._last = None
        if self._late:
            self._kept["trapezoid"].append(0.5 * (sums["before"] + sums["after"]))
            self._kept["noise_free"].append(sums["after"])
            self._late = False


class LogDetMeter:
    """Running sums of log|det d theta_{k+1}/d theta_k| of plain steps, one probe per replica.

    One Hessian product per step: -lr z'Hz - lr^2 |Hz|^2/2, whose error is of third order in lr
    times curvature. Two or more: stochastic Lanczos quadrature, which also holds where a step folds
    (theory.md#log-volume).

    Args:
        nodes: Hessian products per step and replica.
        seeds: One generator per replica.
    """

    def __init__(self, nodes: int, seeds: Sequence[torch.Generator]) -> None:
        self._nodes, self._seeds = nodes, seeds
        self._table: Tensor | None = None
        self._sum: Tensor | None = None
        self._folds: Tensor | None = None

    @torch.no_grad()
    def add(self, lr: float, size: int, products: Callable[[Tensor], Tensor], like: Tensor) -> None:
        """Add one step.

        Args:
            lr: dt of the step.
            size: P.
            products: Rows (n, P) to each replica's Hessian product with its row.
            like: A tensor whose dtype and device the probes take.
        """
        z = self._signs(size, like)
        if self._nodes == 1:
            with torch.enable_grad():
                image = products(z)
            first, second = (z * image).sum(-1).double(), image.square().sum(-1).double()
            values = -lr * first - 0.5 * lr**2 * second
            folded = lr**2 * second > size
        else:

            def product(v: Tensor) -> Tensor:
                with torch.enable_grad():
                    return products(v)

            nodes, weights = quadrature(product, z, self._nodes)
            shrink = (1 - lr * nodes).abs().clamp(min=_TINY)
            values = size * (weights * shrink.log()).sum(-1)
            folded = (lr * nodes > 1).any(-1)
        self._sum = values if self._sum is None else self._sum + values
        self._folds = folded.long() if self._folds is None else self._folds + folded.long()

    def _signs(self, size: int, like: Tensor) -> Tensor:
        """Draw a row of signs (n, P) from every generator, eight from a random byte."""
        if self._table is None:
            bytes_, bits = torch.arange(256)[:, None], torch.arange(8)
            self._table = (2 * ((bytes_ >> bits) & 1) - 1).to(like)
        count = -(-size // 8)
        drawn = torch.stack([torch.randint(0, 256, (count,), generator=g) for g in self._seeds])
        return self._table[drawn.to(like.device)].flatten(1)[:, :size]

    @property
    def sum(self) -> Tensor:
        """The sums so far (n,), float64."""
        assert self._sum is not None, "no step was taken"
        return self._sum

    @property
    def folds(self) -> Tensor:
        """Steps of each replica (n,) in which lr times a curvature was seen above 1."""
        assert self._folds is not None, "no step was taken"
        return self._folds


def _dots(one: Tensor, other: Tensor, products: Tensor) -> Tensor:
    """Inner products of rows (n, P) with rows, (n,) in float64; `products` (n, P) is written to."""
    # sum() adds pairwise, which batched matrix products do not; it is the faster one, too.
    return torch.mul(one, other, out=products).sum(-1).double()
