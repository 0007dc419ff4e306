"""Independent random streams from one seed, named by what they are for.

Every consumer of randomness (initialisation, data order, probes) has a stream of its own, so that
measuring more or less never changes what is trained.
"""

from __future__ import annotations

import hashlib

import torch


def stream_seed(seed: int, *path: str | int) -> int:
    """Derive the seed of a named stream.

    Args:
        seed: Root seed of the run.
        path: What the stream is for, as ("order", task, replica).

    Returns:
        A seed in [0, 2^63), the same on every machine.
    """
    name = "/".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *path: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Open a named stream.

    Args:
        seed: Root seed of the run.
        path: What the stream is for, as ("order", task, replica).
        device: Where its numbers are drawn.

    Returns:
        A generator at the start of the stream.
    """
    return torch.Generator(device).manual_seed(stream_seed(seed, *path))
