"""A device that is not there: real numbers, kept on the CPU, that say they lie elsewhere.

Every operation runs on what the tensors hold, so whole trainings, trackers, forecasts and ensembles
give the numbers of the CPU, bit for bit; but a tensor of the CPU that meets one of the device, and
a generator of another device than the numbers drawn from it, are errors as they are on CUDA, and
every value that is read on the host is counted. torch's own fake tensors have no values, and could
not follow what reads any.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.fx.experimental import proxy_tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("lazy")
"""A device type that torch knows and nothing runs on: a backward pass needs no context of it."""
_ATEN = torch.ops.aten
_MOVES = {_ATEN._to_copy.default, _ATEN.copy_.default}
_READS = {_ATEN._local_scalar_dense.default, _ATEN.equal.default, _ATEN.is_nonzero.default}
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}
_SIZED_BY_VALUES = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"}


_PROXY = torch._C._TorchDispatchModeKey.PROXY
_ENTERED: list[Device] = []


class TwoDevicesError(RuntimeError):
    """What on a real device would be refused, or give other numbers."""


class Pretended(torch.Tensor):
    """A tensor of the device that is not there."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Pretended:
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, device=DEVICE, requires_grad=False,
        )  # fmt: skip
        made.held = held
        return made

    def __init__(self, held: torch.Tensor) -> None:
        pass

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Where a mode of somebody else has put the device's own aside.
        return _ENTERED[-1].carried_out(func, args, kwargs)


class Generator(torch.Generator):
    """A source of random numbers that says where it draws them."""

    where: torch.device

    def __new__(cls, device: str | torch.device = "cpu") -> Generator:
        made = super().__new__(cls, "cpu")
        made.where = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        return self.where


class Device(TorchDispatchMode):
    """The device, while it is entered.

    Attributes:
        reads: How often a value was read on the host, by the operation that did.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()

    def read(self, name: str) -> None:
        """Count a value that is read on the host, by the line of the package that reads it."""
        frame = sys._getframe()
        while frame is not None and not frame.f_globals.get("__name__", "").startswith("capacity."):
            frame = frame.f_back
        place = f"{frame.f_globals['__name__']}:{frame.f_lineno}" if frame else "elsewhere"
        self.reads[f"{place} {name}"] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        proxy = torch._C._get_dispatch_mode(_PROXY)
        if proxy is None:
            return self.carried_out(func, args, kwargs)
        # torch asks a mode of ours before the one that traces, which is to see our tensors, not
        # what they hold: the other way round.
        torch._C._unset_dispatch_mode(_PROXY)
        try:
            with self:
                return proxy.__torch_dispatch__(func, types, args, kwargs or {})
        finally:
            torch._C._set_dispatch_mode(proxy)

    def carried_out(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Carry out one operation on what its tensors hold, if it may be."""
        kwargs = dict(kwargs or {})
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        ours = any(isinstance(t, Pretended) for t in tensors)
        wanted = kwargs.get("device")
        there = ours if wanted is None else wanted.type == DEVICE.type
        if not ours and not there:
            return func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        met = [args[0], *args[2:]] if name in _INDEXED else (args, kwargs)  # CUDA takes CPU indices
        strangers = [
            t for t in tree_leaves(met)
            if isinstance(t, torch.Tensor) and not isinstance(t, Pretended) and t.dim()
        ]  # fmt: skip
        if ours and strangers and func not in _MOVES:
            raise TwoDevicesError(f"{func} meets a tensor of the CPU {tuple(strangers[0].shape)}")
        if func is _ATEN.copy_.default:
            there = isinstance(args[0], Pretended)
        boolean = name == "index" and any(
            t is not None and t.dtype in {torch.bool, torch.uint8} for t in args[1]
        )
        if func in _READS or name in _SIZED_BY_VALUES or boolean or (ours and not there):
            self.read(name)
        if wanted is not None:
            kwargs["device"] = torch.device("cpu")
        if func is _ATEN._efficientzerotensor.default:
            func = _ATEN.zeros.default
        held_args, held = tree_map_only(Pretended, lambda t: t.held, (args, kwargs))
        made = func(*held_args, **held)
        if not there:
            return args[0] if func is _ATEN.copy_.default else made
        made = tree_map_only(torch.Tensor, Pretended, made)
        return return_and_correct_aliasing(func, args, kwargs, made)


class _Calls(TorchFunctionMode):
    """Sees calls as they are made, which below have lost what they were given.

    Generators are wrapped anew there, and numbers of Python become tensors where no mode looks.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [part for part in (*args, *kwargs.values()) if isinstance(part, torch.Generator)]
        if given:
            tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
            default = tensors[0].device if tensors else torch.device("cpu")
            drawn = torch.device(kwargs.get("device") or default)
            if given[0].device.type != drawn.type:
                name = getattr(func, "__name__", str(func))
                raise TwoDevicesError(f"{name} on {drawn} with a generator on {given[0].device}")
        if func in {torch.Tensor.tolist, torch.Tensor.numpy} and isinstance(args[0], Pretended):
            if func is torch.Tensor.numpy:
                raise TwoDevicesError("numpy() of a tensor that is on no CPU")
            _ENTERED[-1].read("tolist")
            return args[0].held.tolist()
        if func in {torch.tensor, torch.as_tensor} and kwargs.get("device") is not None:
            wanted = torch.device(kwargs["device"])
            return func(*args, **kwargs | {"device": None}).to(wanted)
        if func in {torch.Tensor.__getitem__, torch.Tensor.__setitem__}:
            self_, index, *rest = args
            whole = index if isinstance(index, tuple) else (index,)
            whole = tuple(
                torch.tensor(k, dtype=None if k else torch.long) if isinstance(k, list) else k
                for k in whole
            )
            args = (self_, whole if isinstance(index, tuple) else whole[0], *rest)
        try:
            return func(*args, **kwargs)
        except NotImplementedError:
            if torch.device(kwargs.get("device") or "cpu") != DEVICE:
                raise
            # Made where somebody has put all modes aside.
            return Pretended(func(*args, **kwargs | {"device": "cpu"}))


@contextmanager
def pretend() -> Iterator[Device]:
    """Have the device there: every front door takes it for `device`.

    Yields:
        The device.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "Generator", Generator)
        # A pretended tensor has no memory of its own, but views share one storage all the same.
        patch.setattr(torch.UntypedStorage, "data_ptr", lambda storage: storage._cdata)
        # Else a trace takes every tensor of another class for a constant.
        patch.setattr(proxy_tensor, "HANDLED_TYPES", (*proxy_tensor.HANDLED_TYPES, Pretended))
        for name, module in list(sys.modules.items()):
            if name.startswith("capacity.") and hasattr(module, "resolve_device"):
                patch.setattr(module, "resolve_device", torch.device)
        with _Calls(), Device() as device:
            _ENTERED.append(device)
            try:
                yield device
            finally:
                _ENTERED.pop()
