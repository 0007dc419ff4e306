"""Which old samples a memory keeps.

Every sample of the stream has a random key of its own, and a memory keeps the smallest keys: of all
samples (`reservoir`, a uniform draw, as reservoir sampling leaves it) or of each task
(`balanced`). So a memory only ever forgets: what it holds later, it held before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.base.random_streams import stream
from capacity.strategies.terms import Source


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The kept samples of every replica, by task and then by key; 3 R M integers.

    Attributes:
        task: Task of each slot (R, M).
        rank: Its place among that task's samples, by key (R, M).
        row: Its row in that task's training split (R, M).
    """

    task: Tensor
    rank: Tensor
    row: Tensor


def quotas(sizes: Sequence[int], capacity: int) -> list[int]:
    """Share a memory among tasks as equally as their sizes allow.

    Args:
        sizes: Samples of each task.
        capacity: Slots.

    Returns:
        Slots of each task; earlier ones get what does not divide.
    """
    shares = [0] * len(sizes)
    left = min(capacity, sum(sizes))
    while left:
        open_ = [k for k, size in enumerate(sizes) if shares[k] < size]
        each = max(1, left // len(open_))
        for k in open_:
            given = min(each, sizes[k] - shares[k], left)
            shares[k] += given
            left -= given
    return shares


def key_order(size: int, task: int, replicas: int, source: Source) -> tuple[Tensor, Tensor]:
    """Sort one task's samples by their keys.

    Args:
        size: Its samples n.
        task: Its number in the sequence.
        replicas: R.
        source: Names the streams.

    Returns:
        Keys, ascending, and rows in the training split, (R, n) each, on the CPU.
    """
    keys = torch.stack([
        torch.rand(
            size,
            generator=stream(source.seed, *source.path, "keys", task, replica),
            dtype=torch.float32,
        )
        for replica in range(replicas)
    ])
    return torch.sort(keys, dim=1)


def select(
    sizes: Sequence[int], capacity: int, selection: str, replicas: int, source: Source
) -> Memory:
    """Fill the memory from the tasks so far.

    Args:
        sizes: Samples of each task.
        capacity: Most slots M.
        selection: balanced or reservoir.
        replicas: R; each has a memory of its own.
        source: Names the streams.

    Returns:
        The memory, on the CPU.
    """
    ordered = [key_order(size, k, replicas, source) for k, size in enumerate(sizes)]
    if selection == "balanced":
        kept = torch.tensor([quotas(sizes, capacity)] * replicas)
    else:
        kept = _reservoir(torch.cat([keys for keys, _ in ordered], dim=1), sizes, capacity)
    members = []
    for r in range(replicas):
        parts = [(k, int(count)) for k, count in enumerate(kept[r])]
        task = torch.cat([torch.full((count,), k) for k, count in parts])
        rank = torch.cat([torch.arange(count) for _, count in parts])
        row = torch.cat([ordered[k][1][r, :count] for k, count in parts])
        members.append((task, rank, row))
    task, rank, row = (torch.stack(part) for part in zip(*members, strict=True))
    return Memory(task=task, rank=rank, row=row)


def _reservoir(keys: Tensor, sizes: Sequence[int], capacity: int) -> Tensor:
    """Count, per replica and task, the samples among the smallest keys of all."""
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    chosen = keys.argsort(dim=1)[:, : min(capacity, keys.shape[1])]
    return torch.stack([torch.bincount(owner[row], minlength=len(sizes)) for row in chosen])
