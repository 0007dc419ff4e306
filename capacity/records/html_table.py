"""A small table for notebooks, every text escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from capacity.base.printable import visible

_ROWS = 24
_LONGEST = 160


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


def _text(text: str) -> str:
    text = visible(text)
    return html.escape(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}\u2026")
