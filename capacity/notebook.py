"""How records look in a notebook: a short table, every text escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from capacity.text import visible

_ROWS = 24
_LONGEST = 160


class InNotebook:
    """Gives a record a table in notebooks: one row per estimate, number and word."""

    def _repr_html_(self) -> str:
        return table(type(self).__name__, rows_of(self))


def table(title: str, rows: Iterable[Sequence[str]]) -> str:
    """Make a small table.

    Args:
        title: What it is.
        rows: Entries; the first of a row names it.

    Returns:
        HTML, every text escaped; beyond 24 rows the rest is counted.
    """
    listed = list(rows)
    cut = len(listed) - _ROWS
    if cut > 0:
        listed = [*listed[:_ROWS], (f"\u2026 and {cut} more",)]
    body = "".join(
        f'<tr><th style="text-align:left">{_text(row[0])}</th>'
        + "".join(f'<td style="text-align:left">{_text(entry)}</td>' for entry in row[1:])
        + "</tr>"
        for row in listed
    )
    return f"<table><caption>{_text(title)}</caption><tbody>{body}</tbody></table>"


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
        if _is_estimate(value):
            rows.append((name, *estimate_row(value)))
        elif is_dataclass(value) and not prefix:
            rows += rows_of(value, f"{field.name}.")
        else:
            rows.append((name, _short(value)))
    return rows


def estimate_row(found: Any) -> tuple[str, str, str]:
    """Write an estimate.

    Args:
        found: The estimate.

    Returns:
        Value with standard error and interval, status (empty for ok), note.
    """
    from capacity.report.format import STATUS_WORDS, number, say

    said = say(found)
    if found.interval is not None:
        low, high = (number(end) for end in found.interval)
        said += f"  ({low} to {high}, {100 * found.level:.0f} %)"
    return said, STATUS_WORDS[found.status], found.note


def _is_estimate(value: object) -> bool:
    from capacity.estimate import Estimate  # which itself is shown by this module

    return isinstance(value, Estimate)


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


def _text(text: str) -> str:
    text = visible(text)
    return html.escape(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}\u2026")
