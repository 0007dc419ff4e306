"""Whether a step in training mode can be taken again: a function of theta, the batch and a seed."""

from __future__ import annotations

import torch
from torch import Tensor

from capacity.networks.flat_model import FlatModel
from capacity.networks.purity import close, named, shaken

_WITHOUT = 'do without J_t, as forecasts and runs with Measure(level="forecast") do'
_FUNCTIONAL = f"draw from torch's global generator, or {_WITHOUT}"


@torch.no_grad()
def check_replays(flat: FlatModel, theta: Tensor, x: Tensor) -> None:
    """Refuse a network whose steps in training mode are no function of theta, batch and seed.

    Args:
        flat: The network, one that trains otherwise than it is evaluated.
        theta: Its parameters (P,).
        x: Some inputs (n, ...).

    Raises:
        ValueError: If the same seed gives other outputs, or they depend on a buffer that moves.
    """
    theta = shaken(theta, 0)  # where no buffer stands still

    def run() -> tuple[Tensor, list[str]]:
        with flat.training(0):
            return flat.changes(theta, x)

    (once, moved), (again, _) = run(), run()
    if not close(once, again):
        raise ValueError(
            "model draws random numbers of its own while it trains, which no seed repeats, so a "
            f"step is no function of theta and the batch; {_FUNCTIONAL}"
        )
    for name in moved:
        apart = flat.apart()
        with apart.shaken(name), apart.training(0):
            other = apart.outputs(theta, x)
        if not close(once, other):
            owner = name.rpartition(".")[0]
            raise ValueError(
                f"{named(owner, flat.layers()[owner])} changes its buffer {name!r} while it "
                "trains, and its outputs depend on it, so a step is no function of theta alone; "
                f"call .eval() on the layer, or {_WITHOUT}"
            )
