"""Splits whose batches are filled up to the longest sample of all."""

from __future__ import annotations

from collections.abc import Sequence

from torch.nn import functional

from capacity.tasks.batches import BatchLayout
from capacity.tasks.split import Split

_IGNORED = -100
"""Label of what no loss of torch's and Hugging Face's counts."""


def same_layout(
    argument: str, splits: Sequence[Split], layouts: Sequence[BatchLayout | None]
) -> tuple[tuple[Split, ...], BatchLayout | None]:
    """Lay splits out alike: batches of shorter samples are filled up to the longest.

    Args:
        argument: Whose splits these are, for the message.
        splits: The splits.
        layouts: The layout of each.

    Returns:
        The splits, and the layout that all of them have. Batches of different kinds are a
        ValueError.
    """
    wide = layouts[0]
    for layout in layouts[1:]:
        wide = both_layouts(argument, wide, layout)
    pairs = zip(splits, layouts, strict=True)
    return tuple(
        split if wide is None or own is None or own == wide else widened(split, own, wide)
        for split, own in pairs
    ), wide


def both_layouts(
    argument: str, one: BatchLayout | None, other: BatchLayout | None
) -> BatchLayout | None:
    """Find the layout that holds the batches of two.

    Args:
        argument: Whose they are, for the message.
        one: A layout; None where a batch is one tensor.
        other: Another.

    Returns:
        The layout, or None.

    Raises:
        ValueError: If they hold batches of different kinds.
    """
    if one is None and other is None:
        return None
    wide = one.wider(other) if one is not None and other is not None else None
    if wide is None:
        said = [layout.described if layout is not None else "one tensor" for layout in (one, other)]
        raise ValueError(
            f"{argument}: batches are of different kinds, {said[0]} and {said[1]}; give all the "
            "same entries"
        )
    return wide


def widened(split: Split, own: BatchLayout, wide: BatchLayout) -> Split:
    """Fill batches up.

    Args:
        split: The samples.
        own: How they lie.
        wide: How they shall lie.

    Returns:
        The samples so.
    """
    x, y = wide.pack(own.unpack(split.x)), split.y
    if split.whole:
        return Split(x, x)
    if y.dim() == 2 and not y.is_floating_point():  # a label per token, or several per sample
        for before, after in zip(own.fields, wide.fields, strict=True):
            if len(before.shape) == 1 and before.width == y.shape[1] < after.width:
                more = after.width - before.width
                y = functional.pad(y, (more, 0) if after.left else (0, more), value=_IGNORED)
                break
    return Split(x, y)
