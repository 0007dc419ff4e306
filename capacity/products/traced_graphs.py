"""Traced tensor graphs: simplified, and split by what they depend on."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

aten = torch.ops.aten

_TRANSPOSES = {aten.t.default, aten.transpose.int}
_RESHAPES = {aten.view.default, aten._unsafe_view.default, aten.expand.default}
_SPLITS = {aten.split_with_sizes.default}
_ZEROS = {aten.zeros_like.default, aten.zeros.default, aten.new_zeros.default}


def trace(function: Callable[..., Any], *inputs: Tensor) -> fx.GraphModule:
    """Trace a function of tensors.

    Args:
        function: The function; pure.
        inputs: Its arguments, of the shapes that the graph is for.

    Returns:
        Its graph, without operations that write in place.
    """
    # One description of tensors for the whole graph: left alone, `make_fx` makes one per operation,
    # each with a copy of the call stack, which takes as long as all the rest.
    with tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))):
        # Some backward formulas write in place; merging and dropping nodes needs pure ones.
        return make_fx(functionalize(function))(*inputs)


def pure(graph: fx.GraphModule) -> bool:
    """Tell whether a graph may be rearranged.

    Args:
        graph: A traced graph.

    Returns:
        Whether no operation writes to its inputs or draws random numbers.
    """
    return all(map(_pure, graph.graph.nodes))


def simplify(graph: fx.GraphModule) -> None:
    """Merge what a pure graph computes twice, and drop what nobody reads or needs.

    Args:
        graph: A graph as `make_fx` traces it; changed in place.
    """
    for node in graph.graph.nodes:
        _describe(node)
    _slice_splits(graph)
    seen: dict[object, fx.Node] = {}
    for node in list(graph.graph.nodes):
        if node.op != "call_function":
            continue
        instead = _shorter(node)
        if instead is None:
            key = (node.target, _hashable(node.args), _hashable(node.kwargs))
            instead = seen.setdefault(key, node)
        if instead is not node:
            node.replace_all_uses_with(instead)
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def fuse(graph: fx.GraphModule) -> None:
    """Turn pairs of operations into one where torch has a kernel for both.

    Args:
        graph: A simplified graph; changed in place.
    """
    _fuse_products(graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def share_exponentials(graph: fx.GraphModule) -> None:
    """Write the backward of log-softmax with the exponential that was computed already.

    The kernel takes it anew for every tangent: g - exp(out) sum(g) is the same.

    Args:
        graph: A simplified graph; changed in place.
    """
    for node in list(graph.graph.nodes):
        if node.target is not aten._log_softmax_backward_data.default:
            continue
        g, out, dim, _ = node.args
        while out.target is aten.expand.default:
            out = out.args[0]
        if looks(out) is None or looks(g).dtype != looks(node).dtype:
            continue
        exponential = next((n for n in out.users if n.target is aten.exp.default), None)
        if exponential is None:
            continue
        if exponential is not out.next:
            out.append(exponential)
        with graph.graph.inserting_before(node):
            total = graph.graph.call_function(aten.sum.dim_IntList, (g, [dim], True))
            total.meta["looks"] = looks(g).sum(dim, keepdim=True)
            scaled = graph.graph.call_function(aten.mul.Tensor, (total, exponential))
            scaled.meta["looks"] = total.meta["looks"] * looks(exponential)
            made = graph.graph.call_function(aten.sub.Tensor, (g, scaled))
            made.meta["looks"] = looks(g) - scaled.meta["looks"]
        node.replace_all_uses_with(made)
        graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def parts_of(node: fx.Node) -> list[fx.Node]:
    """Find what a graph concatenates along the last dimension at its end.

    Args:
        node: A result of a simplified graph.

    Returns:
        The parts in order; the result itself where it is no concatenation.
    """
    if node.target is not aten.cat.default or len(node.users) > 1:
        return [node]
    arguments: Any = node.args
    parts, dim = arguments[0], (arguments[1] if len(arguments) > 1 else 0)
    last = len(looks(node).shape) - 1
    return list(parts) if dim in {last, -1} else [node]


@dataclass(frozen=True)
class Halves:
    """A graph in two halves.

    Attributes:
        early: What does not depend on the graph's last input: takes the others, gives the early
            outputs, then what the late half reads.
        shared: Which of the graph's inputs the late half reads as well.
        late: The rest: takes the last input, the shared ones, what was handed over.
    """

    early: fx.GraphModule
    shared: tuple[int, ...]
    late: fx.GraphModule


def split(graph: fx.GraphModule, early: list[fx.Node], late: list[fx.Node]) -> Halves:
    """Split a graph into what does not depend on its last input, and the rest.

    Args:
        graph: A graph whose inputs are tensors.
        early: Nodes of it to give from the early half; they must not depend on the last input.
        late: Nodes to give from the late half.

    Returns:
        The halves.
    """
    nodes = list(graph.graph.nodes)
    inputs = [n for n in nodes if n.op == "placeholder"]
    depends = {inputs[-1]}
    for node in nodes:
        if not depends.isdisjoint(node.all_input_nodes):
            depends.add(node)
    assert depends.isdisjoint(early)
    read: dict[fx.Node, None] = {}
    for node in nodes:
        if node in depends and node.op == "call_function":
            read |= dict.fromkeys(n for n in node.all_input_nodes if n not in depends)
    read |= dict.fromkeys(node for node in late if node not in depends)
    shared = [k for k, node in enumerate(inputs) if node in read]
    handed = [node for node in read if node.op != "placeholder"]

    def half(given: list[fx.Node], body: set[fx.Node], results: list[fx.Node]) -> fx.GraphModule:
        new = fx.Graph()
        made = {node: new.placeholder(node.name) for node in given}
        for node in nodes:
            if node in body and node not in made and node.op not in {"placeholder", "output"}:
                made[node] = new.node_copy(node, made.__getitem__)
        new.output(tuple(made[node] for node in results))
        for node, copy in made.items():
            copy.meta = dict(node.meta)
        new.eliminate_dead_code()
        return fx.GraphModule(graph, new)

    first = set(nodes) - depends
    return Halves(
        early=half(inputs[:-1], first, early + handed),
        shared=tuple(shared),
        late=half([inputs[-1], *(inputs[k] for k in shared), *handed], depends, late),
    )


def _slice_splits(graph: fx.GraphModule) -> None:
    """Take each part of a split by itself, as a view like any other."""
    for node in list(graph.graph.nodes):
        arguments: Any = node.args
        if node.target is not operator.getitem or arguments[0].target not in _SPLITS:
            continue
        (whole, sizes, *dim), part = arguments[0].args, arguments[1]
        start = sum(sizes[:part])
        with graph.graph.inserting_before(node):
            where = (whole, dim[0] if dim else 0, start, start + sizes[part])
            made = graph.graph.call_function(aten.slice.Tensor, where)
        made.meta = dict(node.meta)
        node.replace_all_uses_with(made)
        graph.graph.erase_node(node)


def _shorter(node: fx.Node) -> fx.Node | None:
    """Find an earlier node with the same value, or None."""
    source: Any = node.args[0] if node.args else None
    if node.target is aten.detach.default:
        return source
    if node.target in _TRANSPOSES and isinstance(source, fx.Node):
        if source.target in _TRANSPOSES and _swapped(node) == _swapped(source):
            untouched: Any = source.args[0]
            return untouched
        return None
    if node.target in _RESHAPES:
        return source if _like(source, node) else None
    if node.target is aten.mul.Scalar and node.args[1] == 1:
        return source if _like(source, node) else None
    if node.target is aten.add.Tensor and not node.kwargs:
        pair: Any = node.args
        for kept, zero in (pair, pair[::-1]):
            if getattr(zero, "target", None) in _ZEROS and _like(kept, node):
                return kept
    return None


def _fuse_products(graph: fx.GraphModule) -> None:
    """Let a batched matrix product add to what is there, where that is all its result is for."""
    for node in list(graph.graph.nodes):
        if node.target is not aten.add.Tensor or node.kwargs:
            continue
        for kept, product in (node.args[::-1], node.args):
            fits = isinstance(product, fx.Node) and product.target is aten.bmm.default
            if fits and len(product.users) == 1 and _like(product, node) and _like(kept, node):
                with graph.graph.inserting_before(node):
                    fused = graph.graph.call_function(aten.baddbmm.default, (kept, *product.args))
                fused.meta = dict(node.meta)
                node.replace_all_uses_with(fused)
                graph.graph.erase_node(node)
                break


def _describe(node: fx.Node) -> None:
    """Keep what a node's result looks like as a tensor without storage, to compute with."""
    seen = node.meta.get("val")
    if isinstance(seen, Tensor):
        node.meta["looks"] = torch.empty_strided(
            seen.shape, seen.stride(), dtype=seen.dtype, device="meta"
        )


