"""H V for many tangents on one batch, through one traced graph that is reused over steps.

The Hessian of a scalar loss is symmetric, so reverse over reverse gives H v without a forward-mode
pass: the gradient's own VJP, vmapped over tangents. The graph of that is traced once per set of
shapes, simplified, and split into what all tangents share and the rest; every further step calls
the plain list of tensor operations that is left, without any dispatch through the function
transforms, and on the CPU without allocating their results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, fx
from torch.func import grad

from capacity.base.differential import pullback, vmap
from capacity.base.interruption import check
from capacity.base.slow_paths import took
from capacity.products.operation_watch import Watch
from capacity.products.planned_memory import Planned
from capacity.products.traced_graphs import (
    fuse,
    parts_of,
    pure,
    share_exponentials,
    simplify,
    split,
    trace,
)

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(theta (P,), x, y) -> mean loss, a scalar."""

_PIECE = 8 << 20
"""Bytes of tangents that go through a graph together on the CPU: what stays in its cache."""

_UNTRACED = "Hessian products run untraced"
DRAWN = "a network in training mode draws its masks anew from the seed of the step"
"""Why those of steps in training mode do."""
_SMALL = 1 << 14
"""Parameters up to which tracing another graph takes longer than some tangents more."""
_BUFFERS = 128 << 20
"""Bytes that all results of their graph may take, roughly."""


