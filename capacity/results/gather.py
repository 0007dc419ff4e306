"""From paths to runs that can be compared: found, read, checked, sorted into variants."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from capacity.recipe import config
from capacity.results import fingerprint, recipe_differences
from capacity.results.summary_file import checked, compared
from capacity.results.view import Record, RunView

FINISHED = "finished"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One run of a comparison.

    Attributes:
        path: Its directory.
        view: What is compared of it.
        twin: Another run of the same recipe and seed that is counted in its place; None for none.
    """

    path: Path
    view: RunView
    twin: Path | None = None

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.view.recipe.get("seed", 0))

    @property
    def counted(self) -> bool:
        """Whether its numbers enter the variant's mean."""
        return self.view.state == FINISHED and self.twin is None


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Runs of one recipe, that differ by their seeds only.

    Attributes:
        label: A short name.
        values: What its recipe has in the fields that differ between the variants.
        entries: Its runs, by seed.
    """

    label: str
    values: dict[str, Any]
    entries: tuple[Entry, ...]

    @property
    def counted(self) -> list[Entry]:
        """The runs behind its numbers."""
        return [entry for entry in self.entries if entry.counted]


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Everything that a comparison reads.

    Attributes:
        name: Name shared by the runs, or a count of them.
        variants: The variants, in the order in which they came.
        shared: The fields of the recipes that all runs have in common.
    """

    name: str
    variants: tuple[Variant, ...]
    shared: dict[str, Any]

    @property
    def entries(self) -> list[Entry]:
        """All runs."""
        return [entry for variant in self.variants for entry in variant.entries]

    @property
    def counted(self) -> list[Entry]:
        """The runs behind the numbers."""
        return [entry for entry in self.entries if entry.counted]

    @property
    def differences(self) -> list[str]:
        """Fields in which the variants differ."""
        return list(self.variants[0].values)

    @property
    def classifies(self) -> bool:
        """Whether all runs have an accuracy; else losses are compared."""
        return all(entry.view.classifies for entry in self.counted or self.entries)

    @property
    def scored_on(self) -> str:
        """Which samples the scores are scores on: `test`, `training`, or both."""
        shown = {e.view.scored_on for e in self.counted or self.entries if e.view.tasks}
        return shown.pop() if len(shown) == 1 else "test or training" if shown else "test"

    @property
    def same_tasks(self) -> bool:
        """Whether the runs that are compared learn tasks of the same names in the same order."""
        shown = self.counted or self.entries
        return len({tuple(e.view.names) for e in shown if e.view.tasks}) <= 1


def paths_of(runs: Iterable[object]) -> list[str | Path]:
    """Turn runs, paths and lists of them into paths.

    Args:
        runs: What a user named.

    Returns:
        Paths; what is neither is passed on, for the check of paths to name.
    """
    out: list[str | Path] = []
    for run in runs:
        if isinstance(run, list | tuple | set | frozenset):
            out += paths_of(run)
        elif hasattr(run, "path"):
            out.append(run.path)
        else:
            out.append(run)  # type: ignore[arg-type]
    return out


