"""Matrix products of a traced graph, folded into fewer and given to the faster library.

A product with K tangents multiplies K matrices with one that they share: one large product instead
of K small ones. torch hands float32 products on the CPU to MKL, which leaves half the speed of
processors that are not Intel's unused; oneDNN, which torch ships as well, does not. Both sum in
float32: the results differ by rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from capacity.products.traced_graphs import looks

aten = torch.ops.aten

_WORTH = 2e6
"""Multiplications and additions below which calling oneDNN costs more than it saves."""

LARGE = 8e6
"""The same, above which a product is worth a call of its own, and folding would only copy."""


_FOLD = 32
"""Size of the dimensions of a product with a shared factor below which laying out anew what is not
shared costs more than it saves."""


def available() -> bool:
    """Tell whether oneDNN can be called.

    Returns:
        Whether this torch has the operation, and the user has not switched oneDNN off.
    """
    backend = torch.backends.mkldnn
    if not (backend.is_available() and getattr(backend, "enabled", True)):
        return False
    return hasattr(torch.ops.mkldnn, "_linear_pointwise")


def product(
    a: Tensor, b: Tensor, plus: Tensor | None = None, *, out: Tensor | None = None
) -> Tensor:
    """Multiply matrices: a b, or plus + a b.

    Args:
        a: (M, N).
        b: (N, L).
        plus: What to add, (M, L) or (L,).
        out: Where a sum goes (M, L); a mere product is a new tensor.

    Returns:
        The result.
    """
    made = _linear(a, b.t())
    return made if plus is None else _put(made, plus, out)


def shared_left(
    a: Tensor, b: Tensor, plus: Tensor | None = None, *, out: Tensor | None = None
) -> Tensor:
    """Multiply one matrix with each of K.

    Args:
        a: (M, N).
        b: (K, N, L).
        plus: What to add (K, M, L).
        out: Where the result goes (K, M, L).

    Returns:
        The result.
    """
    assert out is not None
    count, inner, width = b.shape
    rows = b.transpose(1, 2)
    if 2 * len(a) * inner * width >= LARGE:
        for k in range(count):
            _put(_linear(a, rows[k]), None if plus is None else plus[k], out[k])
        return out
    made = _linear(a, rows.reshape(count * width, inner))
    return _put(made.view(len(a), count, width).transpose(0, 1), plus, out)


def shared_right(
    b: Tensor, a: Tensor, plus: Tensor | None = None, *, out: Tensor | None = None
) -> Tensor:
    """Multiply each of K matrices with one.

    Args:
        b: (K, M, N).
        a: (N, L).
        plus: What to add (K, M, L).
        out: Where a sum goes (K, M, L); a mere product is a new tensor.

    Returns:
        The result.
    """
    made = _linear(b.reshape(-1, b.shape[-1]), a.t()).view(*b.shape[:2], a.shape[1])
    return made if plus is None else _put(made, plus, out)


def choose(graph: fx.GraphModule) -> None:
    """Replace the matrix products of a float32 graph that gain by it.

    Args:
        graph: A simplified graph for the CPU, changed in place; then one for `Planned` alone.
    """
    for node in list(graph.graph.nodes):
        made = _replacement(node)
        if made is None:
            continue
        target, arguments = made
        into, add = _sum_of(node)
        with graph.graph.inserting_before(into):
            new = graph.graph.call_function(target, (*arguments, *([] if add is None else [add])))
        new.meta = dict(into.meta)
        into.replace_all_uses_with(new)
        graph.graph.erase_node(into)
        if into is not node:
            graph.graph.erase_node(node)


def _replacement(node: fx.Node) -> tuple[Any, tuple[Any, ...]] | None:
    if node.target not in {aten.mm.default, aten.bmm.default, aten.addmm.default} or node.kwargs:
        return None
    result = looks(node)
    if result is None or result.dtype != torch.float32:
        return None
    arguments: Any = node.args
    *plus, a, b = arguments
    if 2 * result.numel() * looks(a).shape[-1] < _WORTH:
        return None
    if node.target is not aten.bmm.default:
        return product, (a, b, *plus)
    one = _same_for_all(a)
    if one is not None and min(*looks(one).shape, looks(b).shape[-1]) >= _FOLD:
        return shared_left, (one, b)
    if (one := _same_for_all(b)) is not None and len(looks(one)) >= _FOLD:
        return shared_right, (a, one)
    return None


def _same_for_all(node: Any) -> Any:
    if node.target is aten.expand.default and looks(node.args[0]).dim() == 2:
        return node.args[0]
    return None


def _sum_of(node: fx.Node) -> tuple[fx.Node, fx.Node | None]:
    """Find the sum that is all a product is for, and the other summand."""
    users = list(node.users)
    if node.target is not aten.addmm.default and len(users) == 1:
        (user,) = users
        if user.target is aten.add.Tensor and not user.kwargs:
            other: Any = user.args[1] if user.args[0] is node else user.args[0]
            fits = isinstance(other, fx.Node) and other is not node
            if fits and looks(other).shape == looks(user).shape == looks(node).shape:
                return user, other
    return node, None


def _linear(rows: Tensor, weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], "")


def _put(made: Tensor, plus: Tensor | None, out: Tensor | None) -> Tensor:
    assert out is not None
    return out.copy_(made) if plus is None else torch.add(made, plus, out=out)
