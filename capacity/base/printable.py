"""Text of strangers, made fit to be shown: what cannot be printed becomes a mark."""

from __future__ import annotations

import json
import re
from typing import Any

# Controls (without tab and newline), halves of characters, overrides of the direction of writing,
# and code points that XML forbids or nobody may use: terminals obey some, and renderers stop at
# others.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)
_SUSPECT = re.compile(r"\\u(?:00[01]|00[7-9]|20[26]|d[89a-f]|fdd|fde|fff)")
_PICTURES, _DELETE = 0x2400, 0x7F


def visible(text: str) -> str:
    """Show what cannot be printed as a mark.

    Args:
        text: Any text.

    Returns:
        The text, with U+001B as U+241B (the picture of it), and so for the other controls below
        U+0020; U+FFFD for the rest. Tabs and newlines stay.
    """
    return _UNPRINTABLE.sub(_mark, text)


def _mark(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code == _DELETE:
        return "\u2421"
    return chr(_PICTURES + code) if code < 0x20 else "\ufffd"


def visible_record(record: Any) -> Any:
    """Show what cannot be printed as a mark, in every text of a record.

    Args:
        record: Plain types.

    Returns:
        The record itself where all of it can be printed, else a copy.
    """
    # Most records need nothing, and a search is quicker than a walk.
    if not _SUSPECT.search(json.dumps(record)):
        return record
    return _walk(record)


def _walk(part: Any) -> Any:
    if isinstance(part, str):
        return visible(part)
    if isinstance(part, dict):
        return {_walk(key): _walk(value) for key, value in part.items()}
    return [_walk(value) for value in part] if isinstance(part, list | tuple) else part
