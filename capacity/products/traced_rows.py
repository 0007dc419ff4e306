"""Functions of many networks at once, each on its own batch: gradients, Hessian products.

A vmapped function is traced once per set of shapes; every further call runs the plain list of
tensor operations that is left. They are the same operations, so the numbers are the same, bit for
bit; what is saved is the dispatch through the function transforms and, on the CPU, paging in fresh
results.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, grad_and_value

from capacity.base.differential import pullback, vmap
from capacity.products.operation_watch import Watch
from capacity.products.planned_memory import Planned
from capacity.products.traced_graphs import pure, simplify, trace

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(theta (P,), x, y) to a scalar; pure."""

_WORTH = 20
"""Calls with the same shapes after which tracing pays: it takes as long as some dozen of them."""


class TracedRows:
    """A function of tensors, run from its trace once it has been called often enough.

    One object per thread: calls share buffers.

    Args:
        function: Tensors to a tuple of tensors; pure.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]]) -> None:
        self._direct = function
        self._calls: dict[object, int] = {}
        self._traced: dict[object, Planned | None] = {}

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Evaluate the function.

        Args:
            inputs: Its arguments, on one device.

        Returns:
            Its results.
        """
        if any(part.device.type != "cpu" for part in inputs):
            return self._direct(*inputs)
        key = tuple((t.shape, t.stride(), t.dtype) for t in inputs)
        count = self._calls[key] = self._calls.get(key, 0) + 1
        if count < _WORTH:
            return self._direct(*inputs)
        if key not in self._traced:
            self._traced[key] = self._trace(inputs)
        planned = self._traced[key]
        if planned is None:
            return self._direct(*inputs)
        return tuple(part.clone() for part in planned(*inputs))  # the next call overwrites them

    def _trace(self, inputs: tuple[Tensor, ...]) -> Planned | None:
        with Watch() as watch:
            self._direct(*inputs)
        if watch.sized:
            return None  # the graph would keep a size that depends on the data as a number
        try:
            graph = trace(self._direct, *inputs)
        except Exception:  # a loss that looks at values; it runs untraced
            return None
        if not pure(graph):
            return None
        simplify(graph)
        return Planned(graph)


def row_gradients(loss: Loss, *, shared: bool = False) -> TracedRows:
    """Take gradients of a loss at every row of theta.

    Args:
        loss: The loss.
        shared: Whether all rows see the same batch.

    Returns:
        (theta (n, P), x (n, b, ...), y (n, b, ...)), without the n of x and y where they are
        shared, to the gradients (n, P) and the losses (n,).
    """
    batch = None if shared else 0
    return TracedRows(vmap(grad_and_value(loss), in_dims=(0, batch, batch)))


def row_products(loss: Loss, *, shared: bool = False) -> TracedRows:
    """Multiply every row's Hessian with a vector of its own.

    Args:
        loss: The loss.
        shared: Whether all rows see the same batch.

    Returns:
        (theta (n, P), x, y, v (n, P)) to a tuple with H v (n, P).
    """

    def product(theta: Tensor, x: Tensor, y: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        _, pull = pullback(lambda t: grad(loss)(t, x, y), theta)
        return (pull(v)[0],)

    batch = None if shared else 0
    return TracedRows(vmap(product, in_dims=(0, batch, batch, 0)))