class HessianProducts:
    """Products with the Hessian of a loss, for K tangents at once.

    On the CPU, products of one object share buffers: use one object per thread.

    Args:
        loss: The loss; a pure function of (theta, x, y).
        untraced: Why its products cannot be traced; empty to try.

    Attributes:
        loss: The loss; a pure function of (theta, x, y).
        untraced: Why products run untraced, several times slower; empty where they are traced.
    """

    def __init__(self, loss: Loss, *, untraced: str = "") -> None:
        self.loss = loss
        self.untraced = untraced
        self._ways: dict[object, _Way] = {}
        self._watched: dict[object, Watch] = {}
        self._wanted: list[Tensor] | None = None

    @contextmanager
    def keeping_gradient(self) -> Iterator[list[Tensor]]:
        """Keep the gradient that products of one batch find on their way.

        Yields:
            A list that the first products within put their gradient (P,) into.
        """
        kept: list[Tensor] = []
        self._wanted = kept
        try:
            yield kept
        finally:
            self._wanted = None

    def __call__(
        self, theta: Tensor, x: Tensor, y: Tensor, tangents: Tensor, *, out: Tensor | None = None
    ) -> Tensor:
        """Multiply tangents with the Hessian.

        Args:
            theta: Where (P,).
            x: Inputs of the batch.
            y: Targets of the batch.
            tangents: V, one per row (K, P).
            out: Where the result goes (K, P); not the tangents' memory. None makes a new tensor.

        Returns:
            H V, one per row (K, P).
        """
        product = torch.empty_like(tangents) if out is None else out
        self._run(theta, x, y, tangents, lambda rows, part: product[rows].copy_(part))
        return product

    def with_gradient(
        self, theta: Tensor, x: Tensor, y: Tensor, tangents: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Multiply tangents with the Hessian, and give the gradient, which is on the way.

        Args:
            theta: Where (P,).
            x: Inputs of the batch.
            y: Targets of the batch.
            tangents: V, one per row (K, P).

        Returns:
            The gradient (P,) and H V (K, P).
        """
        product = torch.empty_like(tangents)
        gradient = self._run(
            theta, x, y, tangents, lambda rows, part: product[rows].copy_(part), gradient=True
        )
        assert gradient is not None
        return gradient, product

    def add_to(
        self,
        tangents: Tensor,
        theta: Tensor,
        x: Tensor,
        y: Tensor,
        *,
        scale: float,
        into: Tensor | None = None,
    ) -> Tensor:
        """Add scale H V to something, without another array of V's size.

        Args:
            tangents: V, one per row (K, P).
            theta: Where (P,).
            x: Inputs of the batch.
            y: Targets of the batch.
            scale: Factor of H V.
            into: What to add to (K, P), overwritten; None means the tangents themselves.

        Returns:
            What was added to.
        """
        target = tangents if into is None else into

        def put(rows: tuple[slice, slice], part: Tensor) -> None:
            target[rows].add_(part, alpha=scale)

        self._run(theta, x, y, tangents, put, in_place=into is None)
        return target

    @torch.no_grad()
    def _run(
        self,
        theta: Tensor,
        x: Tensor,
        y: Tensor,
        tangents: Tensor,
        put: Callable[[tuple[slice, slice], Tensor], object],
        *,
        gradient: bool = False,
        in_place: bool = False,
    ) -> Tensor | None:
        check()
        found: Tensor | None = None
        gradient = gradient or self._wanted == []
        ready: dict[_Way, tuple[Tensor, ...]] = {}
        pieces = max(1, math.ceil(len(tangents) / self._piece(theta, x, y, tangents)))
        start = 0
        for given in tangents.tensor_split(pieces):
            count = len(given)
            # One graph for all rows of a count, however they lie in memory: vectors of a growing
            # basis are strided otherwise at each step, and a copy costs less than tracing does.
            rows = _filled(given).contiguous() if theta.numel() <= _SMALL else given
            way = self._way(theta, x, y, rows)
            if way.slow:
                took(_UNTRACED, way.slow)
            if way not in ready:
                made, ready[way] = way.prepare(theta, x, y, gradient=gradient and found is None)
                found = made if found is None else found
            stop, column = start + count, 0
            parts = [part[:count] for part in way.multiply(rows, ready[way], (theta, x, y))]
            if in_place:
                # A part may be a view of the tangents: the Hessian of a b swaps a and b.
                parts = [part.clone() if _shares(part, rows) else part for part in parts]
            for part in parts:
                put((slice(start, stop), slice(column, column + part.shape[-1])), part)
                column += part.shape[-1]
            start = stop
        if self._wanted == [] and found is not None:
            self._wanted.append(found)
        return found

    def _piece(self, theta: Tensor, x: Tensor, y: Tensor, tangents: Tensor) -> int:
        """Choose how many tangents go through the graph together."""
        seen = self._watch(theta, x, y)
        if seen.convolves:
            # A convolution with K tangent weights becomes one with K groups, for which the kernels
            # are slow.
            return 1
        if theta.device.type != "cpu":
            return max(len(tangents), 1)
        # What lies between the layers may be larger than the tangents.
        return max(1, min(_PIECE // theta.nbytes, _BUFFERS // max(seen.bytes, 1)))

    def _watch(self, theta: Tensor, x: Tensor, y: Tensor) -> Watch:
        key = (x.shape, y.shape, theta.dtype, theta.device)
        if key not in self._watched:
            with Watch() as watch:
                grad(self.loss)(theta, x, y)
            self._watched[key] = watch  # not before: a loss that fails was not seen to its end
        return self._watched[key]

    def _way(self, theta: Tensor, x: Tensor, y: Tensor, tangents: Tensor) -> _Way:
        inputs = (theta, x, y, tangents)
        key = tuple((t.shape, t.stride(), t.dtype, t.device) for t in inputs)
        if key not in self._ways:
            self._ways[key] = self._trace(*inputs)
        return self._ways[key]

    def _untraced(self, slow: str = "") -> Untraced:
        return Untraced(self.loss, slow)

    def _trace(self, theta: Tensor, x: Tensor, y: Tensor, tangents: Tensor) -> _Way:
        inputs = (theta, x, y, tangents)
        if self.untraced:
            return self._untraced(self.untraced)
        sized = self._watch(theta, x, y).sized
        if sized:
            # The graph would keep the first batch's size (a mask's count, say) as a number: the
            # next product would fail, or come out wrong.
            self.untraced = f"a size depends on the data ({sized})"
            return self._untraced(self.untraced)
        try:
            direct = self._untraced().all
            graph = trace(lambda t, x, y, v: direct(t, x, y, v), *inputs)
            if not pure(graph):
                raise ValueError("the loss draws random numbers, or writes to its inputs")
            return _Traced(graph, theta)
        except Exception as error:
            # A loss that looks at values (as `if loss > 1`) cannot be traced. If it cannot be
            # differentiated either, the untraced call says so in the user's own terms.
            self._untraced().all(*inputs)
            self.untraced = f"{type(error).__name__}: {error}"
            return self._untraced(self.untraced)


class _Way(Protocol):
    """A way to get products: what the tangents share, then the tangents.

    Attributes:
        slow: Why it is slower than it could be; empty where it is not.
    """

    slow: str

    def prepare(self, theta: Tensor, x: Tensor, y: Tensor, *, gradient: bool) -> tuple[Any, Any]:
        """Compute what the tangents share; the gradient comes first, if it is wanted."""

    def multiply(
        self, tangents: Tensor, ready: Any, inputs: tuple[Tensor, ...]
    ) -> Sequence[Tensor]:
        """Give H V in parts that lie side by side; the next call may overwrite them."""


class Untraced:
    """Through the function transforms, as they are."""

    def __init__(self, loss: Loss, slow: str = "") -> None:
        self._loss, self.slow = loss, slow

    def prepare(self, theta: Tensor, x: Tensor, y: Tensor, *, gradient: bool) -> tuple[Any, Any]:
        """Give the gradient and the function that pulls tangents back through it."""
        del gradient
        return pullback(lambda t: grad(self._loss)(t, x, y), theta)

    def multiply(
        self, tangents: Tensor, ready: Any, inputs: tuple[Tensor, ...]
    ) -> Sequence[Tensor]:
        """Give H V (K, P) in one part."""
        del inputs
        return [vmap(lambda v: ready(v)[0])(tangents)]

    def all(self, theta: Tensor, x: Tensor, y: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        """Give the gradient (P,) and H V (K, P)."""
        gradient, ready = self.prepare(theta, x, y, gradient=True)
        return gradient, self.multiply(tangents, ready, ())[0]


class _Traced:
    """Through a graph of `Untraced.all`."""

    slow = ""

    def __init__(self, graph: fx.GraphModule, theta: Tensor) -> None:
        simplify(graph)
        share_exponentials(graph)
        on_cpu = theta.device.type == "cpu"
        fuse(graph)
        gradient, product = next(iter(reversed(graph.graph.nodes))).args[0]
        halves = split(graph, [gradient], parts_of(product))
        self._shared = halves.shared
        self._early: Callable[..., Any] = halves.early
        self._late: Callable[..., Any] = halves.late
        self._handed: list[int] = []
        self._ready: tuple[list[tuple[Tensor, int]], list[Tensor]] | None = None
        self._planned = on_cpu
        if on_cpu:
            early = Planned(halves.early)
            fixed = early.fixed[1:]
            # What the early half hands over lies in its buffers: the late half finds it there.
            late = Planned(halves.late, [None, *(None for _ in halves.shared), *fixed])
            self._early, self._late = early, late
            self._handed = [k for k, value in enumerate(fixed) if value is None]

    def prepare(self, theta: Tensor, x: Tensor, y: Tensor, *, gradient: bool) -> tuple[Any, Any]:
        if self._planned:
            # Lanczos steps ask at one point again and again, and the buffers hold what they share.
            given = [(t, t._version) for t in (theta, x, y) if not t.is_inference()]
            if self._ready is not None and not gradient and _same(self._ready[0], given):
                return None, self._ready[1]
            found, *ready = self._early(theta, x, y, skip_first=not gradient)
            ready = [ready[k] for k in self._handed]
            self._ready = given, ready
        else:
            found, *ready = self._early(theta, x, y)
        return (found.clone() if gradient else None), ready

    def multiply(
        self, tangents: Tensor, ready: Any, inputs: tuple[Tensor, ...]
    ) -> Sequence[Tensor]:
        return self._late(tangents, *(inputs[k] for k in self._shared), *ready)


def _filled(tangents: Tensor) -> Tensor:
    """Add rows of zeros up to one of a few counts, at most a quarter more: each has its graph."""
    count = max(len(tangents), 1)
    step = 1 << max(0, (count - 1).bit_length() - 3)
    missing = -count % step
    return torch.nn.functional.pad(tangents, (0, 0, 0, missing)) if missing else tangents


def _same(known: list[tuple[Tensor, int]], given: list[tuple[Tensor, int]]) -> bool:
    """Whether three tensors are the very same, and nobody has written into them since."""
    pairs = zip(known, given, strict=False)
    return len(known) == len(given) == 3 and all(
        a is b and before == now for (a, before), (b, now) in pairs
    )


def _shares(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
