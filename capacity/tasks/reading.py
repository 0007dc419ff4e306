"""Samples out of data sets and loaders, as tensors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from capacity.base.checks import memory_of_machine
from capacity.base.randomness import kept_random_state
from capacity.tasks.batches import BatchLayout, lay_out
from capacity.tasks.sample_parts import is_array, pair_of, tensor_of, tree_of
from capacity.tasks.streamed import Rows, SampleSource, Streamed

_SHARE_OF_MEMORY = 0.5
"""Of the machine's memory that data may take whose number is not known; joined, they are copied."""
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
    labelled = has_task_labels(loader.dataset)
    with kept_random_state(0), _rewound(loader):
        xs, ys = _all_of(argument, loader, take=partial(pair_of, argument, labelled=labelled))
    if loader.num_workers == 0 and not isinstance(loader.dataset, IterableDataset):
        with kept_random_state(0), _rewound(loader):
            _check_again(argument, (xs[0], ys[0]), next(iter(loader)), labelled=labelled)
    # Without batches of its own it gives what the data set does: batches, or samples.
    alone = loader.batch_sampler is None and all(y.dim() == 0 for y in ys)
    samples = _join(argument, xs, ys, single=alone)
    if alone:
        return samples, None
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
    # A subclass may turn its samples into others.
    if type(data) is TensorDataset and len(data.tensors) == 2:
        return Samples(data.tensors[0].detach(), data.tensors[1].detach())
    labelled = has_task_labels(data)
    if not hasattr(data, "__len__") or isinstance(data, IterableDataset):
        return read_items(argument, iter(data), labelled=labelled)
    samples = read_items(argument, rows(data), labelled=labelled, count=len(data))
    if samples.layout is None:
        with kept_random_state(0):
            _check_again(argument, (samples.x[0], samples.y[0]), data[0], labelled=labelled)
    return samples


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
    with kept_random_state(0):
        xs, ys = _all_of(
            argument, items, take=partial(pair_of, argument, labelled=labelled), count=count
        )
    return _join(argument, xs, ys, single=True)


def read_streamed(argument: str, data: Streamed, *, whole: bool) -> Samples:
    """Go through streamed data once, for targets and shapes; inputs are read when they are needed.

    Args:
        argument: Name of the data, for the message.
        data: The data.
        whole: Whether batches stay whole; the targets are then the inputs.

    Returns:
        The samples, no more than one of which is held at a time.

    Raises:
        ValueError: If samples differ in kind, or in shape where they are no trees.
    """
    labelled = has_task_labels(data.data)
    take = partial(_whole, argument) if whole else partial(pair_of, argument, labelled=labelled)
    layout: BatchLayout | None = None
    kind: tuple[tuple[int, ...], torch.dtype] | None = None
    ys: list[Tensor] = []
    for item in data.items():
        x, y = take(item)
        if not whole:
            ys.append(y.clone())
        if isinstance(x, Tensor) and not whole:
            own_kind = (tuple(x.shape), x.dtype)
            kind = kind or own_kind
            if own_kind != kind:
                raise ValueError(
                    f"{argument} samples have inputs of differing kinds, as {kind} and {own_kind}; "
                    "pad, crop or resize them alike"
                )
            continue
        _, own = lay_out(f"{argument} data", [pytree.tree_map(lambda t: t[None], x)])
        wide = own if layout is None else layout.wider(own)
        if wide is None:
            raise ValueError(
                f"{argument} data has samples of different kinds, as {own.described}; give all the "
                "same entries"
            )
        layout = wide

    def row_of(item: Any) -> Tensor:
        x = take(item)[0]
        if layout is None:
            plain: Tensor = x
            return plain
        return layout.pack(pytree.tree_map(lambda t: t[None], x))[0]

    if layout is not None:
        kind = ((layout.width,), layout.dtype)
    assert kind is not None
    x = Rows.of(
        [SampleSource(data, row_of, argument)], torch.zeros(data.count, dtype=torch.long),
        torch.arange(data.count), shape=kind[0], dtype=kind[1], device=torch.device("cpu"),
    )  # fmt: skip
    if whole:
        return Samples(x, x, layout)
    y = _padded(ys, True) if ys[0].dim() > 0 else torch.stack(ys)
    return Samples(x, y, layout)


def read_mapping(argument: str, data: Mapping[str, Any]) -> Samples:
    """Read a mapping of tensors that holds all samples, as a tokeniser gives it.

    Args:
        argument: Name of the data, for the message.
        data: Tensors (n, ...) by name, the targets among them (see `LABELS`).

    Returns:
        The samples.
    """
    x, y = pair_of(argument, data, labelled=False)
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
    x, y = pair_of(argument, (inputs, targets), labelled=False)
    return _join(argument, [x], [y], single=False)


