"""Data that are read when they are needed, for data sets that no memory holds.

Inputs stand as a tensor that knows how to read its rows: slices and splits of it read nothing,
rows that are asked for by number are read then and let go of afterwards, and any other operation
reads all rows that it is about, if they fit into memory. Targets are held.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from capacity.base.checks import memory_of_machine, positive_int
from capacity.base.in_place import outside_transforms
from capacity.base.randomness import RandomState, kept_random_state

_SHARE_OF_MEMORY = 0.5
"""Of the machine's memory that rows may take which are read at once."""


class Streamed:
    """Data that are read when they are needed, in place of the data set itself.

    A map-style data set is read by index; random transformations are drawn anew for each batch,
    from the numbers of its samples. Anything else that can be iterated over is a stream, whose
    first `samples` samples are the data: it is read in its own order, from the start in each epoch,
    under a seed. Targets are read once, in a pass that holds one sample, and kept.

    Args:
        data: A map-style data set, or something that can be iterated over again and again, as an
            `IterableDataset`; its items are as in `capacity.forecast`.
        samples: For a stream, how many samples to take: steps times batch size.
        seed: Seed of what the data draw.

    Example:
        >>> import capacity, torch
        >>> class Squares(torch.utils.data.Dataset):
        ...     def __len__(self):
        ...         return 100
        ...     def __getitem__(self, index):
        ...         return torch.full((4,), float(index)), index % 2
        >>> task = capacity.hold_out(capacity.Streamed(Squares()))
        >>> task.train.x[:2][:, 0]
        tensor([0., 1.])
    """

    def __init__(self, data: Any, *, samples: int | None = None, seed: int = 0) -> None:
        by_index = hasattr(data, "__len__") and hasattr(data, "__getitem__")
        self.by_index = by_index and not isinstance(data, IterableDataset)
        if not self.by_index and (not isinstance(data, Iterable) or isinstance(data, Iterator)):
            raise ValueError(
                f"data is a {type(data).__name__}; pass a data set with a length and items, or "
                "something that can be iterated over more than once, as an IterableDataset"
            )
        if self.by_index and samples is not None:
            raise ValueError(
                "samples is for data without items by index; take fewer of these as "
                "torch.utils.data.Subset(data, range(10_000))"
            )
        if not self.by_index and samples is None:
            raise ValueError(
                f"data is a {type(data).__name__}, a stream without an end that is known; pass "
                "samples=, the steps of the training times its batch size"
            )
        self.data, self.seed = data, positive_int("seed", seed, minimum=0)
        self.count = len(data) if samples is None else positive_int("samples", samples)

    def items(self) -> Iterator[Any]:
        """Go through all samples once, one at a time.

        Yields:
            Samples as the data have them.
        """
        reader = self.reader()
        for row in range(self.count):
            yield from reader(torch.tensor([row]))

    def reader(self) -> Callable[[Tensor], list[Any]]:
        """Give what reads samples.

        Returns:
            A function of row numbers (k,) that gives as many samples.
        """
        if self.by_index:
            return self._by_index
        return _InOrder(self.data, self.count, self.seed)

    def _by_index(self, rows: Tensor) -> list[Any]:
        with kept_random_state(self.seed + zlib.crc32(rows.numpy().tobytes())):
            return [self.data[int(row)] for row in rows]


class _InOrder:
    """Reads a stream: forwards where it can, and else from its start."""

    def __init__(self, data: Iterable[Any], count: int, seed: int) -> None:
        self._data, self._count, self._seed = data, count, seed
        self._next, self._items = 0, iter(())
        self._state: RandomState | int = seed

    def __call__(self, rows: Tensor) -> list[Any]:
        wanted = rows.tolist()
        if not wanted:
            return []
        places: dict[int, Any] = dict.fromkeys(sorted(wanted))
        if min(wanted) < self._next:
            self._next, self._items, self._state = 0, iter(()), self._seed
        with kept_random_state(self._state):
            if self._next == 0:
                self._items = iter(self._data)
            for place in places:
                while self._next <= place:
                    item = next(self._items, None)
                    if item is None:
                        raise ValueError(
                            f"the stream ended after {self._next:,} samples, and "
                            f"samples = {self._count:,} were asked for; pass samples={self._next}"
                        )
                    self._next += 1
                places[place] = item
            self._state = RandomState.now()
        return [places[place] for place in wanted]


