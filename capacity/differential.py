"""Typed spellings of torch.func's products: one forward, one backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def pushforward(
    function: Callable[..., Any], points: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Any, Any]:
    """Evaluate a function and its JVP (forward mode).

    Args:
        function: A pure function of tensors.
        points: Its arguments.
        tangents: One tangent per argument.

    Returns:
        The value, and the derivative along the tangents.
    """
    value, moved = torch.func.jvp(function, points, tangents)  # type: ignore[misc]
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
