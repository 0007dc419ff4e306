"""Reading numbers off a device without waiting for it more often than there is need."""

from __future__ import annotations

import torch
from torch import Tensor


def read(*values: Tensor) -> list[float]:
    """Read numbers on the host, all at once: a device is waited for once, not per number.

    Args:
        values: Tensors of one number each.

    Returns:
        The numbers.
    """
    made: list[float] = torch.stack([value.detach().double() for value in values]).tolist()
    return made
