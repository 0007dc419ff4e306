"""Write the recipe reference: every field, its default, its meaning, from the recipe classes.

    python reports/recipe_reference.py     # capacity/recipe/recipe_reference.md

The page is committed; a test holds it against what the classes say now.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from capacity.base.registry import registry_of
from capacity.recipe.belief import BeliefOptions
from capacity.recipe.config import LEVELS, Measure, Model, Recipe, TaskStream
from capacity.recipe.strategy import Section, Strategy, strategy_class
from capacity.recipe.training import ParameterGroup, Training

PAGE = Path(__file__).parents[1] / "capacity" / "recipe" / "recipe_reference.md"
SECTIONS: dict[str, type[Section]] = {
    "": Recipe,
    "tasks": TaskStream,
    "model": Model,
    "training": Training,
    "training.groups": ParameterGroup,
    "training.belief": BeliefOptions,
    "measure": Measure,
}
"""Sections of a recipe by their dotted path."""
_HEAD = """\
# Recipe reference

Every field of a recipe, what it takes where it is not given, and what it means; written by
`python reports/recipe_reference.py` from the classes that check a recipe. A field is given in a
file, as `capacity recipes cp NAME` copies one, in the shell as
`capacity run NAME training.lr=0.05`, or in Python as `capacity.Training(lr=0.05)`.
`capacity validate FILE` prints a recipe in full, defaults included.
"""
_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
}
_MANY = 1_000_000
"""Bounds beyond it are there to keep numbers from overflowing, and tell a reader nothing."""


def page() -> str:
    """Write the page.

    Returns:
        Markdown.
    """
    parts = [_HEAD]
    for path, section in SECTIONS.items():
        title = f"`{path}`" if path else "At the top"
        parts.append(f"## {title}\n\n{_first(section.__doc__)}\n\n{_table(section)}\n")
        if section is Measure:
            parts.append(_levels())
    parts.append(
        "## Strategies\n\nNames for `training.strategy` and `measure.strategies`: one alone, as "
        "`replay`, or with its options, as `{name: replay, memory: 20}`.\n"
    )
    parts += [f"### `{kind.name}`\n\n{_strategy(kind)}\n" for kind in _strategies()]
    return "\n".join(parts)


def _strategies() -> Iterator[type[Strategy]]:
    for name in registry_of("capacity.strategies").built_in:
        kind = strategy_class(name)
        assert kind is not None
        yield kind


def _strategy(kind: type[Strategy]) -> str:
    said = _first(kind.__doc__)
    return f"{said}\n\n{_table(kind)}" if kind.model_fields else f"{said} It has no options."


def _table(section: type[Section]) -> str:
    """Set a section's fields out, one per row."""
    accepted = section.model_json_schema(mode="validation")["properties"]
    rows = ["| Field | Default | Accepted | Meaning |", "|---|---|---|---|"]
    for name, field in section.model_fields.items():
        meaning = _plain(field.description or _attribute(section, name))
        cells = f"`{name}`", _default(field), _kinds(accepted[name]), meaning
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _attribute(section: type[Section], name: str) -> str:
    """Find what the docstring of a section, or of one that it extends, says of a field."""
    for kind in section.__mro__:
        listed = re.search(r"Attributes:\n(.*?)(\n\s*\n|$)", kind.__doc__ or "", re.DOTALL)
        own = listed and re.search(
            rf"^ +{name}: (.*?)(?=^ +\w+: |\Z)", listed[1], re.DOTALL | re.MULTILINE
        )
        if own:
            return own[1]
    raise ValueError(f"{section.__name__} says nowhere what its field {name!r} means")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*needed*"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Strategy):
        return f"`{value.name}`"
    if isinstance(value, Section):
        return "*its section*"
    return f"`{json.dumps(value)}`".replace("|", "\\|")


def _kinds(schema: Mapping[str, Any]) -> str:
    """Say in words what a JSON schema takes."""
    if "anyOf" in schema:
        return _plain(" or ".join(dict.fromkeys(map(_kinds, schema["anyOf"]))))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if "$ref" in schema:
        return "a section"
    kind = str(schema.get("type", "a name"))
    if kind == "array":
        items = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"list of: {_kinds(items)}"
    words = {"integer": "whole number", "string": "text", "boolean": "`true`, `false`"}
    words |= {"null": "`null`", "object": "mapping"}
    bounds = [
        said.format(schema[key])
        for key, said in _BOUNDS.items()
        if key in schema and abs(schema[key]) <= _MANY
    ]
    return ", ".join([words.get(kind, kind), *bounds])


def _levels() -> str:
    """Set out what each level of a measurement switches on."""
    switches = list(LEVELS["full"])
    rows = [f"| `level` | {' | '.join(f'`{s}`' for s in switches)} |", "|---" * 5 + "|"]
    for level, given in LEVELS.items():
        cells = (f"`{json.dumps(given[switch])}`" for switch in switches)
        rows.append(f"| `{level}` | {' | '.join(cells)} |")
    return "A level says what these are where they are not given:\n\n" + "\n".join(rows) + "\n"


def _first(docstring: str | None) -> str:
    """Take what a docstring says before its sections."""
    text = re.split(r"\n\s*(?:Attributes|Args|Example|Raises):", docstring or "")[0]
    return "\n\n".join(_plain(part) for part in text.strip().split("\n\n"))


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> None:
    """Write it."""
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")


if __name__ == "__main__":
    main()
