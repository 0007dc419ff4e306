"""Networks and losses that write into what they are given: they get something of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.utils._python_dispatch import _disable_current_modes

from capacity.base.randomness import kept_random_state


@contextmanager
def outside_transforms() -> Iterator[None]:
    """Leave all function transforms and traces for a while, and take no gradients.

    Yields:
        Nothing.
    """
    with temporarily_clear_interpreter_stack(), _disable_current_modes(), torch.no_grad():
        yield


def writes(call: Callable[..., object], *arguments: Tensor) -> tuple[bool, ...]:
    """Try out which arguments a call writes into.

    The call is made once, without gradients, outside of all function transforms and traces, on
    tensors that nobody else has; the global random state is put back.

    Args:
        call: What is called.
        arguments: Its arguments, or tensors within a transform that stand for them: of those, the
            shapes, dtypes and devices are taken.

    Returns:
        Per argument, whether it is written into; for a call that fails, that each is: its error
        belongs to the true call.
    """
    shapes = [(tuple(a.shape), a.dtype, a.device) for a in arguments]
    outside = not any(torch._C._functorch.is_functorch_wrapped_tensor(a) for a in arguments)
    with outside_transforms(), kept_random_state():
        own = [
            argument.detach().clone() if outside else torch.zeros(shape, dtype=dtype, device=device)
            for argument, (shape, dtype, device) in zip(arguments, shapes, strict=True)
        ]
        versions = [part._version for part in own]
        try:
            call(*own)
        except Exception:  # of a user's own code: anything
            return tuple(True for _ in own)
        return tuple(part._version > v for part, v in zip(own, versions, strict=True))


def own_copy(value: Tensor, like: Tensor) -> Tensor:
    """Copy a tensor that will be written into, within any function transform.

    Args:
        value: The tensor.
        like: What may be written into it.

    Returns:
        A new tensor of the same numbers, which has all the dimensions that a transform added to
        `like`: without them, an operation in place could not be mapped over these.
    """
    nothing = torch.zeros_like(like.reshape(-1)[:1]).reshape(()).to(value.dtype)
    return value + nothing


class Guarded:
    """A loss of somebody's own, which cannot write into outputs or targets.

    Args:
        loss: Maps outputs and targets to a scalar.
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._loss = loss
        self._writes: dict[tuple[object, ...], tuple[bool, ...]] = {}

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Evaluate the loss.

        Args:
            outputs: Outputs (n, ...).
            targets: Targets (n, ...).

        Returns:
            What the loss returns.
        """
        kind = (outputs.dtype, outputs.dim(), targets.dtype, targets.dim())
        if kind not in self._writes:  # tried out once: most losses write nowhere
            self._writes[kind] = writes(self._loss, outputs, targets)
        into_outputs, into_targets = self._writes[kind]
        return self._loss(
            own_copy(outputs, outputs) if into_outputs else outputs,
            own_copy(targets, outputs) if into_targets else targets,
        )
