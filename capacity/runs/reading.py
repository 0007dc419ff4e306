"""Reading what an earlier version, or another hand, may have written; errors name the place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from capacity.comparison.differences import ABSENT, flat, frozen, spoken
from capacity.config import Recipe
from capacity.estimate import Estimate
from capacity.runs.fingerprint import differences

SCHEMA = "capacity/result"
SCHEMA_VERSION = 1
"""What `result_schema.md` describes."""

_SHOWN = 3
_KINDS: dict[str, type] = {
    **dict.fromkeys(("tasks", "transitions", "phases"), list),
    **dict.fromkeys(("recipe", "model", "accuracy", "loss", "forgetting", "final", "scores"), dict),
    **dict.fromkeys(("replicas", "seed"), int),
    **dict.fromkeys(("name", "status"), str),
}
_WORDS = {list: "a list", dict: "an object", int: "a whole number", str: "text"}


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
    for name, kind in _KINDS.items():
        value = result.get(name)
        if value is not None and not isinstance(value, kind):
            raise ValueError(f"{path}: {name} is not {_WORDS[kind]}; {remedy}")
    for name in ("tasks", "transitions", "phases"):
        for i, item in enumerate(result.get(name) or []):
            if not isinstance(item, dict) and not (name == "phases" and item is None):
                raise ValueError(f"{path}: {name}[{i}] is not an object; {remedy}")
    for i, transition in enumerate(result.get("transitions") or []):
        try:
            ranked = transition.get("by_strategy", [])
            for estimate in _ranked_estimates(ranked):
                Estimate.from_dict(estimate)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: transitions[{i}].by_strategy is not as result_schema.md has it "
                f"({type(error).__name__}: {error}); {remedy}"
            ) from None


def _ranked_estimates(ranked: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Walk through the estimates of the strategies that were compared."""
    for entry in ranked:
        if not isinstance(entry["name"], str):
            raise TypeError(f"name is {entry['name']!r}")
        for cell in entry["old"]:
            if not isinstance(cell["task"], int):
                raise TypeError(f"task is {cell['task']!r}")
            yield from (cell["forecast"][name] for name in ("accuracy_drop", "loss_increase"))
        yield from (entry["new"][name] for name in ("accuracy", "loss"))
        yield from (entry[name] for name in ("average_accuracy", "average_loss", "cost_ratio"))
