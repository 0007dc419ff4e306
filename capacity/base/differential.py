"""Typed spellings of torch.func's products, each with a way where the quick one does not go.

A recurrent layer has no batching rule, an attention mask is looked at, some backward formulas have
no forward mode. What is left then is slower and gives the same numbers: a plain loop in place of
`vmap`, the transpose of the transpose in place of a JVP.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils import _pytree as pytree

from capacity.base.slow_paths import took

_LOOP = "A plain loop stands in place of vmap"


def pushforward(
    function: Callable[..., Any], points: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Any, Any]:
    """Evaluate a function and its JVP (forward mode, or the transpose of the reverse mode).

    Args:
        function: A pure function of tensors.
        points: Its arguments.
        tangents: One tangent per argument.

    Returns:
        The value, and the derivative along the tangents.
    """
    try:
        value, moved = torch.func.jvp(function, points, tangents)  # type: ignore[misc]
    except NotImplementedError:  # an operation without a forward mode
        value, pull = pullback(function, *points)
        nothing = pytree.tree_map(torch.zeros_like, value)
        (moved,) = pullback(pull, nothing)[1](tuple(tangents))
    return value, moved


def pullback(function: Callable[..., Any], *points: Any) -> tuple[Any, Callable[..., Any]]:
    """Evaluate a function and give its VJP (reverse mode).

    Args:
        function: A pure function of tensors.
        points: Its arguments.

    Returns:
        The value, and a function from a cotangent of the value to one cotangent per argument.
    """
    value, transpose = torch.func.vjp(function, *points)  # type: ignore[misc]
    return value, transpose


def slope_of(function: Callable[..., Any]) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """Give gradient and value by plain autograd, which takes functions with moving buffers, too.

    Args:
        function: A function of tensors, to a scalar; it need not be pure.

    Returns:
        A function of the same arguments that gives the gradient in the first one, and the value.
    """

    def of(point: torch.Tensor, *arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.enable_grad():
            leaf = point.detach().requires_grad_()
            value = function(leaf, *arguments)
            return torch.autograd.grad(value, leaf)[0], value.detach()

    return of


def slopes_of(
    function: Callable[..., Any], *, known: bool
) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """Give gradients and values of rows, each of which depends on its own arguments alone.

    The gradient of the values' sum in all rows has those of the rows in it. It is taken outside of
    `vmap`, whose rules for every operation would cost more than a small network's operations.

    Args:
        function: A pure function of tensors, or trees of tensors, to a scalar.
        known: Whether every operation in it is known to have a batching rule of its own. Some have
            none, and only the gradient within `vmap` takes them apart into others that have.

    Returns:
        A function of arguments with a leading dimension that gives the gradients in the first one,
        and the values.
    """
    if not known:
        return vmap(torch.func.grad_and_value(function))
    each = vmap(function)

    def of(points: torch.Tensor, *arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.enable_grad():
            leaf = points.detach().requires_grad_()
            values = each(leaf, *arguments)
            if not values.requires_grad:  # of functions that do not look at the point
                return torch.zeros_like(points), values
            (made,) = torch.autograd.grad(values.sum(), leaf, materialize_grads=True)
            return made, values.detach()

    return of


def hessian(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give the Hessian of a function in its first argument.

    Args:
        function: A pure function of tensors, to a scalar.

    Returns:
        A function of the same arguments.
    """
    quick = torch.func.hessian(function)

    def of(*arguments: Any) -> Any:
        try:
            return quick(*arguments)
        except (NotImplementedError, RuntimeError) as error:
            _check_loop(error)
            took(_LOOP, error)
            slope = torch.func.jacrev(function, chunk_size=1)
            return torch.func.jacrev(slope, chunk_size=1)(*arguments)

    return of


def vmap(
    function: Callable[..., Any], in_dims: Any = 0, *, seeded: bool = False
) -> Callable[..., Any]:
    """Give a function of rows, all at once where every operation has a batching rule.

    Args:
        function: A pure function of tensors, or trees of tensors.
        in_dims: 0 for an argument with rows, None for one that all rows share; one for all
            arguments, or a tuple.
        seeded: Whether the function seeds what it draws, so that all rows have the same draws.

    Returns:
        The function of arguments with a leading dimension, whose results have one, too.
    """
    quick = torch.func.vmap(function, in_dims=in_dims, randomness="same" if seeded else "error")
    looping = False

    def rows(*arguments: Any) -> Any:
        nonlocal looping
        if not looping:
            try:
                return quick(*arguments)
            except (NotImplementedError, RuntimeError) as error:
                _check_loop(error)
                looping = True
                took(_LOOP, error)
        return _loop(function, in_dims, arguments)

    return rows


def _check_loop(error: Exception) -> None:
    """Raise an error again that a loop would not mend."""
    # A graph of a loop would have as many copies of the function as there are rows.
    if isinstance(error, torch.OutOfMemoryError) or get_proxy_mode() is not None:
        raise error
    if "random operation" in str(error):  # a loop would draw, and be no function
        raise error


def _loop(function: Callable[..., Any], in_dims: Any, arguments: tuple[Any, ...]) -> Any:
    dims = in_dims if isinstance(in_dims, tuple) else (in_dims,) * len(arguments)
    leaves = [
        pytree.tree_leaves(a) for a, dim in zip(arguments, dims, strict=True) if dim is not None
    ]
    count = len(leaves[0][0])

    def row(k: int) -> list[Any]:
        return [
            a if dim is None else pytree.tree_map(lambda t: t[k], a)
            for a, dim in zip(arguments, dims, strict=True)
        ]

    results = [function(*row(k)) for k in range(count)]
    return pytree.tree_map(lambda *parts: torch.stack(parts), *results)