def read_whole(argument: str, data: Any) -> tuple[Samples, int | None]:
    """Read batches as they are, targets among them, for a function that takes them apart.

    Args:
        argument: Name of the data, for the message.
        data: A DataLoader, a data set, a mapping or tuple of tensors (n, ...), or anything that
            can be iterated over, whose items are batches.

    Returns:
        The samples, whose inputs and targets are the same rows; and the batch size of a loader.

    Raises:
        ValueError: If it is none of these, empty, or holds something else than numbers in rows.
    """
    size, count = None, None
    items: Iterable[Any]
    single: bool | None
    if isinstance(data, DataLoader):
        items, single, size = data, data.batch_sampler is None, data.batch_size
    elif is_array(data) or isinstance(data, Mapping | tuple):
        items, single = [data], False
    elif is_experience(data):
        items, single = rows(data.dataset.eval()), True
    elif isinstance(data, IterableDataset):
        items, single = data, True
    elif is_map_style(data):
        items, single, count = rows(data), True, len(data)
    elif isinstance(data, Iterable) and not isinstance(data, str):
        items, single = data, None  # batches, or samples: those have a part without rows
    else:
        raise ValueError(
            f"{argument} data is a {type(data).__name__}; pass a DataLoader, a data set, a mapping "
            "or tuple of tensors, or a list of batches"
        )
    loader = _rewound(data) if isinstance(data, DataLoader) else nullcontext()
    with kept_random_state(0), loader:
        batches, _ = _all_of(argument, items, count=count, take=partial(_whole, argument))
    if single is None:
        single = any(leaf.dim() == 0 for leaf in pytree.tree_leaves(batches[0]))
    if single:
        batches = [pytree.tree_map(lambda t: t[None], batch) for batch in batches]
    packed, layout = lay_out(f"{argument} data", batches)
    return Samples(packed, packed, layout), size


def _whole(argument: str, item: Any) -> tuple[Any, Tensor]:
    batch = tree_of(argument, item)
    return batch, pytree.tree_leaves(batch)[0]


def _all_of(
    argument: str,
    items: Iterable[Any],
    *,
    take: Callable[[Any], tuple[Any, Tensor]],
    count: int | None = None,
) -> tuple[list[Any], list[Tensor]]:
    """Read inputs and targets, no more of them than the memory of this machine holds."""
    xs: list[Any] = []
    ys: list[Tensor] = []
    held, most = 0, _SHARE_OF_MEMORY * memory_of_machine()
    for item in items:
        x, y = take(item)
        each = sum(part.nbytes for part in (*pytree.tree_leaves(x), y))
        if count is not None and not xs:
            _check_memory(argument, count, each)
        held += each
        if held > most:
            raise ValueError(
                f"{argument} data yielded {len(xs):,} samples or batches and goes on, and half of "
                f"this machine's memory ({most / 2**30:,.1f} GiB) is full; pass data that end, as "
                "itertools.islice(data, 10_000) gives them"
            )
        xs.append(x)
        ys.append(y)
    if not xs:
        raise ValueError(
            f"{argument} data is empty; pass at least one sample, and an iterator anew for each "
            "task and call: it ends with the first that reads it"
        )
    return xs, ys


def _check_again(argument: str, first: tuple[Any, Tensor], item: object, *, labelled: bool) -> None:
    """Warn of data whose first samples are others at a second reading."""
    again = pair_of(argument, item, labelled=labelled)
    one, other = (pytree.tree_leaves(part) for part in (first, again))
    if len(one) == len(other) and all(_equal(a, b) for a, b in zip(one, other, strict=True)):
        return
    warnings.warn(
        f"{argument} data yield other first samples at a second reading, although the generators "
        "of torch, NumPy and Python were seeded alike: they are taken as they came first, and "
        "another call, or a run that goes on after it was cut off, meets other data",
        stacklevel=2,
    )


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())


def _check_memory(argument: str, count: int, each: int) -> None:
    memory = memory_of_machine()
    if count * each > memory:
        raise ValueError(
            f"{argument} data has {count:,} samples of {each:,} bytes, and this machine has "
            f"{memory / 2**30:,.0f} GiB of memory, into which all of them are read; pass fewer, as "
            "torch.utils.data.Subset(data, range(10_000)), or capacity.Streamed(data), which reads "
            "samples when they are needed"
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


def is_experience(data: object) -> bool:
    """Tell an Avalanche experience by what it has.

    Args:
        data: Anything.

    Returns:
        Whether it is one.
    """
    return hasattr(data, "dataset") and hasattr(data, "current_experience")


def is_map_style(value: object) -> bool:
    """Tell a map-style data set of any library by what it has.

    Args:
        value: Anything.

    Returns:
        Whether it has a length and items, and is none of Python's containers.
    """
    has = hasattr(value, "__len__") and hasattr(value, "__getitem__")
    return has and not is_array(value) and not isinstance(value, Mapping | list | tuple | str)


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
