"""A grid of recipes: every combination of some fields' values and some seeds."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from capacity.base.checks import positive_int
from capacity.recipe import config
from capacity.recipe.config import Recipe
from capacity.runs.job_queue import check_movable
from capacity.runs.seeds_folder import check_seeds
from capacity.runs.unfinished import safe_name

MOST = 10_000
"""Runs that a sweep may have without being asked twice."""
_LONGEST = 120
"""Characters of the longest directory name; a longer one ends in a digest."""


def parse_grid(words: Sequence[str]) -> dict[str, list[str]]:
    """Read the fields of a grid.

    Args:
        words: Items such as `training.lr=0.01,0.1`; commas inside brackets or quotes belong to a
            value, as in `measure.strategies=[ewc],[ewc,replay]`.

    Returns:
        Values by field, each as it was written.

    Raises:
        ValueError: If an item is no field with values, or names a field or a value twice.
    """
    grid: dict[str, list[str]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        values = _split(text)
        if not equals or not name.strip() or not all(values):
            raise ValueError(
                f"{word!r} is no field with values; write FIELD=VALUE,VALUE, as "
                "training.lr=0.01,0.1"
            )
        name = name.strip()
        if name in grid:
            raise ValueError(f"{name!r} is named twice; write its values behind one another")
        if name == "seed":
            raise ValueError("seed is swept with --seeds, as --seeds 0-9")
        twice = next((v for k, v in enumerate(values) if v in values[:k]), None)
        if twice is not None:
            raise ValueError(f"{name} has the value {twice} twice; name every value once")
        grid[name] = values
    return grid


def _split(text: str) -> list[str]:
    """Split at the commas that stand outside brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for c in text:
        if quote:
            quote = "" if c == quote else quote
        elif c in "\"'":
            quote = c
        depth += (c in "[{") - (c in "]}") if not quote else 0
        if c == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += c
    return [part.strip() for part in parts]


def recipes_of_grid(
    recipe: str | Path, grid: Mapping[str, Sequence[str]], seeds: Sequence[int], *, most: int = MOST
) -> dict[str, Recipe]:
    """List the runs of a sweep.

    Args:
        recipe: A recipe's name, or the path of one.
        grid: Values by field, from `parse_grid`.
        seeds: The seeds of every combination; none takes the recipe's own.
        most: Most runs.

    Returns:
        Recipes by label, which is the name of the run's directory, too: `lr=0.1,seed=0`.

    Raises:
        ValueError: If there are too many, or one of the recipes will not do.
    """
    count = len(seeds) or 1
    for values in grid.values():
        count *= len(values)
    if count > positive_int("most", most):
        raise ValueError(
            f"the sweep would have {count} runs, more than {most}; leave values out, or pass --yes"
        )
    short = _short_names(list(grid))
    listed = check_seeds(seeds) if seeds else [None]
    recipes: dict[str, Recipe] = {}
    for chosen in itertools.product(*grid.values()):
        words = [f"{name}={value}" for name, value in zip(grid, chosen, strict=True)]
        made = config.load(recipe, words)
        parts = [
            f"{short[name]}={value}"
            for name, value in zip(grid, chosen, strict=True)
            if len(grid[name]) > 1
        ]
        for seed in listed:
            label = _label(parts if seed is None else [*parts, f"seed={seed}"])
            whole = made if seed is None else made.model_copy(update={"seed": seed})
            check_movable(whole)
            if label in recipes:
                raise ValueError(
                    f"two runs of the sweep would be called {label!r}: values that differ only in "
                    "spelling; name each once"
                )
            recipes[label] = whole
    return recipes


def _short_names(names: Sequence[str]) -> dict[str, str]:
    """Call a field by its last part, where that says which one is meant."""
    last = [name.rsplit(".", 1)[-1] for name in ["seed", *names]]
    return {
        name: short if last.count(short) == 1 else name
        for name, short in zip(names, last[1:], strict=True)
    }


def _label(parts: Sequence[str]) -> str:
    text = ",".join(parts) or "run"
    safe = ",".join("=".join(safe_name(piece) for piece in part.split("=")) for part in parts)
    if text == safe and len(text) <= _LONGEST:
        return text
    # Other characters than a file name should have, or too many: a digest tells them apart.
    return f"{(safe or 'run')[:_LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def described(grid: Mapping[str, Any], seeds: Sequence[int]) -> str:
    """Say what a sweep goes over, in one line.

    Args:
        grid: Values by field.
        seeds: The seeds.

    Returns:
        As `training.lr: 0.01, 0.1; seeds: 0, 1`.
    """
    parts = [f"{name}: {', '.join(map(str, values))}" for name, values in grid.items()]
    if seeds:
        parts.append(f"seeds: {', '.join(map(str, seeds))}")
    return "; ".join(parts)
