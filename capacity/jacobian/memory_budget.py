"""How many tangents a memory budget has room for.

The tangents that are returned, K x P numbers, are held whatever the budget: every chunk of them is
worked on in its place there. The budget bounds what a chunk needs besides:

    fixed + chunk x each
    each  = copies x P x bytes per number (+ 2 A on a GPU)
    fixed = vectors x P x bytes per number + A (3 A on the CPU)

`copies` and `vectors` are those of the kind of step (`capacity.jacobian.training_jacobian`):
moments and their images, and the Hessian product on its way. A is what evaluating the loss on a
batch computes, measured once; a product carries a tangent and a cotangent of each of its numbers.
On the CPU few tangents go through the network together, so A does not count per tangent; the
products keep buffers of up to 128 MiB there, which are not in the budget, nor are the states that
walking a thinned trajectory backwards recomputes (its own budget).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from capacity.products.hessian_products import Loss

CPU_BUDGET = 2 << 30
"""Bytes."""

CUDA_SHARE = 0.5
"""Part of a GPU's free memory that is taken where no budget is given."""

MOST_ON_CPU = 256
"""Tangents beyond which a longer chunk costs more cache misses than it saves passes."""


@dataclass(frozen=True)
class Footprint:
    """Bytes that pushing tangents takes beside the tangents themselves.

    Attributes:
        fixed: Whatever their number.
        each: Per tangent.
    """

    fixed: int
    each: int

    def chunk(self, budget: int | None, device: torch.device) -> int:
        """Choose how many tangents go through training together.

        Args:
            budget: Bytes; None takes 2 GiB on the CPU, half of what is free on a GPU, and never
                refuses.
            device: Where they are.

        Returns:
            At least 1.

        Raises:
            ValueError: If a budget that was given is too small for one tangent.
        """
        given = default_budget(device) if budget is None else budget
        count = (given - self.fixed) // self.each
        if count < 1 and budget is not None:
            raise ValueError(
                f"budget = {budget:,} bytes is too small for one tangent, which takes "
                f"{self.fixed + self.each:,} bytes here beside the result; give at least that, or "
                "a smaller batch"
            )
        return max(1, min(count, MOST_ON_CPU) if device.type == "cpu" else count)


def footprint(
    size: int, itemsize: int, *, copies: float, vectors: float, activations: int, device: str
) -> Footprint:
    """Apply the model of this module.

    Args:
        size: P.
        itemsize: Bytes per number of a tangent.
        copies: Tangents held per tangent, beside the one that is returned.
        vectors: Vectors (P,) that all tangents share.
        activations: A, bytes.
        device: Type of the device.

    Returns:
        The footprint.
    """
    own = device == "cpu"
    return Footprint(
        fixed=round(vectors * size * itemsize) + activations * (3 if own else 1),
        each=max(1, round(copies * size * itemsize) + (0 if own else 2 * activations)),
    )


def default_budget(device: torch.device) -> int:
    """Say what may be taken where the user gave no number.

    Args:
        device: Where the tangents are.

    Returns:
        Bytes.
    """
    if device.type != "cuda":
        return CPU_BUDGET
    free, _ = torch.cuda.mem_get_info(device)
    # What torch's allocator holds and has not given out is free for us, too.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(CUDA_SHARE * free)


@torch.no_grad()
def activation_bytes(loss: Loss, theta: Tensor, x: Tensor, y: Tensor) -> int:
    """Measure what evaluating a loss computes: the most that a gradient of it has to keep.

    Args:
        loss: The loss.
        theta: Parameters (P,).
        x: Inputs of a batch.
        y: Targets of the batch.

    Returns:
        Bytes of all intermediate results.
    """
    with _Weigh((theta, x, y)) as scale:
        loss(theta, x, y)
    return scale.bytes


class _Weigh(TorchDispatchMode):
    """Adds up the results of all operations; views count once, with what they look at."""

    def __init__(self, inputs: tuple[Tensor, ...]) -> None:
        super().__init__()
        # Held until the end: memory that is freed is given out again under the same address.
        self._held = list(inputs)
        self._seen = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        for made in result if isinstance(result, list | tuple) else (result,):
            if isinstance(made, Tensor):
                storage = made.untyped_storage()
                if storage.data_ptr() not in self._seen:
                    self._seen.add(storage.data_ptr())
                    self._held.append(made)
                    self.bytes += storage.nbytes()
        return result
