"""What a recipe cannot say of tasks and networks that only Python has, as text that two runs share.

The text has a part per subject: `data`, `network` and `named` are digests of bytes; `forward`,
`loss` and `slope` are numbers that the networks' outputs, the losses and their gradients came to on
a few samples. Numbers of one function agree on two machines but for rounding, so they are compared
within a tolerance; code is not looked at, because the same code may do two things, and other code
the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from capacity.recipe.config import Recipe

ABSENT = "\u2013"
"""What stands for a value that a recipe does not have."""
_DIGESTS = {
    "data": "the data differ",
    "network": "the network's parameters or buffers differ at its start",
    "named": "the loss differs: another name, or a function in place of a name",
}
_NUMBERS = {
    "forward": ("the forward pass differs: other outputs on the same samples", 1e-5),
    "loss": ("the loss differs: other values on the same outputs", 1e-5),
    "slope": ("the loss differs: another gradient at the same parameters", 1e-4),
}
"""By part: what is said where it differs, and the share of its norm that rounding may change."""


def to_text(digests: Mapping[str, str], numbers: Mapping[str, Sequence[float]]) -> str:
    """Write a fingerprint.

    Args:
        digests: `data`, `network` and `named` (the losses that have a name).
        numbers: `forward`, `loss` and `slope`: a norm, then numbers no larger than a few norms.

    Returns:
        One line.
    """
    parts = [f"{name}:{digests[name]}" for name in _DIGESTS]
    parts += [f"{name}:{','.join(f'{v:.9g}' for v in numbers[name])}" for name in _NUMBERS]
    return " ".join(parts)


def differences(before: str | None, now: str | None) -> list[str]:
    """Say in what two fingerprints differ.

    Args:
        before: One fingerprint; None for none.
        now: The other.

    Returns:
        Clauses for people; empty where both are of the same thing. Where the data or the network
        differ, the numbers that hang on them are not compared.
    """
    if before == now:
        return []
    one, other = _parts(before), _parts(now)
    if one is None or other is None:
        return ["the fingerprint was taken by another version, which did not look at all of this"]
    found = [said for name, said in _DIGESTS.items() if one[name] != other[name]]
    if found:
        return found
    for name, (said, tolerance) in _NUMBERS.items():
        if not _close(one[name], other[name], tolerance):
            return [said]  # what follows hangs on it
    return []


def told_apart(fingerprints: Sequence[object], names: Sequence[str]) -> list[str]:
    """Name what several fingerprints are of, so that a reader can tell them apart.

    Args:
        fingerprints: One per variant; None, or words, for one of no tasks or networks of one's own.
        names: What each variant's runs are called.

    Returns:
        The names where those tell the variants apart; else what differs, numbered in the order in
        which it comes, as `network 2`.
    """
    if len(set(names)) == len(names):
        return list(names)
    parts = [_parts(text if isinstance(text, str) else None) for text in fingerprints]
    subjects: dict[str, Sequence[str]] = {
        "data": ("data",),
        "network": ("network", "forward"),
        "loss": ("named", "loss", "slope"),
    }
    said: list[list[str]] = [[] for _ in parts]
    for subject, keys in subjects.items():
        values = [tuple(part[key] for key in keys) if part else None for part in parts]
        different = list(dict.fromkeys(value for value in values if value))
        if len(different) < 2:
            continue
        for words, value in zip(said, values, strict=True):
            words += [f"{subject} {different.index(value) + 1}"] if value else []
    # Numbers of the loss hang on the data and the network: they are news where those are the same.
    short = [[w for w in words if not w.startswith("loss")] or words for words in said]
    told = short if len({tuple(words) for words in short}) == len(said) else said
    return [", ".join(words) or ABSENT for words in told]


def with_the_same(recipe: Recipe, before: Recipe) -> Recipe:
    """Give a recipe the fingerprint of another one, where the two are of the same thing.

    Args:
        recipe: What is asked for now.
        before: What was run.

    Returns:
        The recipe, which equals `before` if nothing differs but rounding.
    """
    known, now = before.tasks.fingerprint, recipe.tasks.fingerprint
    if known == now or differences(known, now):
        return recipe
    section = recipe.tasks.model_copy(update={"fingerprint": known})
    return recipe.model_copy(update={"tasks": section})


def _parts(text: str | None) -> dict[str, str] | None:
    """Read a fingerprint; None where it is none of this version."""
    pairs = [part.partition(":") for part in (text or "").split(" ")]
    parts = {name: value for name, _, value in pairs}
    return parts if list(parts) == [*_DIGESTS, *_NUMBERS] else None


def _close(one: str, other: str, tolerance: float) -> bool:
    try:
        a, b = ([float(v) for v in text.split(",")] for text in (one, other))
    except ValueError:
        return False
    if len(a) != len(b):
        return False
    finite = [abs(v) for v in (*a, *b) if math.isfinite(v)]
    allowed = tolerance * max(finite, default=0.0)
    return all(
        x == y or (math.isnan(x) and math.isnan(y)) or abs(x - y) <= allowed
        for x, y in zip(a, b, strict=True)
    )
