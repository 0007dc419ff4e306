"""How a forecast was made, and what it was made under, told from plain records."""

from __future__ import annotations

import json
from collections.abc import Mapping


def physics_of(note: str) -> str:
    """Say how a forecast was made, by the note of its price.

    Args:
        note: The note of `cost_ratio`.

    Returns:
        `rehearsed`, `compressed` or `linearised`.
    """
    if "Rehearsed" in note:
        return "rehearsed"
    return "linearised" if "per network and data order" in note else "compressed"


def plain_strategy(options: Mapping[str, object]) -> str:
    """Write a strategy so that equal ones are equal text.

    Args:
        options: Its fields, as a resolved recipe has them.

    Returns:
        JSON.
    """
    return json.dumps(dict(options), sort_keys=True)
