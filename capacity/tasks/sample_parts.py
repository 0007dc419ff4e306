"""One sample, or one batch, taken apart: its inputs and its targets as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

LABELS = ("labels", "label", "label_ids", "targets", "target", "y")
"""Under which a mapping holds the targets: the first there is."""


def pair_of(argument: str, item: Any, *, labelled: bool) -> tuple[Any, Tensor]:
    """Take a sample, or a batch, apart.

    Args:
        argument: Name of the data, for the message.
        item: A pair of inputs and targets, or a mapping that holds both.
        labelled: Whether a task label may follow the target, as in Avalanche's data sets.

    Returns:
        The inputs, a tensor or a tree of tensors, and the targets. What holds no such pair is a
        ValueError.
    """
    x, y = _parts_of(argument, item, labelled=labelled)
    return tree_of(argument, x), tensor_of(f"{argument} targets", y)


def tree_of(argument: str, x: Any) -> Any:
    """Turn the numbers of a batch, or of a sample, into tensors; what is text is left out.

    Args:
        argument: Name of the data, for the message.
        x: A tensor or array, or a mapping, tuple or list of such.

    Returns:
        A tensor, or dictionaries and tuples of tensors.

    Raises:
        ValueError: If there is nothing but text, or something else than numbers.
    """
    if isinstance(x, Mapping):
        numbers = {key: value for key, value in x.items() if not _is_text(value)}
        if not numbers:
            raise ValueError(
                f"{argument} data yields {', '.join(map(repr, x))} with text in place of numbers; "
                "tokenise it first, as dataset.map(lambda s: tokenizer(s['text']))"
            )
        return {
            key: tree_of(argument, value) for key, value in numbers.items() if value is not None
        }
    if isinstance(x, tuple) or (isinstance(x, list) and x and not _is_number(x[0])):
        return tuple(tree_of(argument, value) for value in x)
    return tensor_of(f"{argument} inputs", np.asarray(x) if isinstance(x, list) else x)


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
        # What was made under inference mode cannot be saved for a derivative.
        return value.clone() if value.is_inference() else value.detach()
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
        native = array.astype(array.dtype.newbyteorder("="))  # a copy, in any case
        return torch.as_tensor(native, dtype=dtype)
    raise ValueError(
        f"{argument} hold a {type(value).__name__}; transform them to tensors "
        "(images: torchvision.transforms.ToTensor())"
    )


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
            "(input, target), and tables are passed as (x.to_numpy(), y.to_numpy())"
        )
    if len(item) > 2 + labelled:
        kinds = ", ".join(type(part).__name__ for part in item)
        raise ValueError(
            f"{argument} data yields samples of {len(item)} parts ({kinds}), of which the target "
            "cannot be told (an index, a weight or a task label?); pass a data set whose samples "
            "are pairs (input, target), or two tensors (x, y)"
        )
    return item[0], item[1]
