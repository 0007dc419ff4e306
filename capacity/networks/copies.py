"""Copies of modules: the one that a caller hands over is never changed."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

from torch import Tensor, nn


def unwrapped(module: nn.Module) -> nn.Module:
    """Take a module out of what only runs it on several devices, or compiled.

    Args:
        module: Any module.

    Returns:
        The module inside, which has the same parameters; the module itself where it is no wrapper.
    """
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while isinstance(module, wrappers) or isinstance(getattr(module, "_orig_mod", None), nn.Module):
        module = module.module if isinstance(module, wrappers) else module._orig_mod  # type: ignore[assignment]
    return module


def copied(module: nn.Module) -> nn.Module:
    """Copy a module, results of earlier calls that it keeps as attributes included.

    Args:
        module: Any module.

    Returns:
        The copy.

    Raises:
        ValueError: If it cannot be copied, or this process holds only a part of it.
    """
    _refuse_sharded(module)
    # Old-style weight_norm keeps its weight so: a tensor with a history, which torch does not copy.
    kept = {
        id(t): t.detach().clone()
        for part in module.modules()
        for t in _tensors(vars(part).values())
        if not t.is_leaf
    }
    try:
        return copy.deepcopy(module, kept)
    except Exception as error:
        why = " ".join(str(error).split())
        raise ValueError(
            f"model cannot be copied, and the one given is never changed ({type(error).__name__}: "
            f"{why}); keep what cannot be copied (open files, locks, generators) out of the module"
        ) from error


def _refuse_sharded(module: nn.Module) -> None:
    """Refuse a module whose parameters are spread over processes (FSDP, tensor parallelism)."""
    sharded = [
        name
        for name, tensor in module.named_parameters()
        if hasattr(tensor, "full_tensor") or type(tensor).__name__ == "FlatParameter"  # FSDP1
    ]
    if sharded:
        raise ValueError(
            f"model is sharded over processes: of {sharded[0]} and {len(sharded) - 1} more "
            "parameters each process holds a part, and derivatives are taken of whole ones; gather "
            "them into a plain copy of the network (torch.distributed.checkpoint.state_dict."
            "get_model_state_dict with full_state_dict=True) and pass that; tangents of one model "
            "are shared out over processes by torchrun instead, and capacity.forecast gathers what "
            "fully_shard shards by itself"
        )


def _tensors(values: Iterable[object]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
        elif isinstance(value, dict):
            yield from _tensors(value.values())
