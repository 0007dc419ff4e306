"""What the parts of a strategy share: per-replica tensors, random streams, loops in pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from capacity.base.differential import vmap
from capacity.base.interruption import check
from capacity.tasks.task import Split

Private = dict[str, Tensor]
"""Tensors that every replica has of its own: (R, ...) together, without R for one replica."""

_NUMBERS = 1 << 24
"""Numbers that per-sample gradients may take at once."""


class Source(NamedTuple):
    """Names the random streams of a strategy, apart from all others of a run.

    Attributes:
        seed: Root seed.
        path: Name of the streams below it.
    """

    seed: int = 0
    path: tuple[str | int, ...] = ("strategy",)


HERE = Source()
"""Where nobody names the streams."""


def of_replica(private: Private, replica: int) -> Private:
    """Take one replica's tensors.

    Args:
        private: Tensors (R, ...).
        replica: Which one.

    Returns:
        Its tensors.
    """
    return {name: tensor[replica] for name, tensor in private.items()}


@torch.no_grad()
def sample_mean(
    function: Callable[[Tensor, Tensor, Tensor], Tensor],
    theta: Tensor,
    split: Split,
    *,
    per_sample: int,
) -> Tensor:
    """Average a function of single samples over a split, for every replica.

    Args:
        function: (theta (P,), x (...), y (...)) of one sample -> (P,), by `torch.func` only.
        theta: Parameters (R, P).
        split: The samples.
        per_sample: Vectors of length P that one sample takes at once.

    Returns:
        The mean (R, P).
    """
    size = max(1, _NUMBERS // (theta.numel() * per_sample))
    each = vmap(vmap(function, in_dims=(None, 0, 0)), in_dims=(0, None, None))
    total = torch.zeros_like(theta)
    for x, y in zip(split.x.split(size), split.y.split(size), strict=True):
        check()
        total += each(theta, x, y).sum(1)
    return total / len(split)
