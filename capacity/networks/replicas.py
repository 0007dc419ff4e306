"""The networks of an ensemble: one function of theta, of which each replica has a theta of its own.

Only the first network is run. That the others are the same function is seen by evaluating them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from capacity.networks.copies import unwrapped
from capacity.networks.flat_model import FlatModel
from capacity.networks.purity import close, run_network

_WAY_OUT = "build one architecture for all replicas, each with parameters of its own"


def same_parameters(first: FlatModel, module: object, replica: int) -> FlatModel:
    """Take the network of a replica, whose parameters must be laid out as the first one's are.

    Args:
        first: The network of the first replica.
        module: What was built for another one.
        replica: Its number, for the message.

    Returns:
        Its network.

    Raises:
        ValueError: If it is no network, or its parameters have other names, shapes or precision.
    """
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"model builds a {type(module).__name__} for replica {replica}; build a torch.nn.Module"
        )
    other = FlatModel(module)
    changed = first.difference(unwrapped(module))
    if changed is not None:
        name, before, now = changed
        raise ValueError(
            f"model parameter {name!r} of replica {replica} is {now}, that of replica 0 {before}; "
            f"{_WAY_OUT}"
        )
    if other.dtype != first.dtype:
        raise ValueError(
            f"model has parameters of dtype {other.dtype} for replica {replica}, and of "
            f"{first.dtype} for replica 0; {_WAY_OUT}"
        )
    return other


@torch.no_grad()
def check_same_function(first: FlatModel, other: FlatModel, x: Tensor, replica: int) -> None:
    """Refuse a replica whose network computes another function of its parameters.

    Its activations, its frozen parameters or its buffers may differ, none of which theta holds.

    Args:
        first: The network of the first replica, which stands for all.
        other: That of another one.
        x: Some inputs (n, ...).
        replica: Its number, for the message.

    Raises:
        ValueError: If its outputs at its own parameters are not those of the first network there.
    """
    other.run_like(first)
    theta = other.initial().to(x.device)
    own = run_network(other.to(x.device), theta, x, f"replica {replica}")
    if close(own, first.outputs(theta, x)):
        return
    raise ValueError(
        f"model of replica {replica} computes another function of its parameters than that of "
        "replica 0 (another activation, or other frozen parameters or buffers), and one network "
        f"is run for all; {_WAY_OUT}"
    )


def draw_anew(module: nn.Module) -> None:
    """Draw a network's trainable parameters anew, by its layers' own `reset_parameters()`.

    Args:
        module: The network, changed in place.

    Raises:
        ValueError: If a layer has no `reset_parameters()`, or one that leaves a parameter as it is:
            all replicas would start with the same one.
    """
    for name, part in module.named_modules():
        own = {n: p for n, p in part.named_parameters(recurse=False) if p.requires_grad}
        if not own:
            continue
        before = {n: p._version for n, p in own.items()}
        if reset := getattr(part, "reset_parameters", None):
            reset()
        kept = [n for n, p in own.items() if getattr(part, n) is p and p._version == before[n]]
        if kept:
            why = (
                f"a reset_parameters() that leaves {kept[0]!r} as it is"
                if reset
                else ("no reset_parameters()")
            )
            raise ValueError(
                f"model layer {name or '(root)'!r} ({type(part).__name__}) has {why}, so its "
                "initialisation cannot be drawn again; pass a function of the replica's number "
                "that builds the network, or start='warm'"
            )
