"""The caller's own switches of torch, which are kept out of what is measured."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

Given = ParamSpec("Given")
Answer = TypeVar("Answer")
_KINDS = ("cpu", "cuda")


def in_own_precision(function: Callable[Given, Answer]) -> Callable[Given, Answer]:
    """Let a function compute in the network's own precision, wherever it is called.

    Under the caller's autocast products would be of bfloat16, and steps and curvature are finer
    than that; what is made without gradients or under inference mode cannot be differentiated.

    Args:
        function: Whatever evaluates networks.

    Returns:
        The function.
    """

    @wraps(function)
    def called(*args: Given.args, **kwargs: Given.kwargs) -> Answer:
        with ExitStack() as within:
            if torch.is_inference_mode_enabled():
                within.enter_context(torch.inference_mode(False))
            if not torch.is_grad_enabled():
                within.enter_context(torch.enable_grad())
            for kind in _KINDS:
                if torch.is_autocast_enabled(kind):
                    within.enter_context(torch.autocast(kind, enabled=False))
            return function(*args, **kwargs)

    return called
