"""Where the replicas stood at the checkpoints: in memory, or on disk where that is too much."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_DTYPES = {torch.float32: np.float32, torch.float64: np.float64}


class Positions:
    """Slots of tensors (N, P), filled some replicas at a time.

    Beyond `memory` bytes they are files in a temporary folder, mapped into memory, which vanish
    when the last tensor that looks at them is gone.

    Attributes:
        slots: The tensors.
        on_disk: Whether they are files.
    """

    def __init__(
        self,
        slots: int,
        shape: tuple[int, int],
        like: Tensor,
        *,
        memory: int,
        folder: Path | None = None,
    ) -> None:
        # Half precision keeps too few digits for differences of positions.
        dtype = like.dtype if like.dtype in _DTYPES else torch.float32
        needed = slots * shape[0] * shape[1] * dtype.itemsize
        self.on_disk = needed > memory
        self.slots: list[Tensor] = []
        for _ in range(slots):
            if self.on_disk:
                # Unlinked at once: the mapping keeps the file alive, and nothing is left behind.
                with tempfile.NamedTemporaryFile(dir=folder, prefix="ensemble-") as file:
                    mapped = np.memmap(file.name, _DTYPES[dtype], "w+", shape=shape)
                self.slots.append(torch.from_numpy(mapped))
            else:
                self.slots.append(torch.empty(shape, dtype=dtype, device=like.device))

    def put(self, slot: int, replicas: Sequence[int], theta: Tensor) -> None:
        """Write some replicas.

        Args:
            slot: Which checkpoint.
            replicas: Their numbers, one after the other.
            theta: Their positions (n, P).
        """
        held = self.slots[slot]
        held[replicas[0] : replicas[-1] + 1] = theta.to(held.device, held.dtype)
