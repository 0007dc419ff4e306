"""How many replicas move together within a memory budget."""

from __future__ import annotations

import torch
from torch import Tensor

from capacity.optimizers.update_map import UpdateMap
from capacity.thermo.landscape import Landscape

_VECTORS = 6
"""Vectors of theta's size per replica besides the state, before and after: gradient, its leaf,
displacement, and what the sums need on the way."""


def chunk_size(landscape: Landscape, update: UpdateMap, theta: Tensor, memory: int) -> int:
    """Count the replicas that fit, from what the first step of one replica keeps for its gradient.

    Args:
        landscape: The energy.
        update: The update map.
        theta: Position of one replica (1, P).
        memory: Budget in bytes.

    Returns:
        At least 1, whatever the budget is.
    """
    state = len(update.init(theta))
    vectors = (_VECTORS + 2 * state) * theta.numel() * theta.element_size()
    return max(1, memory // (vectors + _graph_bytes(landscape, theta)))


def _graph_bytes(landscape: Landscape, theta: Tensor) -> int:
    """Bytes that autograd saves in the energy of one replica, which a chunk saves per replica."""
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    energy = next(iter(landscape.steps([0], [1.0])))
    with (
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        energy(theta.detach().requires_grad_())
    return sum(saved.values())
