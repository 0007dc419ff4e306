"""How a forecast was made, and what it was made under, told from plain records."""

from __future__ import annotations

import json
from collections.abc import Mapping


def physics_of(note: str) -> str:
    """Say how a forecast was made, by the note of its price.

    Args:
        note: The note of `cost_ratio`.

    Returns:
        `rehearsed`, `linearised` or `compressed`; `unknown` where the note says none of these.
    """
    said = {
        "Rehearsed": "rehearsed",
        "per network and data order": "linearised",
        "Counted floating-point operations": "compressed",
    }
    return next((kind for words, kind in said.items() if words in note), "unknown")


def plain_strategy(options: Mapping[str, object]) -> str:
    """Write a strategy so that equal ones are equal text.

    Args:
        options: Its fields, as a resolved recipe has them.

    Returns:
        JSON.
    """
    return json.dumps(dict(options), sort_keys=True)
