"""What is wrong with a recipe, in one line: the field, what came, what is accepted."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Sequence
from typing import get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticKnownError

from capacity.base.checks import nearest
from capacity.base.registry import Registry


class _Shortened(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 120
        self.maxlist = self.maxtuple = self.maxdict = 8
        self.maxlevel = 3

    def repr_int(self, x: int, level: int) -> str:  # noqa: ARG002
        return repr(x) if x.bit_length() <= 128 else f"a number of {x.bit_length()} bits"


_SHORTENED = _Shortened()
_REMEDY = {
    "missing": "give it",
    "bool_type": "write true or false, without quotes",
    "string_type": "put it in quotes",
    "tuple_type": "give a list, as [1, 2]",
}


def registered(registry: Registry, given: object, *more: str) -> object:
    """Check a name against a registry, while a section is built.

    Args:
        registry: The registry.
        given: What came.
        more: Names that are accepted beside the registry's.

    Returns:
        The name.

    Raises:
        PydanticKnownError: If nobody knows it.
    """
    if not isinstance(given, str) or (
        given not in registry.built_in and given not in registry.names()
    ):
        expected = ", ".join(map(repr, [*registry.names(), *more]))
        raise PydanticKnownError("literal_error", {"expected": expected})
    return given


def refusal(error: ValidationError, root: type[BaseModel]) -> str:
    """Say the first thing wrong with a section in one line, and how many more there are.

    Args:
        error: What pydantic found.
        root: The class of the section.

    Returns:
        The field's dotted path, what came, what is accepted and what to do.
    """
    first, *others = error.errors()
    path = ".".join(str(part) for part in first["loc"]) or "recipe"
    came, kind = _SHORTENED.repr(first["input"]), first["type"]
    if kind in {"extra_forbidden", "invalid_key"}:
        names = list(_section_at(root, first["loc"][:-1]).model_fields)
        said = (
            f"is not a field{nearest(str(first['loc'][-1]), names)}; accepted: {', '.join(names)}"
        )
        text = f"{_short(path)} {said}"
    elif kind == "missing":
        text = f"{path} is missing"
    elif kind == "value_error":
        text = f"{path}: {first['ctx']['error']}"
    elif kind in {"model_type", "model_attributes_type"}:
        names = list(_section_at(root, first["loc"]).model_fields)
        text = f"{path} = {came} is no section; give its fields: {', '.join(names)}"
    elif kind == "literal_error":
        names = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        text = (
            f"{path} = {came} is not known; accepted: "
            f"{', '.join(map(repr, names))}{nearest(str(first['input'])[:200], names)}"
        )
    else:
        text = f"{path} = {came}: {first['msg'][0].lower()}{first['msg'][1:]}"
        text += _as_number(first["input"])
    if kind in _REMEDY:
        text += f"; {_REMEDY[kind]}"
    return text + (f" (and {len(others)} more)" if others else "")


def _as_number(value: object) -> str:
    """Say how to write what looks like a number and is text, as 1e-3 in YAML."""
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return ""
    if not math.isfinite(number):
        return ""
    whole = re.fullmatch(r"[+-]?\d{1,18}", str(value).strip())
    return f"; write {yaml.safe_dump(int(number) if whole else number).split()[0]}"


def _short(path: str) -> str:
    return path if len(path) <= 120 else f"{path[:60]}...{path[-40:]}"


def _section_at(root: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel]:
    """Find the section that a path leads to, through lists of sections, too."""
    section = root
    for part in path:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation
        while not isinstance(annotation, type):
            annotation = get_args(annotation)[0]
        section = annotation
    return section
