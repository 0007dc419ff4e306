"""How records look in a notebook: one row per field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass

from capacity.records.estimate import Estimate
from capacity.records.html_table import table


class InNotebook:
    """Gives a record a table in notebooks: one row per estimate, number and word."""

    def _repr_html_(self) -> str:
        return table(type(self).__name__, rows_of(self))


def rows_of(record: object, prefix: str = "") -> list[tuple[str, ...]]:
    """List what a record holds.

    Args:
        record: A dataclass.
        prefix: What stands before every name.

    Returns:
        Name and content, and of estimates status and note; records inside are spread out once.
    """
    rows: list[tuple[str, ...]] = []
    for field in fields(record):  # type: ignore[arg-type]
        name, value = f"{prefix}{field.name}".replace("_", " "), getattr(record, field.name)
        if isinstance(value, Estimate):
            rows.append((name, *value.row()))
        elif is_dataclass(value) and not prefix:
            rows += rows_of(value, f"{field.name}.")
        else:
            rows.append((name, _short(value)))
    return rows


def _short(value: object) -> str:
    if value is None or isinstance(value, str | bool | int | float):
        return "none" if value is None else str(value)
    if isinstance(value, Mapping):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, list | tuple):
        plain = all(isinstance(item, str | int | float) for item in value)
        return ", ".join(map(str, value)) if plain else f"{len(value)} entries"
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__} of shape {tuple(shape)}" if shape is not None else str(value)
