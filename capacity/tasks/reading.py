"""Samples out of data sets and loaders, as tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from capacity.base.checks import memory_of_machine
from capacity.base.randomness import kept_random_state


def read_loader(argument: str, loader: DataLoader[Any]) -> tuple[Tensor, Tensor, int | None]:
    """Read what one pass over a loader yields, the same at each call.

    Args:
        argument: Name of the data, for the message.
        loader: The loader; its generators, and the global ones, are left as they were.

    Returns:
        Inputs (n, ...), targets (n, ...), and the size of its batches, or None where they differ
        in size.
    """
    xs, ys = [], []
    labelled = has_task_labels(loader.dataset)
    with kept_random_state(0), _rewound(loader):
        for batch in loader:
            x, y = _pair_of(argument, batch, labelled=labelled)
            xs.append(tensor_of(f"{argument} inputs", x))
            ys.append(tensor_of(f"{argument} targets", y))
    x, y = _join(argument, xs, ys, torch.cat)
    sizes = {len(part) for part in xs[:-1]}
    if loader.batch_size is not None:
        return x, y, loader.batch_size
    alike = len(sizes) <= 1 and len(xs[-1]) <= max(sizes, default=len(xs[-1]))
    return x, y, len(xs[0]) if alike else None


def read_dataset(argument: str, data: Dataset[Any]) -> tuple[Tensor, Tensor]:
    """Read a data set once, the same at each call.

    Args:
        argument: Name of the data, for the message.
        data: Map-style, or an iterable.

    Returns:
        Inputs (n, ...) and targets (n, ...).
    """
    if isinstance(data, TensorDataset) and len(data.tensors) == 2:
        return data.tensors[0].detach(), data.tensors[1].detach()
    counted = hasattr(data, "__len__") and not isinstance(data, IterableDataset)
    items: Iterable[Any] = rows(data) if counted else iter(data)
    count = len(data) if counted else None  # type: ignore[arg-type]
    return read_items(argument, items, labelled=has_task_labels(data), count=count)


def read_items(
    argument: str, items: Iterable[Any], *, labelled: bool = False, count: int | None = None
) -> tuple[Tensor, Tensor]:
    """Stack samples; random transformations draw the same numbers at each call.

    More of them than the memory of this machine holds is a ValueError, once the first is seen.

    Args:
        argument: Name of the data, for the message.
        items: Samples (input, target).
        labelled: Whether a task label may follow the target, as in Avalanche's data sets.
        count: How many samples there are, where that is known.

    Returns:
        Inputs (n, ...) and targets (n, ...).
    """
    xs, ys = [], []
    with kept_random_state(0):
        for item in items:
            x, y = _pair_of(argument, item, labelled=labelled)
            xs.append(tensor_of(f"{argument} inputs", x))
            ys.append(tensor_of(f"{argument} targets", y))
            if count is not None and len(xs) == 1:
                _check_memory(argument, count, xs[0].nbytes + ys[0].nbytes)
    return _join(argument, xs, ys, torch.stack)


def _check_memory(argument: str, count: int, each: int) -> None:
    memory = memory_of_machine()
    if count * each > memory:
        raise ValueError(
            f"{argument} data has {count:,} samples of {each:,} bytes, and this machine has "
            f"{memory / 2**30:,.0f} GiB of memory, into which all of them are read; pass fewer, as "
            "torch.utils.data.Subset(data, range(10_000))"
        )


def rows(dataset: Any) -> Iterable[Any]:
    """Iterate over a map-style data set, whose end `for` alone may not see.

    Args:
        dataset: Something with a length and items.

    Returns:
        Its items in order.
    """
    return (dataset[index] for index in range(len(dataset)))


def has_task_labels(dataset: object) -> bool:
    """Tell a data set of Avalanche's, whose samples end with a task label, by what it has.

    Args:
        dataset: Anything.

    Returns:
        Whether it is one.
    """
    return hasattr(dataset, "targets_task_labels")


def is_array(value: object) -> bool:
    """Tell what holds numbers in rows.

    Args:
        value: Anything.

    Returns:
        Whether it is a tensor or an array.
    """
    return isinstance(value, Tensor | np.ndarray)


def tensor_of(argument: str, value: object) -> Tensor:
    """Turn numbers of any kind into a tensor, without changing or keeping what came.

    Args:
        argument: Name of the data, for the message.
        value: A tensor, an array (a memory map too) or a number.

    Returns:
        The tensor: NumPy floats in torch's default dtype, tensors in their own.

    Raises:
        ValueError: If these are no plain, dense numbers.
    """
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_quantized:
            kind = "quantized" if value.is_quantized else str(value.layout).split(".")[-1]
            way = "dequantize()" if value.is_quantized else "to_dense()"
            raise ValueError(f"{argument} are a {kind} tensor; pass a dense one, as x.{way}")
        if value.is_meta:
            raise ValueError(f"{argument} lie on the meta device, where they have no values")
        return value.detach()
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(f"{argument} are a masked array; fill it or leave the rows out first")
    if isinstance(value, np.ndarray | np.generic | int | float):
        array = np.asarray(value)
        if array.dtype.kind not in "biufc":
            raise ValueError(
                f"{argument} have dtype {array.dtype}; pass numbers: transform them to tensors"
            )
        dtype = torch.get_default_dtype() if array.dtype.kind == "f" else None
        return torch.as_tensor(np.array(array), dtype=dtype)
    raise ValueError(
        f"{argument} hold a {type(value).__name__}; transform them to tensors "
        "(images: torchvision.transforms.ToTensor())"
    )


@contextmanager
def _rewound(loader: DataLoader[Any]) -> Iterator[None]:
    # Seed a loader's own generators for one pass, and put them back.
    samplers = (loader, loader.sampler, loader.batch_sampler)
    inner = (getattr(s, "sampler", None) for s in (loader.sampler, loader.batch_sampler))
    found = {id(g): g for s in (*samplers, *inner) if (g := getattr(s, "generator", None))}
    with ExitStack() as kept:
        for generator in found.values():
            kept.callback(generator.set_state, generator.get_state())
            generator.manual_seed(0)
        yield


def _join(argument: str, xs: list[Tensor], ys: list[Tensor], how: Any) -> tuple[Tensor, Tensor]:
    if not xs:
        raise ValueError(f"{argument} data is empty; pass at least one sample")
    try:
        return how(xs), how(ys)
    except RuntimeError:
        shapes = sorted({(tuple(x.shape), tuple(y.shape)) for x, y in zip(xs, ys, strict=True)})
        raise ValueError(
            f"{argument} samples have inputs and targets of differing shapes, as {shapes[:3]}; "
            "pad, crop or resize them alike"
        ) from None


def _pair_of(argument: str, item: Any, *, labelled: bool) -> tuple[Any, Any]:
    if not isinstance(item, list | tuple) or len(item) < 2:
        raise ValueError(
            f"{argument} data yields a {type(item).__name__}; each sample must be a pair "
            "(input, target)"
        )
    if len(item) > 2 + labelled:
        kinds = ", ".join(type(part).__name__ for part in item)
        raise ValueError(
            f"{argument} data yields samples of {len(item)} parts ({kinds}), of which the target "
            "cannot be told (an index, a weight or a task label?); pass a data set whose samples "
            "are pairs (input, target), or two tensors (x, y)"
        )
    return item[0], item[1]