def looks(node: Any) -> Any:
    """Describe what a node gives.

    Args:
        node: An argument of a node of a simplified graph.

    Returns:
        A tensor without storage, of the same shape, strides and dtype; None where the argument is
        no node, or does not give a tensor.
    """
    return node.meta.get("looks") if isinstance(node, fx.Node) else None


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(looks(node).shape)


def _like(node: Any, other: fx.Node) -> bool:
    a, b = looks(node), looks(other)
    return a is not None and a.shape == b.shape and a.dtype == b.dtype


def _swapped(node: fx.Node) -> tuple[int, ...]:
    dims = len(_shape(node))
    pair: Any = (0, dims - 1) if node.target is aten.t.default else node.args[1:3]
    return tuple(sorted(d % dims for d in pair))


def _pure(node: fx.Node) -> bool:
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return True
    random = torch.Tag.nondeterministic_seeded in node.target.tags
    return not (node.target._schema.is_mutable or random)


def _hashable(argument: object) -> object:
    if isinstance(argument, fx.Node):
        return ("node", argument.name)
    if isinstance(argument, list | tuple):
        return tuple(_hashable(part) for part in argument)
    if isinstance(argument, dict):
        return tuple((key, _hashable(value)) for key, value in argument.items())
    return (type(argument), repr(argument))
