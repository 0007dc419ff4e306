"""Batches of several tensors, laid out in the rows of one.

A batch may be a mapping (`input_ids`, `attention_mask`, ...), a tuple, or any nesting of both. Its
tensors are laid side by side in one tensor with a row per sample, which is stored, drawn, hashed
and moved like any other input; where the network is called, the batch is taken out again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils import _pytree as pytree

from capacity.tasks.sample_parts import LABELS

_IGNORED = -100.0
"""Label of what no loss of torch's and Hugging Face's counts."""


@dataclass(frozen=True)
class BatchField:
    """One tensor of a batch.

    Attributes:
        name: Where it stands in the batch, for people.
        shape: Shape of one sample's part.
        dtype: Its dtype.
        padding: Number that samples are filled up with where they are shorter than others.
        left: Whether they are filled up in front.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    padding: float = 0.0
    left: bool = False

    @property
    def width(self) -> int:
        """Numbers per sample."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class BatchLayout:
    """How batches of several tensors lie in the rows of one.

    Attributes:
        structure: The nesting of the batch.
        fields: Its tensors, in order.
        dtype: Precision of the rows, which holds every field exactly.
    """

    structure: Any
    fields: tuple[BatchField, ...]
    dtype: torch.dtype

    @property
    def width(self) -> int:
        """Numbers per sample."""
        return sum(field.width for field in self.fields)

    def unpack(self, rows: Tensor) -> Any:
        """Take batches out of rows.

        Args:
            rows: Rows (..., n, width).

        Returns:
            The batch, its tensors (..., n, *shape) each.
        """
        parts = rows.split([field.width for field in self.fields], dim=-1)
        lead = rows.shape[:-1]
        tensors = [
            part.reshape(*lead, *field.shape).to(field.dtype)
            for part, field in zip(parts, self.fields, strict=True)
        ]
        return pytree.tree_unflatten(tensors, self.structure)

    def pack(self, batch: Any) -> Tensor:
        """Lay a batch out in rows, shorter samples filled up.

        Args:
            batch: A batch of this layout.

        Returns:
            Rows (n, width).
        """
        leaves = pytree.tree_leaves(plain(batch))
        parts = [
            _filled(leaf, field).to(self.dtype).reshape(len(leaf), -1)
            for leaf, field in zip(leaves, self.fields, strict=True)
        ]
        return torch.cat(parts, dim=1)

    @property
    def described(self) -> str:
        """What a batch holds, for people."""
        return ", ".join(f"{f.name} {f.shape} {f.dtype}" for f in self.fields)

    def wider(self, other: BatchLayout) -> BatchLayout | None:
        """Find the layout that holds the batches of this and of another one.

        Args:
            other: The other layout.

        Returns:
            The layout; None where the two hold batches of different kinds.
        """
        if self.structure != other.structure or self.dtype != other.dtype:
            return None
        fields = []
        for one, two in zip(self.fields, other.fields, strict=True):
            if one.dtype != two.dtype or len(one.shape) != len(two.shape):
                return None
            shape = tuple(max(a, b) for a, b in zip(one.shape, two.shape, strict=True))
            longer = two if two.shape == shape else one
            fields.append(replace(longer, shape=shape))
        return replace(self, fields=tuple(fields))


def plain(batch: Any) -> Any:
    """Give a batch in Python's own containers, without what is no number.

    Args:
        batch: A mapping of any kind (`dict`, `BatchEncoding`), a list or tuple, or a tensor.

    Returns:
        Dictionaries, tuples and tensors; entries that are None are left out.
    """
    if isinstance(batch, Mapping):
        return {key: plain(value) for key, value in batch.items() if value is not None}
    if isinstance(batch, list | tuple):
        return tuple(plain(value) for value in batch)
    return batch


def lay_out(argument: str, batches: Sequence[Any]) -> tuple[Tensor, BatchLayout]:
    """Lay batches out in the rows of one tensor.

    Args:
        argument: Whose batches these are, for the message.
        batches: Batches of one kind, at least one.

    Returns:
        Rows (n, width), and the layout.

    Raises:
        ValueError: If a batch holds something else than tensors with a row per sample, or batches
            differ in kind.
    """
    trees = [pytree.tree_flatten(plain(batch)) for batch in batches]
    names = _names(plain(batches[0]))
    structure = trees[0][1]
    for leaves, own in trees:
        if own != structure:
            raise ValueError(
                f"{argument} has batches of differing kinds, as {structure} and {own}; give every "
                "batch the same entries"
            )
        for name, leaf in zip(names, leaves, strict=True):
            if not isinstance(leaf, Tensor) or leaf.dim() == 0:
                raise ValueError(
                    f"{argument} has an entry {name} of type {type(leaf).__name__} without a row "
                    "per sample; leave it out, or pass a tensor (n, ...)"
                )
        if len({len(leaf) for leaf in leaves}) > 1:
            sizes = {name: len(leaf) for name, leaf in zip(names, leaves, strict=True)}
            raise ValueError(f"{argument} has entries of differing numbers of samples: {sizes}")
    columns = [[leaves[k] for leaves, _ in trees] for k in range(len(names))]
    padding = _padding(dict(zip(names, columns, strict=True)))
    fields = tuple(
        BatchField(name, _largest(argument, name, parts), parts[0].dtype, *padding[name])
        for name, parts in zip(names, columns, strict=True)
    )
    layout = BatchLayout(structure, fields, _carrier([field.dtype for field in fields]))
    return torch.cat([layout.pack(batch) for batch in batches]), layout


def _names(batch: Any) -> list[str]:
    paths, _ = pytree.tree_flatten_with_path(batch)
    return [pytree.keystr(path) or "(inputs)" for path, _ in paths]


def _largest(argument: str, name: str, parts: Sequence[Tensor]) -> tuple[int, ...]:
    if len({part.dim() for part in parts}) > 1 or len({part.dtype for part in parts}) > 1:
        kinds = sorted({f"{tuple(part.shape[1:])} of {part.dtype}" for part in parts})[:3]
        raise ValueError(f"{argument} has entries {name} of differing kinds, as {kinds}")
    return tuple(max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True))


def _carrier(dtypes: Sequence[torch.dtype]) -> torch.dtype:
    """Choose a precision in which every field is exact."""
    floats = {dtype for dtype in dtypes if dtype.is_floating_point}
    if not floats:
        return torch.int64
    if len(floats) == 1 and len(set(dtypes)) == 1:
        return next(iter(floats))
    return torch.float64  # whole numbers up to 2^53, and every shorter float


def _padding(columns: Mapping[str, Sequence[Tensor]]) -> dict[str, tuple[float, bool]]:
    """Read off what shorter samples are filled up with, and where: as masks of attention say."""
    padded = {name: _IGNORED if _is_label(name) else 0.0 for name in columns}
    masks = next((parts for name, parts in columns.items() if "attention_mask" in name), None)
    found = {}
    for name, parts in columns.items():
        found[name] = (padded[name], False)
        if masks is None or [part.shape for part in parts] != [mask.shape for mask in masks]:
            continue
        filled = [part[mask == 0] for part, mask in zip(parts, masks, strict=True)]
        values = torch.cat(filled).unique()
        left = sum(int((m[:, 0] == 0).sum()) for m in masks) > sum(
            int((m[:, -1] == 0).sum()) for m in masks
        )
        found[name] = (float(values[0]) if len(values) == 1 else padded[name], left)
    return found


def _is_label(name: str) -> bool:
    return any(name == f"['{label}']" for label in LABELS)


def _filled(leaf: Tensor, field: BatchField) -> Tensor:
    missing = [want - have for want, have in zip(field.shape, leaf.shape[1:], strict=True)]
    if not any(missing):
        return leaf
    pads: list[int] = []
    for count in reversed(missing):
        pads += [count, 0] if field.left else [0, count]
    return functional.pad(leaf, pads, value=field.padding)


def is_tree(value: object) -> bool:
    """Tell inputs of several tensors.

    Args:
        value: Anything.

    Returns:
        Whether it is a mapping or a tuple.
    """
    return isinstance(value, Mapping | tuple)
