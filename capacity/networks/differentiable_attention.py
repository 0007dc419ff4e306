"""Kernels that can be differentiated as often as it takes, in place of faster ones that cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


def is_recurrent(module: nn.Module) -> bool:
    """Tell whether a module has recurrent layers, whose fast kernels have no second derivative.

    Args:
        module: The module.

    Returns:
        Whether there is an RNN, GRU or LSTM in it.
    """
    return any(isinstance(part, nn.RNNBase) for part in module.modules())


@contextmanager
def differentiable(*, recurrent: bool) -> Iterator[None]:
    """Evaluate a network within by kernels that have second derivatives and JVPs.

    Fused attention has neither, nor have oneDNN's LSTM on the CPU and cuDNN's recurrent layers. The
    backward pass follows from what the forward pass ran, so only the forward pass has to be within.

    Args:
        recurrent: Whether the network has recurrent layers; others keep oneDNN and cuDNN.

    Yields:
        Nothing.
    """
    backends: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
    switches = backends if recurrent else ()
    before = [switch.enabled for switch in switches]
    try:
        for switch in switches:
            switch.enabled = False
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        for switch, enabled in zip(switches, before, strict=True):
            switch.enabled = enabled
