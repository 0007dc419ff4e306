"""The folder of a recipe's seeds: which seeds were asked for, of which recipe, and what is done."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from capacity.base.checks import positive_int
from capacity.base.files import read_json, sweep, to_json, write_atomically
from capacity.recipe import config
from capacity.recipe.config import Recipe
from capacity.results.recipe_of_result import changed_fields
from capacity.runs.directory import RunDirectory

_SCHEMA = "capacity/seeds"
_VERSION = 1


class SeedsFolder:
    """A run directory per seed, and what they have in common.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def recipe_path(self) -> Path:
        """Where the recipe of all seeds stands."""
        return self.path / "seeds.yaml"

    def directory(self, seed: int) -> RunDirectory:
        """Give the run directory of a seed.

        Args:
            seed: The seed.

        Returns:
            The directory, which need not be there.
        """
        return RunDirectory(self.path / f"seed-{seed}")

    def asked(self) -> list[int]:
        """Read which seeds were asked for so far.

        Returns:
            The seeds; none where nothing was begun here.

        Raises:
            ValueError: If the file is damaged.
        """
        path = self.path / "seeds.json"
        record = read_json(path, "delete it, and name the seeds with --seeds")
        if not record:
            return []
        try:
            if (record.get("schema"), record.get("schema_version")) != (_SCHEMA, _VERSION):
                raise ValueError("another schema")
            return check_seeds(record.get("seeds"))
        except ValueError as error:
            raise ValueError(
                f"{path}: holds no list of seeds ({error}); delete it, and name the seeds with "
                "--seeds"
            ) from None

    def begin(self, recipe: Recipe, seeds: list[int]) -> list[int]:
        """Note what is asked for, unless the folder will not do.

        Args:
            recipe: The recipe of all seeds.
            seeds: The seeds.

        Returns:
            Those that are finished already.

        Raises:
            ValueError: If the folder holds another recipe or foreign files, or cannot be written;
                nothing is written then.
        """
        done = self._finished(recipe, seeds)
        every = list(dict.fromkeys([*self.asked(), *seeds]))
        record = {"schema": _SCHEMA, "schema_version": _VERSION, "seeds": every}
        try:
            for path in (self.recipe_path, self.path / "seeds.json"):
                sweep(self.path, path.name)
            write_atomically(self.recipe_path, recipe.to_yaml().encode())
            write_atomically(self.path / "seeds.json", to_json(record))
        except OSError as error:
            raise ValueError(
                f"out = {str(self.path)!r} cannot be written ({error.strerror}); name another"
            ) from None
        return done

    def _finished(self, recipe: Recipe, seeds: list[int]) -> list[int]:
        shown = repr(str(self.path))
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"out = {shown} is a file; name a folder")
        if (self.path / "recipe.yaml").is_file():
            raise ValueError(
                f"out = {shown} is itself a run; name a folder that holds a run per seed"
            )
        if self.recipe_path.is_file():
            self._refuse(self.path, config.load(self.recipe_path), recipe)
        done = []
        for seed in seeds:
            directory = self.directory(seed)
            path = directory.path
            if (path / "recipe.yaml").is_file():
                self._refuse(path, directory.recipe(), recipe)
                done += [seed] if directory.complete else []
            elif path.is_dir() and any(path.iterdir()):
                raise ValueError(f"{str(path)!r} holds files that are no run; name another out")
        return done

    def _refuse(self, path: Path, there: Recipe, recipe: Recipe) -> None:
        changed = changed_fields(there, recipe, ignored=("seed",))
        if changed:
            raise ValueError(
                f"{str(path)!r} holds a run of another recipe ({changed}); name another out"
            )


def parse_seeds(text: str) -> list[int]:
    """Read a list of seeds.

    Args:
        text: As `0-9`, `3`, or `0,2,5-7`.

    Returns:
        The seeds in the order given.

    Raises:
        ValueError: If it is not understood, or names a seed twice.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise ValueError(
                f"seeds = {text!r} is not understood at {part.strip()!r}; write 0-9 or 0,2,5-7"
            )
        low, high = int(first), int(last or first)
        if high < low:
            raise ValueError(f"seeds = {text!r}: the range {part.strip()!r} runs backwards")
        seeds += range(low, high + 1)
    return check_seeds(seeds)


def check_seeds(seeds: object) -> list[int]:
    """Check a list of seeds.

    Args:
        seeds: Seeds.

    Returns:
        The list.

    Raises:
        ValueError: If it is empty, names a seed twice, or holds anything but whole numbers.
    """
    if isinstance(seeds, str) or not isinstance(seeds, Iterable):
        raise ValueError(f"seeds = {seeds!r} is no list; pass range(10), [0, 2, 5], or the like")
    listed = [positive_int("seeds", seed, minimum=0) for seed in seeds]
    if not listed:
        raise ValueError("seeds is empty; pass at least one")
    twice = next((seed for k, seed in enumerate(listed) if seed in listed[:k]), None)
    if twice is not None:
        raise ValueError(f"seeds names {twice} twice; name every seed once")
    return listed
