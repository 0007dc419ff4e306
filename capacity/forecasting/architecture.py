"""Which kind of network one is: what was measured on one kind says little of another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

from capacity.networks.flat_model import FlatModel

KNOWN = ("mlp", "cnn", "transformer")
"""Kinds that forecasts were developed on."""
_LINEAR, _CONVOLUTION = {"linear"}, {"conv1d", "conv2d", "conv3d"}
_ATTENTION = {"scaled_dot_product_attention", "multi_head_attention_forward", "softmax"}
_STRUCTURE = {
    "batch_norm", "group_norm", "instance_norm", "local_response_norm", "rms_norm", "embedding",
    "lstm", "gru", "rnn_tanh", "rnn_relu", "bilinear", "spectral_norm", "einsum",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "tensordot",
}  # fmt: skip


class _Calls(TorchFunctionMode):
    """Notes which functions of torch a network calls."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = resolve_name(func) or getattr(func, "__name__", "")
        self.names.add(name.rsplit(".", 1)[-1])
        return func(*args, **(kwargs or {}))


def architecture_of(model: FlatModel, theta: Tensor, x: Tensor) -> str:
    """Say which kind of network one is, by what it calls.

    Args:
        model: The network.
        theta: Its parameters (P,).
        x: One input or more (n, ...).

    Returns:
        `mlp`, `cnn`, `transformer` or `token transformer`; else what it calls beside them, for
        people.
    """
    calls = _Calls()
    with torch.no_grad(), calls:
        model.outputs(theta, x[:1])
    used = calls.names
    convolves, attends = bool(used & _CONVOLUTION), bool(used & _ATTENTION)
    tokens = attends and "embedding" in used
    strange = sorted(used & _STRUCTURE - ({"embedding"} if tokens else set()))
    if "layer_norm" in used and not attends:
        strange.append("layer_norm")
    if convolves and attends:
        strange.append("attention over convolutions")
    if strange or not used & (_LINEAR | _CONVOLUTION | _ATTENTION):
        return f"network with {', '.join(strange) or 'none of linear layers and convolutions'}"
    if attends:
        return "token transformer" if tokens else "transformer"
    return "cnn" if convolves else "mlp"