class Source(Protocol):
    """Where rows come from."""

    in_order: bool

    def read(self, rows: Tensor, /) -> Tensor:
        """Read rows (k,) as one tensor (k, ...)."""


class SampleSource:
    """Rows of streamed samples.

    Args:
        data: The samples.
        row_of: Makes one row (...) of a sample.
        argument: Name of the data, for messages.
    """

    def __init__(self, data: Streamed, row_of: Callable[[Any], Tensor], argument: str) -> None:
        self._read, self._row_of, self._argument = data.reader(), row_of, argument
        self.in_order = not data.by_index
        self._last: tuple[Tensor, Tensor] | None = None

    def read(self, rows: Tensor) -> Tensor:
        """Read rows.

        Args:
            rows: Their numbers (k,).

        Returns:
            The rows (k, ...).

        Raises:
            ValueError: If samples are not finite, or differ in shape.
        """
        if self._last is not None and torch.equal(self._last[0], rows):
            return self._last[1]
        self._last = None
        each = [self._row_of(item) for item in self._read(rows)]
        shapes = {tuple(row.shape) for row in each}
        if len(shapes) > 1:
            raise ValueError(
                f"{self._argument} samples have inputs of differing shapes, as "
                f"{sorted(shapes)[:3]}; pad, crop or resize them alike"
            )
        made = torch.stack(each).as_subclass(Tensor)
        if made.is_floating_point() and not bool(torch.isfinite(made).all()):
            bad = int(rows[~torch.isfinite(made).flatten(1).all(1)][0])
            raise ValueError(
                f"{self._argument} sample {bad} holds NaN or infinity; clean the data first"
            )
        self._last = (rows, made)  # inputs and targets of whole batches are asked for in turn
        return made


