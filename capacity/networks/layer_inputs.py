"""What enters each layer of a network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from capacity.networks.flat_model import FlatModel


def layer_inputs(model: FlatModel, theta: Tensor, x: Tensor) -> dict[str, Tensor]:
    """Run the network and keep what enters each layer.

    Args:
        model: The network.
        theta: Parameters (P,).
        x: Inputs (n, ...).

    Returns:
        Inputs (n, ...) by layer name, for layers that have a weight matrix or kernel, in the
        order in which they are called; those of all calls (c n, ...), where there are c.
    """
    found: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs and isinstance(inputs[0], Tensor) and len(inputs[0]) == len(x):
                found.setdefault(name, []).append(inputs[0].detach().clone())

        return hook

    model.writes_into(x)
    hooks = [
        part.register_forward_pre_hook(keep(name))
        for name, part in model.layers().items()
        if isinstance(weight := getattr(part, "weight", None), Tensor) and weight.dim() > 1
    ]
    try:
        with torch.no_grad():
            model.outputs(theta, x)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: torch.cat(calls) for name, calls in found.items()}
