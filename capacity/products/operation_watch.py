"""What the operations of a function tell about whether and how to trace it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Watch(TorchDispatchMode):
    """Looks at the operations within: what a tracer would keep as a number, and what they take.

    Outside the tracer, which drops operations of which nothing but the size is used.

    Attributes:
        sized: An operation whose result's size depends on values, not only on sizes; or empty.
        convolves: Whether there is a convolution.
        bytes: Size of all results.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sized, self.convolves, self.bytes = "", False, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        if torch.Tag.dynamic_output_shape in func.tags and not _plain_index(func, args):
            self.sized = str(func)
        self.convolves |= "convolution" in str(func)
        made = func(*args, **(kwargs or {}))
        if not func.is_view:
            parts = made if isinstance(made, list | tuple) else (made,)
            self.bytes += sum(part.nbytes for part in parts if isinstance(part, Tensor))
        return made


def _plain_index(func: Any, args: Any) -> bool:
    """Whether this is indexing by numbers, not by a mask."""
    if func is not torch.ops.aten.index.Tensor:
        return False
    return not any(i is not None and i.dtype in {torch.bool, torch.uint8} for i in args[1])
