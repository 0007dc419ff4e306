"""Reading what an earlier version, or another hand, may have written; errors name the place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capacity.recipe.config import Recipe
from capacity.results.fingerprint import differences
from capacity.results.recipe_differences import ABSENT, flat, frozen, spoken
from capacity.results.shape import check_shape

SCHEMA = "capacity/result"
SCHEMA_VERSION = 1
"""What `result_schema.md` describes."""

_SHOWN = 3


def changed_fields(before: Recipe, now: Recipe, *, ignored: tuple[str, ...] = ()) -> str:
    """Name the fields in which two recipes differ, with what they were and are.

    Args:
        before: The recipe that a directory holds.
        now: The recipe that is asked for.
        ignored: Fields that may differ, by dotted name.

    Returns:
        As `training.lr was 0.5, is 0.25`; empty where nothing differs. Of a fingerprint, what it
        is that differs.
    """
    old, new = flat(before.model_dump(mode="json")), flat(now.model_dump(mode="json"))
    said = []
    for name in {**old, **new}:
        was, now_is = old.get(name, ABSENT), new.get(name, ABSENT)
        if name in ignored or frozen(was) == frozen(now_is):
            continue
        if name == "tasks.fingerprint" and isinstance(was, str) and isinstance(now_is, str):
            said += differences(was, now_is)
        else:
            said.append(f"{name} was {spoken(was)}, is {spoken(now_is)}")
    more = len(said) - _SHOWN
    return "; ".join(said[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def check_result(result: Mapping[str, Any], path: Path, remedy: str) -> None:
    """Check the parts of a result that its readers take as they are.

    A result of an earlier version lacks the later parts; that is no mistake.

    Args:
        result: The content of result.json.
        path: The file, for the message.
        remedy: What to do, for the message.

    Raises:
        ValueError: If it is of another program or version, or a part is not as `result_schema.md`
            has it.
    """
    if not result:
        return
    if result.get("schema") != SCHEMA:
        raise ValueError(
            f"{path}: not of this program (schema = {result.get('schema')!r}); name directories "
            f"that `capacity run` wrote, or {remedy}"
        )
    if result.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"{path}: has schema_version {result.get('schema_version')!r}, this version of "
            f"capacity reads {SCHEMA_VERSION}; leave the run out, or {remedy}"
        )
    try:
        check_shape(result)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {remedy}") from None
