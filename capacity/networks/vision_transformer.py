"""A small vision transformer: patches of an image as tokens, and blocks of attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

HEADS = 4
"""Attention heads of every block."""
_PATCHES = 8
"""Patches along the longer side of an image, about."""


class VisionTransformer(nn.Module):
    """A vision transformer without dropout, whose head reads the mean over the patches.

    Args:
        shape: Shape of an input: (C, H, W), or (n,) with a square number of pixels n.
        width: Width of the tokens, a multiple of `HEADS`.
        depth: Number of blocks.
        n_outputs: Width of the output.

    Raises:
        ValueError: If the inputs are no images, or the width is no multiple of `HEADS`.
    """

    def __init__(self, shape: tuple[int, ...], width: int, depth: int, n_outputs: int) -> None:
        super().__init__()
        side = math.isqrt(shape[0])
        if len(shape) == 1 and side * side == shape[0]:
            shape = (1, side, side)
        if len(shape) != 3:
            raise ValueError(
                f"model.kind = 'vit' takes inputs (channels, height, width), or a square number of "
                f"pixels in one row, but the tasks' inputs have shape {shape}; use model.kind=mlp"
            )
        if width % HEADS:
            raise ValueError(
                f"model.hidden = {width} is no multiple of {HEADS}, the heads of a vit; pass "
                f"model.hidden=[{HEADS * max(1, round(width / HEADS))}]"
            )
        self.shape = shape
        channels, height, rows = shape
        self.patch = max(1, max(height, rows) // _PATCHES, 2 if max(height, rows) >= 8 else 1)
        tokens = math.ceil(height / self.patch) * math.ceil(rows / self.patch)
        self.embed = nn.Linear(channels * self.patch**2, width)
        self.place = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Classify.

        Args:
            x: Inputs (n, ...).

        Returns:
            Outputs (n, n_outputs).
        """
        x = x.reshape(len(x), *self.shape)
        size, (height, width) = self.patch, x.shape[-2:]
        x = functional.pad(x, (0, -width % size, 0, -height % size))
        patches = x.unfold(2, size, size).unfold(3, size, size)  # (n, C, h, w, size, size)
        tokens = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        return self.head(self.norm(self.blocks(self.embed(tokens) + self.place)).mean(1))


class _Block(nn.Module):
    """Attention and a two-layer network, each after a normalisation and beside a short cut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixing = nn.Linear(width, 3 * width)
        self.joining = nn.Linear(width, width)
        self.inner = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = self.mixing(self.first(x)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.joining(mixed)
        return x + self.inner(self.second(x))
