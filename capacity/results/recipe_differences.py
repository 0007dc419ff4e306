"""What differs between recipes, found field by field, and short names made from it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from capacity.results.fingerprint import ABSENT as ABSENT

FINGERPRINT = "tasks.fingerprint"
"""Field whose value is for machines: what it is of stands in its place for people."""
_IGNORED = {"name", "description", "seed"}
_STRATEGY = "training.strategy.name"
_LONGEST = 26


def flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give every field of a recipe its dotted name.

    Args:
        fields: The recipe as plain data.
        prefix: What stands before every name.

    Returns:
        Values by dotted name, in the order of the recipe.
    """
    out: dict[str, Any] = {}
    for key, value in fields.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """List what makes a run another experiment rather than another sample of the same one.

    Args:
        recipe: The recipe as plain data.

    Returns:
        Its fields by dotted name, without name, description and seed.
    """
    return {key: value for key, value in flat(recipe).items() if key not in _IGNORED}


def frozen(value: object) -> Hashable:
    """Make a value of a recipe comparable.

    Args:
        value: A number, a string, None, or a list or mapping of these.

    Returns:
        The same with tuples for lists and mappings.
    """
    if isinstance(value, Mapping):
        return tuple((key, frozen(part)) for key, part in value.items())
    return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value


def differing(recipes: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Find the fields in which recipes differ.

    Args:
        recipes: What `settings` gives, one per variant.

    Returns:
        By field, the value in every recipe; `ABSENT` where a recipe has no such field (options of
        another strategy). In the order of the recipe, the strategy first.
    """
    names = list(dict.fromkeys(name for recipe in recipes for name in recipe))
    names.sort(key=lambda name: not name.startswith("training.strategy."))
    columns = {name: [recipe.get(name, ABSENT) for recipe in recipes] for name in names}
    return {name: values for name, values in columns.items() if len(set(map(frozen, values))) > 1}


def labels(differences: Mapping[str, Sequence[Any]], count: int, name: str) -> list[str]:
    """Make the shortest names that tell variants apart.

    Args:
        differences: What `differing` gives.
        count: How many variants there are.
        name: What a single variant is called.

    Returns:
        One name per variant: of the first fields that suffice, as `ewc` or `lr = 0.05`.
    """
    if count == 1:
        return [_cut(name)]
    chosen: list[str] = []
    groups = 1
    for field in differences:
        keys = [tuple(map(frozen, row)) for row in _rows(differences, [*chosen, field], count)]
        if len(set(keys)) > groups:
            chosen.append(field)
            groups = len(set(keys))
        if groups == count:
            break
    made = [
        ", ".join(
            spoken(differences[field][k])
            if field in {_STRATEGY, FINGERPRINT}
            else f"{field.rpartition('.')[2]} = {spoken(differences[field][k])}"
            for field in chosen
            if differences[field][k] != ABSENT
        )
        for k in range(count)
    ]
    short = [_cut(text) for text in made]
    # Cut names may meet; a letter in front keeps them apart.
    if len(set(short)) < count:
        return [f"{_letter(k)}: {_cut(text, _LONGEST - 3)}" for k, text in enumerate(made)]
    return short


def spoken(value: object) -> str:
    """Write a value of a recipe.

    Args:
        value: A number, a string, None, or a list or mapping of these.

    Returns:
        As `0.05`, `none`, `64, 64`, `ewc (strength 10)`.
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(spoken, value)) or "none"
    if isinstance(value, Mapping):
        name, *options = (spoken(part) for part in value.values())
        keys = list(value)[1:]
        said = ", ".join(f"{key} {part}" for key, part in zip(keys, options, strict=True))
        return f"{name} ({said})" if said else name
    return str(value)


def _rows(
    differences: Mapping[str, Sequence[Any]], fields: Sequence[str], count: int
) -> list[list[Any]]:
    return [[differences[field][k] for field in fields] for k in range(count)]


def _cut(text: str, longest: int = _LONGEST) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest - 1].rstrip()}\u2026"


def _letter(k: int) -> str:
    return (_letter(k // 26 - 1) if k >= 26 else "") + chr(ord("A") + k % 26)
