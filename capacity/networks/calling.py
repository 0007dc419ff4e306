"""How a module is called with a batch, and which of the things that it returns are its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

_NAMES = ("logits", "last_hidden_state", "prediction_logits")
"""Under which a dictionary holds outputs, as those of Hugging Face's models; the first there is."""


def call(module: nn.Module, tensors: Mapping[str, Tensor], batch: Any) -> Any:
    """Call a module at some parameters.

    Args:
        module: The module.
        tensors: Parameters and buffers by name, in place of its own.
        batch: A tensor, the first argument; a tuple of arguments; or a mapping of named arguments.

    Returns:
        The tensor that holds the outputs; what came where there is none.
    """
    if isinstance(batch, Mapping):
        made = functional_call(module, dict(tensors), (), dict(batch))
    else:
        arguments = batch if isinstance(batch, tuple) else (batch,)
        made = functional_call(module, dict(tensors), arguments)
    return outputs_of(made)


def outputs_of(made: Any) -> Any:
    """Find the outputs in what a module returns.

    Args:
        made: A tensor; a dictionary or record with `logits`; a tuple or list that begins with a
            tensor, or with a loss (a scalar) and then the outputs.

    Returns:
        The tensor; what came where there is none.
    """
    if isinstance(made, Mapping):
        found = [made[name] for name in _NAMES if isinstance(made.get(name), Tensor)]
        tensors = [value for value in made.values() if isinstance(value, Tensor) and value.dim()]
        return next(iter(found or (tensors if len(tensors) == 1 else ())), made)
    for name in _NAMES:
        if isinstance(getattr(made, name, None), Tensor):
            return getattr(made, name)
    if isinstance(made, tuple | list):
        tables = [part for part in made[:2] if isinstance(part, Tensor) and part.dim() > 0]
        return tables[0] if tables else made
    return made
