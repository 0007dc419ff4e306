"""Entropy of an ensemble, bounded from above by that of Gaussians with the same variances.

A k-nearest-neighbour estimate is off by 0.3 nats per dimension at P = 1000, and a shrunk covariance
is worse than a diagonal one (theory.md#entropy-bound). The diagonal Gaussian is an upper bound
whatever the law is, so a cost of transport that is made of it is an upper bound, too.
"""

from __future__ import annotations

import math

import torch
from scipy.special import digamma
from torch import Tensor, nn

from capacity.thermo.ensemble_record import GaussianBound
from capacity.thermo.gram_matrices import BLOCK_BYTES

FEWEST = 4
"""Replicas below which a variance without one of them has no digamma correction."""


def gaussian_bound(
    theta: Tensor, *, rows: Tensor | None = None, block_bytes: int = BLOCK_BYTES
) -> GaussianBound | None:
    """Bound the entropy by 1/2 sum_p [ln(2 pi e s_p) + ln((N-1)/2) - digamma((N-1)/2)].

    s_p is the sample variance of coordinate p; the last two terms make the logarithm unbiased for
    Gaussian coordinates.

    Args:
        theta: Positions (N, P), in memory or mapped from disk.
        rows: Replicas to keep (n,); None keeps all.
        block_bytes: Memory of one block of coordinates in float64.

    Returns:
        The bound; None for fewer than 4 replicas.
    """
    n = len(theta) if rows is None else len(rows)
    if n < FEWEST:
        return None
    width = max(1, block_bytes // (8 * n))
    value, frozen = 0.0, 0
    without = torch.zeros(n, dtype=torch.float64)
    for first in range(0, theta.shape[1], width):
        block = theta[:, first : first + width]
        x = (block if rows is None else block[rows.to(block.device)]).double()
        x = x - x.mean(0)
        squares = x.square()
        total = squares.sum(0)
        still = total == 0
        frozen += int(still.sum())
        value += float((total / (n - 1)).log().sum())
        # Without x_i the sum of squares about the mean falls by n/(n-1) x_i^2.
        left = (total - n / (n - 1) * squares).clamp(min=0) / (n - 2)
        without += left.log().sum(-1).cpu()
    size = theta.shape[1]
    return GaussianBound(
        value=0.5 * (value + size * _constant(n)),
        without=0.5 * (without + size * _constant(n - 1)),
        frozen=frozen,
    )


def initial_entropy(module: nn.Module) -> float | None:
    """Entropy of torch's default initialisation, in nats.

    Linear and convolutional layers draw weights and biases uniformly within +-1/sqrt(fan in).

    Args:
        module: A network as torch initialises it; only its trainable parameters count.

    Returns:
        H_0; None if a layer with trainable parameters draws them otherwise.
    """
    total = 0.0
    for part in module.modules():
        own = [p for p in part.parameters(recurse=False) if p.requires_grad]
        if not own:
            continue
        if not isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            return None
        fan_in = part.weight[0].numel()
        total += sum(p.numel() for p in own) * math.log(2 / math.sqrt(fan_in))
    return total


def _constant(n: int) -> float:
    half = (n - 1) / 2
    return math.log(2 * math.pi * math.e) + math.log(half) - float(digamma(half))
