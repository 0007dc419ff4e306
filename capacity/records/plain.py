"""Records as JSON holds them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, ClassVar

_ATOMS = frozenset((type(None), bool, int, float, str))
_LISTS = (list, tuple)  # a union would be made anew at every call


class Plain:
    """Gives a dataclass `to_dict`."""

    WRITTEN: ClassVar[tuple[str, ...]] = ()
    """Names of what is written, in order; empty for every field."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types.

        Returns:
            A dictionary with one entry per name of `WRITTEN`, or per field.
        """
        # Not asdict, which copies every field deeply: a long run has a hundred thousand estimates.
        names = self.WRITTEN or self.__dataclass_fields__  # type: ignore[attr-defined]
        return {
            name: value if type(value := getattr(self, name)) in _ATOMS else plain(value)
            for name in names
        }


def plain(value: Any) -> Any:
    """Write a value as JSON holds it.

    Args:
        value: A record with `to_dict`, a mapping, list or tuple of values, an enum, an array or
            tensor, a number, a text or None.

    Returns:
        Dictionaries, lists, numbers, texts and None.

    Raises:
        TypeError: If it is anything else.
    """
    # The most frequent kinds first: an estimate is six atoms, a status and a pair.
    if type(value) in _ATOMS:
        return value
    if isinstance(value, _LISTS):
        return [one if type(one) in _ATOMS else plain(one) for one in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Plain):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if hasattr(value, "tolist"):  # numbers, arrays and tensors of NumPy and torch
        return value.tolist()
    raise TypeError(
        f"a {type(value).__name__} has no place in a JSON file; give it to_dict by inheriting from "
        "capacity.records.plain.Plain"
    )
