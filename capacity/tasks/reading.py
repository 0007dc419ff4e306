"""Samples out of data sets and loaders, as tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from capacity.base.checks import memory_of_machine
from capacity.base.randomness import kept_random_state
from capacity.tasks.batches import BatchLayout, lay_out

LABELS = ("labels", "label", "label_ids", "targets", "target", "y")
"""Under which a mapping holds the targets: the first there is."""
_IGNORED = -100
"""Label of what no loss of torch's and Hugging Face's counts."""


class Samples(NamedTuple):
    """Samples as tensors.

    Attributes:
        x: Inputs (n, ...).
        y: Targets (n, ...).
        layout: How batches of several tensors lie in the inputs; None where each is one tensor.
    """

    x: Tensor
    y: Tensor
    layout: BatchLayout | None = None


def read_loader(argument: str, loader: DataLoader[Any]) -> tuple[Samples, int | None]:
    """Read what one pass over a loader yields, the same at each call.

    Args:
        argument: Name of the data, for the message.
        loader: The loader; its generators, and the global ones, are left as they were.

    Returns:
        The samples, and the size of its batches, or None where they differ in size.
    """
    xs, ys = [], []
    labelled = has_task_labels(loader.dataset)
    with kept_random_state(0), _rewound(loader):
        for batch in loader:
            x, y = _pair_of(argument, batch, labelled=labelled)
            xs.append(x)
            ys.append(y)
    samples = _join(argument, xs, ys, single=False)
    if loader.batch_size is not None:
        return samples, loader.batch_size
    counts = [len(part) for part in ys]
    alike = len(set(counts[:-1])) <= 1 and counts[-1] <= counts[0]
    return samples, counts[0] if alike else None


def read_dataset(argument: str, data: Dataset[Any]) -> Samples:
    """Read a data set once, the same at each call.

    Args:
        argument: Name of the data, for the message.
        data: Map-style, or an iterable.

    Returns:
        The samples.
    """
    if isinstance(data, TensorDataset) and len(data.tensors) == 2:
        return Samples(data.tensors[0].detach(), data.tensors[1].detach())
    counted = hasattr(data, "__len__") and not isinstance(data, IterableDataset)
    items: Iterable[Any] = rows(data) if counted else iter(data)
    count = len(data) if counted else None  # type: ignore[arg-type]
    return read_items(argument, items, labelled=has_task_labels(data), count=count)


def read_items(
    argument: str, items: Iterable[Any], *, labelled: bool = False, count: int | None = None
) -> Samples:
    """Stack samples; random transformations draw the same numbers at each call.

    More of them than the memory of this machine holds is a ValueError, once the first is seen.

    Args:
        argument: Name of the data, for the message.
        items: Samples (input, target).
        labelled: Whether a task label may follow the target, as in Avalanche's data sets.
        count: How many samples there are, where that is known.

    Returns:
        The samples.
    """
    xs, ys = [], []
    with kept_random_state(0):
        for item in items:
            x, y = _pair_of(argument, item, labelled=labelled)
            xs.append(x)
            ys.append(y)
            if count is not None and len(xs) == 1:
                each = sum(part.nbytes for part in (*pytree.tree_leaves(x), y))
                _check_memory(argument, count, each)
    return _join(argument, xs, ys, single=True)


def read_mapping(argument: str, data: Mapping[str, Any]) -> Samples:
    """Read a mapping of tensors that holds all samples, as a tokeniser gives it.

    Args:
        argument: Name of the data, for the message.
        data: Tensors (n, ...) by name, the targets among them (see `LABELS`).

    Returns:
        The samples.
    """
    x, y = _pair_of(argument, data, labelled=False)
    return _join(argument, [x], [y], single=False)


def read_pair(argument: str, inputs: Any, targets: Any) -> Samples:
    """Read inputs and targets.

    Args:
        argument: Name of the data, for the message.
        inputs: A tensor or array (n, ...), or a mapping or tuple of such.
        targets: A tensor or array (n, ...).

    Returns:
        The samples.
    """
    if is_array(inputs):
        data = f"{argument} data"
        return Samples(tensor_of(data, inputs), tensor_of(data, targets))
    x, y = _pair_of(argument, (inputs, targets), labelled=False)
    return _join(argument, [x], [y], single=False)


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


def is_map_style(value: object) -> bool:
    """Tell a map-style data set of any library by what it has.

    Args:
        value: Anything.

    Returns:
        Whether it has a length and items, and is none of Python's containers.
    """
    has = hasattr(value, "__len__") and hasattr(value, "__getitem__")
    return has and not is_array(value) and not isinstance(value, Mapping | list | tuple | str)


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
    if isinstance(value, str) or (isinstance(value, np.ndarray) and value.dtype.kind in "US"):
        raise ValueError(
            f"{argument} are text; number them first, as {{name: i for i, name in "
            "enumerate(sorted(set(labels)))}"
        )
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


def _join(argument: str, xs: list[Any], ys: list[Tensor], *, single: bool) -> Samples:
    """Put batches, or single samples, behind one another."""
    if not xs:
        raise ValueError(f"{argument} data is empty; pass at least one sample")
    how = torch.stack if single else torch.cat
    if all(isinstance(x, Tensor) for x in xs):
        return Samples(_joined(argument, xs, ys, xs, how), _joined(argument, xs, ys, ys, how))
    if single:
        xs = [pytree.tree_map(lambda t: t[None], x) for x in xs]
    rows, layout = lay_out(f"{argument} data", xs)
    return Samples(rows, _padded(ys, single) if ys[0].dim() > 0 else how(ys), layout)


def _padded(ys: list[Tensor], single: bool) -> Tensor:
    """Join targets; labels of shorter samples are filled up with the one that does not count."""
    if not single:
        ys = [row for part in ys for row in part]
    if ys[0].dim() == 1 and not ys[0].is_floating_point():
        return pad_sequence(ys, batch_first=True, padding_value=_IGNORED)
    return torch.stack(ys)


def _joined(
    argument: str, xs: list[Tensor], ys: list[Tensor], parts: list[Tensor], how: Any
) -> Tensor:
    try:
        made: Tensor = how(parts)
    except RuntimeError:
        shapes = sorted({(tuple(x.shape), tuple(y.shape)) for x, y in zip(xs, ys, strict=True)})
        raise ValueError(
            f"{argument} samples have inputs and targets of differing shapes, as {shapes[:3]}; "
            "pad, crop or resize them alike"
        ) from None
    return made


def _pair_of(argument: str, item: Any, *, labelled: bool) -> tuple[Any, Tensor]:
    """Take a sample, or a batch, apart: its inputs, a tensor or a tree of tensors, and targets."""
    x, y = _parts_of(argument, item, labelled=labelled)
    return _inputs(argument, x), tensor_of(f"{argument} targets", y)


def _inputs(argument: str, x: Any) -> Any:
    if isinstance(x, Mapping):
        numbers = {key: value for key, value in x.items() if not _is_text(value)}
        if not numbers:
            raise ValueError(
                f"{argument} data yields {', '.join(map(repr, x))} with text in place of numbers; "
                "tokenise it first, as dataset.map(lambda s: tokenizer(s['text']))"
            )
        return {
            key: _inputs(argument, value) for key, value in numbers.items() if value is not None
        }
    if isinstance(x, tuple) or (isinstance(x, list) and x and not _is_number(x[0])):
        return tuple(_inputs(argument, value) for value in x)
    return tensor_of(f"{argument} inputs", np.asarray(x) if isinstance(x, list) else x)


def _is_text(value: object) -> bool:
    first = value[0] if isinstance(value, list | tuple) and value else value
    return isinstance(first, str | bytes)


def _is_number(value: object) -> bool:
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return isinstance(value, int | float | np.generic)


def _parts_of(argument: str, item: Any, *, labelled: bool) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        name = next((name for name in LABELS if name in item), None)
        if name is None or len(item) < 2:
            raise ValueError(
                f"{argument} data yields a mapping of {', '.join(map(repr, item))}; it needs "
                f"inputs and targets, these under one of {', '.join(LABELS)}: rename them, as "
                "dataset.rename_column('category', 'labels')"
            )
        targets = item[name]
        targets = np.asarray(targets) if isinstance(targets, list) else targets
        return {key: value for key, value in item.items() if key not in LABELS}, targets
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
