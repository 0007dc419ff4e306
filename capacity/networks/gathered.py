"""A plain copy of a network that FSDP2 shards over processes, with whole parameters."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

_SHARDING = "torch.distributed.fsdp"
_KEPT_BY_TORCH = "__composable_api_state_key"
"""Beginning of the attributes in which torch keeps what it did to a module."""
_OWN = ("_parameters", "_buffers", "_modules")


def gathered(module: nn.Module) -> nn.Module:
    """Copy a network that `fully_shard` shards into one whose parameters are whole.

    Every process of the group has to call it, and each holds all parameters afterwards. The copy
    computes in the precision that the parameters are stored in.

    Args:
        module: Any module.

    Returns:
        The copy; the module itself where FSDP2 has no part in it.
    """
    if not any(_sharded(type(part)) for part in module.modules()):
        return module
    return _plain(module, {}, {})


def _sharded(kind: type) -> bool:
    """Whether `fully_shard` made this class, which is one more for every class of modules."""
    return any(base.__name__ == "FSDPModule" for base in kind.__mro__)


def _plain(module: nn.Module, made: dict[int, nn.Module], whole: dict[int, Tensor]) -> nn.Module:
    """Rebuild a module as of its class before; parts and tensors that it shares stay so."""
    if id(module) in made:
        return made[id(module)]
    kind = next(base for base in type(module).__mro__ if not _sharded(base))
    plain: nn.Module = nn.Module.__new__(kind)
    made[id(module)] = plain
    for name, value in vars(module).items():
        if name in _OWN or name.startswith(_KEPT_BY_TORCH):
            continue
        plain.__dict__[name] = _without_sharding(value) if "hook" in name else value
    plain.__dict__["_parameters"] = {
        name: None if value is None else _whole(value, whole)
        for name, value in module._parameters.items()
    }
    plain.__dict__["_buffers"] = {
        name: None if value is None else _whole(value, whole)
        for name, value in module._buffers.items()
    }
    plain.__dict__["_modules"] = {
        name: None if part is None else _plain(part, made, whole)
        for name, part in module._modules.items()
    }
    return plain


def _whole(value: Tensor, whole: dict[int, Tensor]) -> Tensor:
    if id(value) not in whole:
        full = value.full_tensor() if hasattr(value, "full_tensor") else value
        own = full.detach().clone()
        parameter = isinstance(value, nn.Parameter)
        whole[id(value)] = nn.Parameter(own, value.requires_grad) if parameter else own
    return whole[id(value)]


def _without_sharding(hooks: Any) -> Any:
    """Leave out hooks that gather and shard."""
    if not isinstance(hooks, dict):
        return hooks
    return type(hooks)(
        (name, hook)
        for name, hook in hooks.items()
        if not type(getattr(hook, "__self__", None)).__module__.startswith(_SHARDING)
    )
