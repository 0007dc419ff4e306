"""What a `result.json` must look like for its readers; a part that does not is named by its place.

Fields that earlier versions did not write may be missing; those of other versions are let alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, cast, get_args

from pydantic import TypeAdapter, ValidationError

from capacity.results.criterion_schema import FormName
from capacity.results.schema import MetricsRow, Result, Spectrum

_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is no field of an estimate",
    "string_type": "is not text",
    "bool_type": "is not true or false",
    "int_type": "is not a whole number",
    "float_type": "is not a number",
    "dict_type": "is not an object",
    "list_type": "is not a list",
    "too_short": "is not a pair of numbers",
    "too_long": "is not a pair of numbers",
}
"""Of pydantic's kinds of error."""


def check_row(row: Mapping[str, Any]) -> None:
    """Check what readers take as it is of a row of metrics.jsonl, as `check_shape` does.

    Args:
        row: The row.
    """
    _check(MetricsRow, row)


def check_shape(result: Mapping[str, Any]) -> Result:
    """Check every part of a result that its readers take as it is.

    A part that an earlier version did not write may be missing.

    Args:
        result: The content of result.json.

    Returns:
        The same result, typed.

    Raises:
        ValueError: If a part is of another kind, missing, or about a task that there is not; the
            message begins with its place, as `transitions[0].old[1].task`.
    """
    _check(Result, result)
    checked = cast(Result, result)
    count = len(checked["tasks"])
    for kind, scores in (("accuracy", checked["accuracy"]), ("loss", checked["loss"])):
        if scores is not None:
            _square(scores["mean"], count, f"{kind}.mean")
            for r, table in enumerate(scores.get("replicas") or []):
                _square(table, count, f"{kind}.replicas[{r}]")
    forgetting = checked["forgetting"] or {}
    for kind, tables in forgetting.items():
        for way, table in (cast(Mapping[str, Any], tables) or {}).items():
            _square(table, count, f"forgetting.{kind}.{way}")
    if len(checked["phases"]) < count:
        raise ValueError(f"phases is not a list of {count} or more, one for every task")
    for k, phase in enumerate(checked["phases"]):
        _classes(phase.get("transport") if phase else None, f"phases[{k}].transport")
    _classes(checked.get("composed"), "composed")
    for k, transition in enumerate(checked["transitions"]):
        place, task = f"transitions[{k}]", transition["task"]
        if not 0 < task < count:
            raise ValueError(f"{place}.task is not one of the {count} tasks after the first")
        numbers = [old["task"] for old in transition["old"]]
        every = chosen_old(checked) == "all"
        if every and len(numbers) != task:
            raise ValueError(f"{place}.old is not a list of {task}, one for every earlier task")
        closures = transition.get("closures") or {}  # earlier versions: no form, or all of them
        for form in get_args(FormName) if closures else ():
            if form not in closures:
                raise ValueError(f"{place}.closures.{form} is missing")
        for k, j in enumerate(numbers):
            if every and j != k:
                raise ValueError(f"{place}.old[{k}].task is not {k}")
            if not (numbers[k - 1] if k else -1) < j < task:
                raise ValueError(f"{place}.old[{k}].task is no further one of the {task} earlier")
    return checked


def chosen_old(result: Mapping[str, Any]) -> str:
    """Read which old tasks a run looked at.

    Args:
        result: The content of result.json.

    Returns:
        As the recipe has it; `all` where it says nothing, as earlier versions.
    """
    measure = (result.get("recipe") or {}).get("measure")
    return str(measure.get("old", "all")) if isinstance(measure, Mapping) else "all"


@cache
def _validator(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _check(kind: type, record: Mapping[str, Any]) -> None:
    """Hold a record against a type, and name the first place where it differs."""
    try:
        _validator(kind).validate_python(record, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
        place = "".join(steps).removeprefix(".")
        expected = str(first.get("ctx", {}).get("expected", ""))
        choice = expected.replace("'", "").replace(" or ", ", ")
        words = _WORDS.get(first["type"]) or (f"is not one of {choice}" if choice else first["msg"])
        raise ValueError(f"{place} {words}") from None


def _classes(spectrum: Spectrum | None, place: str) -> None:
    if spectrum is None:
        return
    density = spectrum["density"]
    wanted = len(density["edges"]) + 1
    lists = {name: density[name] for name in ("counts", "stderr", "resolved")}
    for name, values in lists.items():
        if values is not None and len(values) != wanted:
            raise ValueError(f"{place}.density.{name} is not a list of one more than the edges")


def _square(table: list[list[Any]] | None, count: int, place: str) -> None:
    if table is None:
        return
    if len(table) != count or any(len(row) != count for row in table):
        raise ValueError(f"{place} is not a table of {count} by {count}, one entry per task")