class Rows(Tensor):
    """Rows of streamed data as a tensor (n, ...) that reads them when they are needed."""

    sources: tuple[Source, ...]
    which: Tensor
    numbers: Tensor
    __torch_function__: ClassVar[Any] = torch._C._disabled_torch_function_impl

    @staticmethod
    def of(
        sources: Sequence[Source],
        which: Tensor,
        numbers: Tensor,
        *,
        shape: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
    ) -> Rows:
        """Make rows.

        Args:
            sources: Where rows come from.
            which: The source of each row (n,).
            numbers: Its number there (n,).
            shape: Shape of a row.
            dtype: Its dtype.
            device: Where rows are wanted.

        Returns:
            The rows (n, ...).
        """
        made: Rows = Tensor._make_wrapper_subclass(
            Rows, (len(numbers), *shape), dtype=dtype, device=device
        )
        made.sources, made.which, made.numbers = tuple(sources), which, numbers
        return made

    def chosen(self, rows: Tensor) -> Rows:
        """Choose rows without reading them.

        Args:
            rows: Row numbers (k,).

        Returns:
            These rows (k, ...).
        """
        rows = rows.cpu()
        return Rows.of(
            self.sources, self.which[rows], self.numbers[rows],
            shape=self.shape[1:], dtype=self.dtype, device=self.device,
        )  # fmt: skip

    @property
    def in_order(self) -> bool:
        """Whether some are of a stream, which is read in its own order."""
        return any(source.in_order for source in self.sources)

    def read(self) -> Tensor:
        """Read all of these rows.

        Returns:
            A plain tensor (n, ...).

        Raises:
            ValueError: If they would take more than half of this machine's memory.
        """
        size, most = self.numel() * self.element_size(), _SHARE_OF_MEMORY * memory_of_machine()
        if size > most:
            raise ValueError(
                f"streamed data would be read at once, {len(self):,} samples of "
                f"{size / len(self):,.0f} bytes, more than half of this machine's memory; what was "
                "asked for (J_t under a strategy, say) needs them so: pass fewer, as "
                "capacity.Streamed(torch.utils.data.Subset(data, range(10_000)))"
            )
        with outside_transforms():  # what the data do is theirs
            return self._gathered().to(self.device)

    def _gathered(self) -> Tensor:
        made: Tensor | None = None
        for k, source in enumerate(self.sources):
            there = torch.nonzero(self.which == k).flatten()
            if len(there) == len(self):
                return source.read(self.numbers)
            if len(there):
                part = source.read(self.numbers[there])
                made = part.new_empty(self.shape) if made is None else made
                made[there] = part
        return torch.empty(self.shape, dtype=self.dtype) if made is None else made

    def shared(self, other: Rows) -> int:
        """Count the rows of this that another has, too.

        Args:
            other: Other rows.

        Returns:
            How many have the same source and number.
        """
        there = {
            (id(other.sources[k]), n)
            for k, n in zip(other.which.tolist(), other.numbers.tolist(), strict=True)
        }
        mine = zip(self.which.tolist(), self.numbers.tolist(), strict=True)
        return sum((id(self.sources[k]), n) in there for k, n in mine)

    def __repr__(self) -> str:  # type: ignore[override]
        """Say what these are, without reading them."""
        return f"Rows({tuple(self.shape)}, {self.dtype}, read when needed)"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        types: Any,
        args: Any = (),
        kwargs: Any = None,
    ) -> Any:
        """Read what an operation needs, and no more of it."""
        del types
        kwargs, own = kwargs or {}, args[0]
        aten = torch.ops.aten
        if isinstance(own, Rows):
            if func in (aten.detach.default, aten.alias.default):
                return own.chosen(torch.arange(len(own)))
            if func is aten._to_copy.default and set(kwargs) <= {"device", "non_blocking"}:
                return Rows.of(
                    own.sources, own.which, own.numbers,
                    shape=own.shape[1:], dtype=own.dtype, device=kwargs["device"],
                )  # fmt: skip
            if func is aten.slice.Tensor and (len(args) < 2 or args[1] == 0):
                return own.chosen(torch.arange(len(own))[slice(*args[2:5])])
            if func is aten.split.Tensor and len(args) == 2:
                return [own.chosen(part) for part in torch.arange(len(own)).split(args[1])]
            if func is aten.index.Tensor and len(args[1]) == 1:
                return _indexed(own, args[1][0])
            if func is aten.select.int and args[1] == 0:
                return own.chosen(torch.tensor([args[2] % len(own)])).read()[0]
        if func is aten.cat.default and all(isinstance(t, Rows) for t in own):
            return _joined(own)
        read = lambda t: t.read() if isinstance(t, Rows) else t  # noqa: E731
        args, kwargs = torch.utils._pytree.tree_map(read, (args, kwargs))
        return func(*args, **kwargs)


def _indexed(rows: Rows, index: Tensor) -> Tensor:
    """Read batches (..., b): those of every replica by themselves."""
    places = torch.arange(len(rows))[index.cpu()]
    if places.dim() < 2:
        return rows.chosen(places).read()
    each = [rows.chosen(part).read() for part in places.reshape(-1, places.shape[-1])]
    return torch.stack(each).reshape(*places.shape, *rows.shape[1:])


def _joined(parts: Sequence[Rows]) -> Rows:
    sources = tuple(dict.fromkeys(source for part in parts for source in part.sources))
    which = [torch.tensor([sources.index(s) for s in part.sources])[part.which] for part in parts]
    first = parts[0]
    return Rows.of(
        sources, torch.cat(which), torch.cat([part.numbers for part in parts]),
        shape=first.shape[1:], dtype=first.dtype, device=first.device,
    )  # fmt: skip


def read_rows(x: Tensor) -> Tensor:
    """Read streamed rows.

    Args:
        x: A tensor, streamed or not.

    Returns:
        A plain tensor.
    """
    return x.read() if isinstance(x, Rows) else x


def in_order(x: Tensor) -> bool:
    """Tell a stream, whose samples are learned in their own order.

    Args:
        x: Inputs of a split.

    Returns:
        Whether it is one.
    """
    return isinstance(x, Rows) and x.in_order
