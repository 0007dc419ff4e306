"""Run a traced graph on the CPU in memory of its own.

A result of some megabytes that is allocated anew at each step is paged in anew at each step, which
takes longer than computing it. So the results of a graph that runs at every step go to buffers that
are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from capacity.products.traced_graphs import looks

aten = torch.ops.aten


class Planned:
    """A graph on the CPU whose results go to buffers that are kept between calls.

    Other devices' allocators keep memory by themselves.

    What is returned may be overwritten by the next call. Results that are not needed at the same
    time share a buffer.

    Args:
        graph: The graph.
        bound: Values of its inputs that are the same tensors in every call, None for the others;
            left out, all inputs are given with each call.

    Attributes:
        bytes: Size of the buffers.
        fixed: The outputs that are the same tensors in every call, None for the others.
    """

    def __init__(self, graph: fx.GraphModule, bound: Sequence[Tensor | None] | None = None) -> None:
        nodes = list(graph.graph.nodes)
        inputs = [node for node in nodes if node.op == "placeholder"]
        self.bytes = 0
        self._slot = {node: k for k, node in enumerate(nodes)}
        self._values: list[Any] = [None] * len(nodes)
        self._constants = graph
        self._known: set[fx.Node] = set()  # their value is the same tensor in every call
        for node, value in zip(inputs, bound or [None] * len(inputs), strict=True):
            if value is not None:
                self._values[self._slot[node]] = value
                self._known.add(node)
        self._inputs = [self._slot[n] for n in inputs if n not in self._known]
        self._steps: list[_Step] = []
        self._plan([node for node in nodes if node.op not in {"placeholder", "output"}], nodes[-1])
        results: Any = nodes[-1].args[0]
        self._outputs = [self._slot[node] for node in results]
        self.fixed = [
            self._values[self._slot[node]] if node in self._known else None for node in results
        ]
        wanted = _needed(results[1:])
        self._rest = [
            step for step, node in zip(self._steps, self._taken, strict=True) if node in wanted
        ]
        known = {self._slot[node] for node in self._known}
        self._passing = [k for k in range(len(nodes)) if k not in known]

    def __call__(self, *inputs: Tensor, skip_first: bool = False) -> list[Tensor]:
        """Run the graph.

        Args:
            inputs: As the graph's, without the bound ones.
            skip_first: Leave out what only the first output needs; that one is then void.

        Returns:
            Its outputs.
        """
        values = self._values
        for slot, value in zip(self._inputs, inputs, strict=True):
            values[slot] = value
        for slot, call in self._rest if skip_first else self._steps:
            values[slot] = call(values)
        made = [values[slot] for slot in self._outputs]
        for slot in self._passing:
            values[slot] = None  # the caller's tensors are not ours to keep
        return made

    def _plan(self, nodes: list[fx.Node], output: fx.Node) -> None:
        last = _last_uses(nodes, output, self._slot)
        free: list[Tensor] = []
        ending: dict[int, list[Tensor]] = {}
        known = self._known
        self._taken: list[fx.Node] = []
        for node in nodes:
            slot = self._slot[node]
            if node.op == "get_attr":
                self._values[slot] = getattr(self._constants, str(node.target))
                known.add(node)
                continue
            kwargs = dict(node.kwargs)
            target: Any = node.target
            if node.target in _CONSTANT and looks(node) is not None:
                self._values[slot] = _CONSTANT[target](looks(node), device="cpu")
                known.add(node)
                continue
            written = _out_variant(node)
            if written is not None:
                meta = looks(node)
                memory = _take(free, meta)
                if memory is None:
                    memory = torch.empty(_numel(meta), dtype=meta.dtype, device="cpu")
                    self.bytes += memory.nbytes
                ending.setdefault(last[node], []).append(memory)
                target, name = written
                kwargs[name] = memory[: _numel(meta)].as_strided(meta.shape, meta.stride())
                self._values[slot] = kwargs[name]
                known.add(node)
            sources = node.all_input_nodes
            window = self._window(node)
            if window is not None:
                self._take_step(node, window)
                continue
            arguments = fx.node.map_arg(node.args, lambda n: self._slot_or_value(n, known))
            if written is None and _is_view(node) and all(n in known for n in sources):
                self._values[slot] = target(*arguments, **kwargs)
                known.add(node)
            elif all(n in known for n in sources):
                self._take_step(node, _fixed(target, arguments, kwargs))
            else:
                self._take_step(node, _varying(target, arguments, kwargs))
            free += ending.pop(slot, [])

    def _take_step(self, node: fx.Node, call: Callable[[list[Any]], Any]) -> None:
        self._steps.append((self._slot[node], call))
        self._taken.append(node)

    def _window(self, node: fx.Node) -> Callable[[list[Any]], Tensor] | None:
        """Take a chain of views of an input in one step."""
        chain = [node]
        while _is_view(chain[-1]) and isinstance(chain[-1].args[0], fx.Node):
            chain.append(chain[-1].args[0])
        source = chain[-1]
        given = source.op == "placeholder" and source not in self._known
        if len(chain) == 1 or not given or looks(node) is None:
            return None
        wanted = looks(node)
        seen = looks(source)
        for link in reversed(chain[:-1]):
            view: Any = link.target
            seen = view(seen, *link.args[1:], **link.kwargs)
        assert seen.shape == wanted.shape
        slot, offset = self._slot[source], seen.storage_offset()
        size, stride = tuple(seen.shape), seen.stride()

        def window(values: list[Any]) -> Tensor:
            whole = values[slot]
            return whole.as_strided(size, stride, whole.storage_offset() + offset)

        return window

    def _slot_or_value(self, node: fx.Node, known: set[fx.Node]) -> Any:
        slot = self._slot[node]
        return self._values[slot] if node in known else _Slot(slot)


_Step = tuple[int, Callable[[list[Any]], Any]]
"""Which value a step gives, and how to get it from the others."""


class _Slot(int):
    """Where an argument is found when the step is taken."""


def _fixed(target: Any, arguments: Any, kwargs: dict[str, Any]) -> Callable[[list[Any]], Any]:
    return lambda _: target(*arguments, **kwargs)


def _varying(target: Any, arguments: Any, kwargs: dict[str, Any]) -> Callable[[list[Any]], Any]:
    def fill(argument: Any, values: list[Any]) -> Any:
        if type(argument) is _Slot:
            return values[argument]
        if isinstance(argument, list | tuple):
            return [fill(part, values) for part in argument]
        return argument

    return lambda values: target(*[fill(a, values) for a in arguments], **kwargs)


_CONSTANT = {aten.ones_like.default: torch.ones_like, aten.zeros_like.default: torch.zeros_like}
"""Operations whose results do not depend on the values of their inputs."""

_WRITABLE = {
    aten.add.Tensor: (torch.add, "out"),
    aten.addmm.default: (torch.addmm, "out"),
    aten.baddbmm.default: (torch.baddbmm, "out"),
    aten.bmm.default: (torch.bmm, "out"),
    aten.div.Tensor: (torch.div, "out"),
    aten.exp.default: (torch.exp, "out"),
    aten.gelu.default: (aten.gelu.out, "out"),
    aten.gelu_backward.default: (aten.gelu_backward.grad_input, "grad_input"),
    aten._log_softmax.default: (aten._log_softmax.out, "out"),
    aten._log_softmax_backward_data.default: (aten._log_softmax_backward_data.out, "out"),
    aten.mm.default: (torch.mm, "out"),
    aten.mul.Tensor: (torch.mul, "out"),
    aten.neg.default: (torch.neg, "out"),
    aten.pow.Tensor_Scalar: (aten.pow.Tensor_Scalar_out, "out"),
    aten.sigmoid_backward.default: (aten.sigmoid_backward.grad_input, "grad_input"),
    aten._softmax.default: (aten._softmax.out, "out"),
    aten._softmax_backward_data.default: (aten._softmax_backward_data.out, "grad_input"),
    aten.sub.Tensor: (torch.sub, "out"),
    aten.sum.dim_IntList: (torch.sum, "out"),
    aten.tanh.default: (torch.tanh, "out"),
    aten.tanh_backward.default: (aten.tanh_backward.grad_input, "grad_input"),
    aten.threshold_backward.default: (aten.threshold_backward.grad_input, "grad_input"),
}
"""Operations whose kernels write where they are told; the others allocate their results."""


def _out_variant(node: fx.Node) -> tuple[Any, str] | None:
    meta = looks(node)
    if node.target not in _WRITABLE or meta is None:
        return None
    if any(
        stride == 0 and size > 1 for size, stride in zip(meta.shape, meta.stride(), strict=True)
    ):
        return None
    extent = 1 + sum((n - 1) * s for n, s in zip(meta.shape, meta.stride(), strict=True))
    return _WRITABLE[node.target] if extent == _numel(meta) else None


def _needed(results: Sequence[fx.Node]) -> set[fx.Node]:
    """Find what results depend on."""
    found: set[fx.Node] = set()
    open_ = list(results)
    while open_:
        node = open_.pop()
        if node not in found:
            found.add(node)
            open_ += node.all_input_nodes
    return found


def _last_uses(
    nodes: list[fx.Node], output: fx.Node, slot: dict[fx.Node, int]
) -> dict[fx.Node, int]:
    """Find where each result is read last, by itself or through what may be a view of it."""
    last: dict[fx.Node, int] = {}
    for node in reversed(nodes):
        reads = [slot[node]]
        for user in node.users:
            reads.append(slot[user])
            # What has a kernel of its own is no view; of anything else it is not known.
            if user is not output and user.target not in _WRITABLE:
                reads.append(last[user])
        last[node] = max(reads)
    return last


def _is_view(node: fx.Node) -> bool:
    target = node.target
    return target is aten._unsafe_view.default or (
        isinstance(target, torch._ops.OpOverload) and target.is_view
    )


def _take(free: list[Tensor], meta: Any) -> Tensor | None:
    """Take the smallest free buffer that fits, unless it is far too large."""
    wanted = _numel(meta)
    fitting = [m for m in free if m.dtype == meta.dtype and wanted <= m.numel() <= 2 * wanted + 64]
    if not fitting:
        return None
    best = min(fitting, key=Tensor.numel)
    free[:] = [m for m in free if m is not best]
    return best


def _numel(meta: Any) -> int:
    return math.prod(meta.shape)
