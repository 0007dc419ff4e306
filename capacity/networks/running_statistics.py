"""What training leaves in a network beside its parameters: running statistics of batch norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from capacity.records.estimate import from_samples


def statistics_record(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> dict[str, dict[str, Any]]:
    """Record how large running statistics are, and how far learning a task moved them.

    Args:
        before: What `FlatModel.statistics` gave before the task; replicas that had none of their
            own then stood where replica 0 did.
        after: The same after it.

    Returns:
        Per buffer of floating type `rms`, the root mean square of its entries, and `moved`, that of
        their change, over replicas, in plain JSON types.
    """
    sizes: dict[str, list[float]] = {}
    moves: dict[str, list[float]] = {}
    for key, now in after.items():
        name = key.partition("/")[2]
        then = before.get(key, before.get(f"0/{name}"))
        if then is None or not now.is_floating_point():
            continue
        sizes.setdefault(name, []).append(_rms(now))
        moves.setdefault(name, []).append(_rms(now - then))
    return {
        name: {
            "rms": from_samples(sizes[name]).to_dict(),
            "moved": from_samples(moves[name]).to_dict(),
        }
        for name in sizes
    }


def _rms(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())
