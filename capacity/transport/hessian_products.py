"""H V for many tangents on one batch, through one traced graph that is reused over steps.

The Hessian of a scalar loss is symmetric, so reverse over reverse gives H v without a forward-mode
pass: the gradient's own VJP, vmapped over tangents. The graph of that is traced once per set of
shapes, its common subexpressions are merged, and every further step calls the plain list of tensor
operations that is left, without any dispatch through the function transforms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.func import functionalize, grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from capacity.differential import pullback
from capacity.interruption import check

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(theta (P,), x, y) -> mean loss, a scalar."""

_Products = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class HessianProducts:
    """Products with the Hessian of a loss, for K tangents at once.

    Attributes:
        loss: The loss; a pure function of (theta, x, y).
        untraced: Why products run untraced, several times slower; empty where they are traced.
    """

    def __init__(self, loss: Loss) -> None:
        self.loss = loss
        self.untraced = ""
        self._graphs: dict[object, _Products] = {}

    def __call__(self, theta: Tensor, x: Tensor, y: Tensor, tangents: Tensor) -> Tensor:
        """Multiply tangents with the Hessian.

        Args:
            theta: Where (P,).
            x: Inputs of the batch.
            y: Targets of the batch.
            tangents: V, one per row (K, P).

        Returns:
            H V, one per row (K, P).
        """
        return self.with_gradient(theta, x, y, tangents)[1]

    @torch.no_grad()
    def with_gradient(
        self, theta: Tensor, x: Tensor, y: Tensor, tangents: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Multiply tangents with the Hessian, and give the gradient, which comes for free.

        Args:
            theta: Where (P,).
            x: Inputs of the batch.
            y: Targets of the batch.
            tangents: V, one per row (K, P).

        Returns:
            The gradient (P,) and H V (K, P).
        """
        check()
        inputs = (theta, x, y, tangents)
        key = tuple((t.shape, t.stride(), t.dtype, t.device) for t in inputs)
        if key not in self._graphs:
            self._graphs[key] = self._trace(*inputs)
        return self._graphs[key](*inputs)

    def _one_by_one(
        self, theta: Tensor, x: Tensor, y: Tensor, tangents: Tensor
    ) -> tuple[Tensor, Tensor]:
        made = [self.with_gradient(theta, x, y, row[None]) for row in tangents]
        return made[0][0], torch.cat([product for _, product in made])

    def _direct(
        self, theta: Tensor, x: Tensor, y: Tensor, tangents: Tensor
    ) -> tuple[Tensor, Tensor]:
        gradient, pull = pullback(lambda t: grad(self.loss)(t, x, y), theta)
        return gradient, vmap(lambda v: pull(v)[0])(tangents)

    def _trace(self, theta: Tensor, x: Tensor, y: Tensor, tangents: Tensor) -> _Products:
        def direct(t: Tensor, x: Tensor, y: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            return self._direct(t, x, y, v)

        with _SizeWatch() as watch:
            grad(self.loss)(theta, x, y)
        if watch.found:
            # The graph would keep the first batch's size (a mask's count, say) as a number: the
            # next product would fail, or come out wrong.
            self.untraced = f"a size depends on the data ({watch.found})"
            return direct
        try:
            # Some backward formulas write in place; merging and dropping nodes needs pure ones.
            graph = simplified(make_fx(functionalize(direct))(theta, x, y, tangents))
            if len(tangents) > 1 and _convolves(graph):
                # vmap turns a convolution with K tangent weights into one with K groups, for which
                # the kernels are slow: one tangent after the other is several times faster.
                return self._one_by_one
            return graph
        except Exception as error:
            # A loss that looks at values (as `if loss > 1`) cannot be traced. If it cannot be
            # differentiated either, the untraced call says so in the user's own terms.
            direct(theta, x, y, tangents)
            self.untraced = f"{type(error).__name__}: {error}"
            return direct


class _SizeWatch(TorchDispatchMode):
    """Looks for operations whose result's size depends on values, not only on sizes.

    Watched outside the tracer, which drops those of which nothing but the size is used.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found = ""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        if torch.Tag.dynamic_output_shape in func.tags and not _plain_index(func, args):
            self.found = str(func)
        return func(*args, **(kwargs or {}))


def _plain_index(func: Any, args: Any) -> bool:
    """Whether this is indexing by numbers, not by a mask."""
    if func is not torch.ops.aten.index.Tensor:
        return False
    return not any(i is not None and i.dtype in {torch.bool, torch.uint8} for i in args[1])


def _convolves(graph: fx.GraphModule) -> bool:
    return any("convolution" in str(node.target) for node in graph.graph.nodes)


def simplified(graph: fx.GraphModule) -> fx.GraphModule:
    """Merge what a traced graph computes twice, and drop what nobody reads.

    Args:
        graph: A traced graph; changed in place, unless it holds an operation that writes to its
            inputs or draws random numbers.

    Returns:
        The graph.
    """
    if not all(map(_pure, graph.graph.nodes)):
        return graph
    seen: dict[object, fx.Node] = {}
    for node in list(graph.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target is torch.ops.aten.detach.default:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
            continue
        key = (node.target, _hashable(node.args), _hashable(node.kwargs))
        if key in seen:
            node.replace_all_uses_with(seen[key])
            graph.graph.erase_node(node)
        else:
            seen[key] = node
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


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