def run_directories(paths: Iterable[str | Path]) -> list[Path]:
    """Find the runs that paths stand for.

    Args:
        paths: Run directories, or folders that hold run directories.

    Returns:
        Run directories, each once per name that was given.

    Raises:
        ValueError: If there is no path, a path holds no run, or one is named twice.
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    found: list[Path] = []
    for given in paths:
        if not isinstance(given, str | os.PathLike):
            raise ValueError(
                f"runs holds a {type(given).__name__}; pass paths of run directories, or runs"
            )
        path = Path(given)
        if (path / "recipe.yaml").is_file():
            found.append(path)
            continue
        inside = sorted(p.parent for p in path.glob("*/recipe.yaml")) if path.is_dir() else []
        if not inside:
            what = "holds no run" if path.is_dir() else "is no directory"
            raise ValueError(
                f"run = {str(path)!r} {what}; pass directories that `capacity run` printed, or a "
                "folder of them"
            )
        found += inside
    if not found:
        raise ValueError("runs is empty; pass at least one run directory")
    places: set[Path] = set()
    for path in found:
        place = path.resolve()
        if place in places:
            raise ValueError(f"run = {str(path)!r} is named twice; name every run once")
        places.add(place)
    return found


def read_checked(path: Path) -> RunView:
    """Read a run and refuse what this version does not understand.

    Args:
        path: The run directory.

    Returns:
        Its content. A file that cannot be read, or that follows another schema, is a ValueError.
    """
    return checked(path)[1]


def gather(paths: Iterable[str | Path]) -> Gathered:
    """Read runs and sort them into variants.

    Args:
        paths: Run directories, or folders of run directories.

    Returns:
        The runs. Paths without a run, foreign files and an empty list are ValueErrors.
    """
    by_recipe: dict[object, list[Entry]] = {}
    settings: dict[object, dict[str, Any]] = {}
    fingerprints: dict[str, None] = {}
    first: dict[object, dict[int, Path]] = {}
    known: dict[str, dict[str, Any]] = {}
    found = run_directories(paths)
    for path, (whole, view) in zip(found, compared(found), strict=True):
        text = json.dumps({**whole, "seed": None})  # a thousand seeds of one recipe are one
        if text not in known:
            known[text] = recipe_differences.settings(_completed(whole))
        recipe = dict(known[text])
        taken = recipe.get("tasks.fingerprint")
        if taken is not None:
            # Two machines round the same function otherwise: that makes no other variant.
            same = (f for f in fingerprints if not fingerprint.differences(f, taken))
            recipe["tasks.fingerprint"] = taken = next(same, taken)
            fingerprints[taken] = None
        key = tuple(
            (name, recipe_differences.frozen(value)) for name, value in sorted(recipe.items())
        )
        settings[key] = recipe
        group = by_recipe.setdefault(key, [])
        entry = Entry(path=path, view=view)
        # The same recipe and seed give the same numbers: twice the same is no second sample.
        counted = first.setdefault(key, {})
        group.append(replace(entry, twin=counted.get(entry.seed)))
        if group[-1].counted:
            counted[entry.seed] = path
    recipes = list(settings.values())
    differ = recipe_differences.differing(recipes)
    called = [group[0].view.name for group in by_recipe.values()]
    if recipe_differences.FINGERPRINT in differ:
        of = differ[recipe_differences.FINGERPRINT]
        differ[recipe_differences.FINGERPRINT] = fingerprint.told_apart(of, called)
    names = {entry.view.name for group in by_recipe.values() for entry in group}
    name = names.pop() if len(names) == 1 else f"{len(recipes)} recipes"
    variants = tuple(
        Variant(
            label=label,
            values={field: values[k] for field, values in differ.items()},
            entries=tuple(sorted(group, key=lambda entry: entry.seed)),
        )
        for k, (label, group) in enumerate(
            zip(
                recipe_differences.labels(differ, len(recipes), name),
                by_recipe.values(),
                strict=True,
            )
        )
    )
    shared = {field: value for field, value in recipes[0].items() if field not in differ}
    return Gathered(name=name, variants=variants, shared=shared)


def _completed(recipe: Record) -> Record:
    """Give a recipe of an older version the fields that were added since, at their defaults."""
    try:
        return config.build(recipe).model_dump(mode="json")
    except ValueError:
        # One that this version would not run any more is still what was run.
        return recipe


def environments(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """Find what the machines and versions behind runs differ in.

    Args:
        entries: The runs.

    Returns:
        By package, Python or device, the values that occur; empty where all are the same.
    """
    columns: dict[str, list[str]] = {}
    for entry in entries:
        env = entry.view.env
        packages = env.get("packages") or {}
        kept = {"Python": env.get("python"), "device": env.get("device_name"), **packages}
        for name, value in kept.items():
            columns.setdefault(name, [])
            if value is not None and str(value) not in columns[name]:
                columns[name].append(str(value))
    return {name: values for name, values in columns.items() if len(values) > 1}
