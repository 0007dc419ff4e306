"""Feature-major activations: K tangents' activations as (K, features, samples).

Traced as written, a product with K tangents has activations (K, n, f), n samples by f features. A
layer turns them into x V' for K tangent weights V (K, f, g), and the weights' own result sums over
the samples; both take the activations the other way round, so each layer copies them across twice.
Kept as (K, f, n), both are one product of rows that lie as they are needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from capacity.products.traced_graphs import looks, simplify

aten = torch.ops.aten

_ELEMENTWISE = {
    aten.add.Scalar,
    aten.add.Tensor,
    aten.div.Scalar,
    aten.div.Tensor,
    aten.gelu_backward.default,
    aten.mul.Scalar,
    aten.mul.Tensor,
    aten.neg.default,
    aten.pow.Tensor_Scalar,
    aten.sigmoid_backward.default,
    aten.sub.Scalar,
    aten.sub.Tensor,
    aten.tanh_backward.default,
    aten.threshold_backward.default,
}
_VIEWS = {aten.view.default, aten._unsafe_view.default}


class _UnknownError(Exception):
    """An operation on activations of which it is not known how to turn it."""


def feature_major(graph: fx.GraphModule, tangents: fx.Node, *, largest: float) -> None:
    """Turn the activations of a graph of dense layers, if it consists of nothing else.

    Args:
        graph: A simplified graph; changed in place, or left as it is.
        tangents: Its input V (K, P).
        largest: Multiplications and additions in a product above which turning does not pay: a
            large product is taken for each tangent alone, and reads its weights where they lie.
    """
    try:
        activations = _activations(graph, tangents)
        if not activations or any(_work(node) >= largest for node in activations):
            return
        uses = _uses(activations)
        turn = _Turn(graph, len(looks(tangents)), activations)
    except (_UnknownError, RuntimeError):  # torch itself refuses a view that would need a copy
        graph.graph.eliminate_dead_code()
        return
    for user, node in uses:
        with graph.graph.inserting_before(user):
            made = turn.instead_of(user, node)
        user.replace_all_uses_with(made)
        graph.graph.erase_node(user)
    graph.graph.eliminate_dead_code()
    simplify(graph)


def _activations(graph: fx.GraphModule, tangents: fx.Node) -> dict[fx.Node, None]:
    """Find the nodes (K, n, f) that have a row for each sample, in order."""
    found: dict[fx.Node, None] = {}
    for node in graph.graph.nodes:
        if node.op == "call_function" and _is_activation(node, found, tangents):
            found[node] = None
    return found


def _is_activation(node: fx.Node, found: dict[fx.Node, None], tangents: fx.Node) -> bool:
    seen = looks(node)
    if seen is None or seen.dim() != 3 or len(seen) != len(looks(tangents)):
        return False
    arguments: Any = node.args
    if node.target is aten.bmm.default:
        left, right = arguments
        if left in found:
            return True  # summed over features
        # A layer's input, or its gradient, times tangent weights. Else it is summed over samples.
        return _shared(left) is not None and _views(right, tangents)
    if node.target in _ELEMENTWISE:
        return any(part in found for part in node.all_input_nodes)
    if node.target is aten.sum.dim_IntList:
        return arguments[0] in found and _summed(node) == 2
    return _folded(node, found) is not None


def _uses(activations: dict[fx.Node, None]) -> list[tuple[fx.Node, fx.Node]]:
    """Find what reads activations and is none: it has to be told where they are now."""
    found: list[tuple[fx.Node, fx.Node]] = []
    for node in activations:
        for user in node.users:
            if user in activations:
                continue
            across = user.target is aten.transpose.int and _swaps(user)
            over = user.target is aten.bmm.default and user.args[1] is node
            summed = user.target is aten.sum.dim_IntList and _summed(user) == 1
            if across or over or summed:
                found.append((user, node))
            elif not all(_folded(later, activations) for later in _products_of(user)):
                raise _UnknownError
    return found


class _Turn:
    """Builds the turned counterparts of activations, each where it is first asked for."""

    def __init__(self, graph: fx.GraphModule, count: int, activations: dict[fx.Node, None]) -> None:
        self._graph, self._count = graph.graph, count
        self._made: dict[fx.Node, fx.Node] = {}
        for node in activations:
            with self._graph.inserting_after(node):
                anchor = self._graph.call_function(aten.neg.default, (node,))
            with self._graph.inserting_before(anchor):
                self._made[node] = self._turned(node)
            self._graph.erase_node(anchor)

    def instead_of(self, user: fx.Node, node: fx.Node) -> fx.Node:
        """Compute what a reader of an activation computes, from the turned one."""
        turned = self._made[node]
        if user.target is aten.transpose.int:
            return turned
        if user.target is aten.bmm.default:
            return self._call(aten.bmm.default, user.args[0], self._across(turned))
        features = looks(node).shape[2]
        total = self._call(aten.sum.dim_IntList, turned, [2], True)
        return self._call(aten.view.default, total, [self._count, 1, features])

    def _turned(self, node: fx.Node) -> fx.Node:
        arguments: Any = node.args
        if node.target is aten.bmm.default:
            left, right = arguments
            return self._call(aten.bmm.default, self._turn(right), self._turn(left))
        if node.target in _ELEMENTWISE:
            parts = [self._aligned(a) if isinstance(a, fx.Node) else a for a in arguments]
            return self._call(node.target, *parts, **node.kwargs)
        if node.target is aten.sum.dim_IntList:
            return self._call(node.target, self._made[arguments[0]], [1], True)
        inner, weight = _fold_of(node)
        shared = self._call(aten.t.default, weight)
        return self._call(aten.bmm.default, self._expanded(shared), self._made[inner])

    def _turn(self, node: fx.Node) -> fx.Node:
        if node in self._made:
            return self._made[node]
        shared = _shared(node)
        if shared is not None:
            return self._expanded(self._call(aten.t.default, shared))
        return self._across(node)

    def _aligned(self, node: fx.Node) -> fx.Node:
        """Turn an argument of an elementwise operation, laid out as its partners are."""
        if node in self._made:
            return self._made[node]
        seen = looks(node)
        if seen.dim() == 0:
            return node
        if seen.dim() == 1:
            raise _UnknownError
        if node.target is aten.expand.default and seen.dim() == 3 and seen.stride(1) == 0:
            arguments: Any = node.args  # a bias: one row for all samples
            row = self._call(aten.view.default, arguments[0], [self._count, seen.shape[2], 1])
            return self._call(aten.expand.default, row, list(seen.mT.shape))
        across = self._across(node)
        return self._call(aten.clone.default, across, memory_format=torch.contiguous_format)

    def _expanded(self, matrix: fx.Node) -> fx.Node:
        return self._call(aten.expand.default, matrix, [self._count, *looks(matrix).shape])

    def _across(self, node: fx.Node) -> fx.Node:
        if looks(node).dim() == 2:
            return self._call(aten.t.default, node)
        return self._call(aten.transpose.int, node, 1, 2)

    def _call(self, target: Any, *arguments: Any, **options: Any) -> fx.Node:
        made = self._graph.call_function(target, arguments, options)
        given = fx.node.map_arg((arguments, options), looks)
        made.meta["looks"] = made.meta["val"] = target(*given[0], **given[1])
        return made


def _shared(node: Any) -> Any:
    """The matrix that is the same for all tangents, or None."""
    expands = getattr(node, "target", None) is aten.expand.default
    return node.args[0] if expands and looks(node.args[0]).dim() == 2 else None


def _views(node: Any, whole: fx.Node) -> bool:
    """Whether this is a part of something, however it is looked at."""
    while node is not whole:
        view = isinstance(node.target, torch._ops.OpOverload) and node.target.is_view
        if not view or len(node.all_input_nodes) != 1:
            return False
        (node,) = node.all_input_nodes
    return True


def _folded(node: fx.Node, found: dict[fx.Node, None]) -> fx.Node | None:
    """The activations (K, n, f) behind a product that was taken for all rows (K n, f) at once."""
    if node.target not in _VIEWS or looks(node).dim() != 3:
        return None
    product: Any = node.args[0]
    if product.target is not aten.mm.default:
        return None
    rows: Any = product.args[0]
    if rows.target not in _VIEWS or rows.args[0] not in found:
        return None
    inner = looks(rows.args[0])
    fits = looks(rows).shape == (inner.shape[0] * inner.shape[1], inner.shape[2])
    return rows.args[0] if fits and looks(node).shape[:2] == inner.shape[:2] else None


def _fold_of(node: fx.Node) -> tuple[fx.Node, fx.Node]:
    product: Any = node.args[0]
    rows, weight = product.args
    return rows.args[0], weight


def _products_of(node: fx.Node) -> Iterator[fx.Node]:
    """Follow rows (K n, f) to the products (K, n, g) that are made of them."""
    if node.target not in _VIEWS or looks(node) is None or looks(node).dim() != 2:
        raise _UnknownError
    for product in node.users:
        if product.target is not aten.mm.default or product.args[0] is not node:
            raise _UnknownError
        yield from product.users


def _summed(node: fx.Node) -> int | None:
    """The dimension that a sum runs over and keeps, of three."""
    arguments: Any = node.args
    if len(arguments) != 3 or not arguments[2] or len(arguments[1]) != 1 or node.kwargs:
        return None
    return int(arguments[1][0]) % 3


def _swaps(node: fx.Node) -> bool:
    arguments: Any = node.args
    return sorted(d % 3 for d in arguments[1:3]) == [1, 2]


def _work(node: fx.Node) -> float:
    """Multiplications and additions of a product with one tangent; 0 where it is none."""
    if node.target is aten.bmm.default:
        arguments: Any = node.args
        return 2.0 * looks(node)[0].numel() * looks(arguments[0]).shape[2]
    if node.target in _VIEWS:
        inner, _ = _fold_of(node)
        return 2.0 * looks(node)[0].numel() * looks(inner).shape[2]
    return 0.0
