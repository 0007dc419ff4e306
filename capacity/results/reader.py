"""Reading a run directory: every file is checked against the digest that it was written with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from capacity.base.checks import path_of
from capacity.base.files import (
    NOT_AS_WRITTEN,
    as_numbers,
    as_object,
    as_rows,
    as_tensors,
    read_bytes,
)
from capacity.recipe import config
from capacity.recipe.config import Recipe
from capacity.recipe.strict_yaml import as_yaml
from capacity.results.manifest import Listed, Manifest, digest
from capacity.results.recipe_of_result import check_result
from capacity.results.shape import check_row

if TYPE_CHECKING:  # seconds to import, and a path without a run is refused at once
    from torch import Tensor

UNFINISHED = ("running", "interrupted", "failed")

REPORT = "report.html"
LOGGED = "metrics.jsonl"
SUMMARY = "summary.parquet"
_CHECKPOINTS = "checkpoints/"
_SPARE = ("env.json", "status.json", "metrics.parquet", SUMMARY)
"""Files without which a run is as finished as with them."""


class RunReader:
    """Reads one run directory (see `result_schema.md` for its files).

    A file that is not as it was written is a ValueError. The files of an earlier version, which
    have no digests, are read as they are.

    Attributes:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._manifest = Manifest(path)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a run that was written before.

        Args:
            path: The directory.

        Returns:
            The run directory.

        Raises:
            ValueError: If there is no run.
        """
        path = path_of("run", path)
        if not (path / "recipe.yaml").is_file():
            raise ValueError(
                f"run = {str(path)!r} is not a run directory (it has no recipe.yaml); pass the "
                "directory that `capacity run` printed"
            )
        return cls(path)

    @property
    def finished(self) -> bool:
        """Whether everything of the run is measured; its report may be missing."""
        if self._missing() or not (self.path / "result.json").is_file():
            return False
        state = self.status().get("state") or self.result().get("status", "running")
        return state not in UNFINISHED

    @property
    def verified(self) -> bool:
        """Whether its files carry digests; those of an earlier version do not."""
        return self._manifest.present

    def verify(self, *, checkpoints: bool = True) -> None:
        """Check every file of the run against the digest that it was written with.

        Args:
            checkpoints: Whether the checkpoints, too, which neither report nor table reads.
        """
        for name in self._listed():
            if checkpoints or not name.startswith(_CHECKPOINTS):
                self._content(name)

    def digests(self) -> dict[str, str]:
        """Check the files that hold the run, and take their digests.

        Returns:
            Digests by file, but for checkpoints and the files that are made from others. A damaged
            file of either kind is a ValueError; one that is gone has none.
        """
        found: dict[str, str] = {}
        for name in self._listed():
            if name.startswith(_CHECKPOINTS):
                continue
            data = self._content(name)
            if data is not None and not name.endswith(".parquet"):
                found[name] = digest(data)
        return found

    def _listed(self) -> Listed:
        return self._manifest.listed()

    def _missing(self) -> list[str]:
        """List the files that were written, hold a part of the result, and are gone."""
        return [
            name
            for name, accepted in self._listed().items()
            if None not in accepted
            and not name.startswith(_CHECKPOINTS)
            and name not in _SPARE
            and not (self.path / name).is_file()
        ]

    def _content(self, name: str, remedy: str = "") -> bytes | None:
        """Read a file as it was written, or refuse it; None where there is none."""
        path = self.path / name
        remedy = remedy or self._remedy(name)
        data = read_bytes(path, remedy)
        # Until the run ends, the rows carry digests of their own.
        if data is None or (name == LOGGED and name not in self._listed()):
            return data
        if not self._manifest.accepts(name, data):
            data = read_bytes(path, remedy)  # a process at work may have written it just now
            if data is not None and not self._manifest.accepts(name, data):
                raise ValueError(f"{path}: damaged ({NOT_AS_WRITTEN}); {remedy}")
        return data

    def _remedy(self, name: str) -> str:
        """Say what to do about a damaged file."""
        if name == "recipe.yaml":
            return "restore it from a copy, or run the recipe in another directory"
        if name == "metrics.parquet":
            return "delete it; the same rows are in metrics.jsonl"
        if name == SUMMARY:
            return "delete it; it is made anew from the other files"
        if name in _SPARE:
            return "delete it; it holds no result"
        unfinished = (self.path / "journal").is_dir()
        if name.startswith(_CHECKPOINTS) and not unfinished:
            return "restore it from a copy, or delete it; no number of the run hangs on it"
        again = "writes it anew" if unfinished else "measures the run again"
        return (
            f"restore it from a copy, or delete it, and `capacity run --resume {self.path}` (or "
            f"the call that began the run) {again}"
        )

    def recipe(self) -> Recipe:
        """Read the recipe.

        Returns:
            The resolved recipe of the run. One that cannot be read is a ValueError.
        """
        return config.build(self.fields(), source="recipe.yaml")

    def recipe_text(self) -> str:
        """Read the recipe as it stands.

        Returns:
            The text of recipe.yaml; empty where there is none.
        """
        return (self._content("recipe.yaml") or b"").decode()

    def fields(self) -> dict[str, Any]:
        """Read the recipe as plain data.

        Returns:
            Its fields as they stand.

        Raises:
            ValueError: If it cannot be read.
        """
        content = self._content("recipe.yaml")
        try:
            if content is None:
                raise ValueError("not there")
            fields = as_yaml(content)
        except ValueError as error:
            raise ValueError(f"recipe.yaml: {error}") from None
        if not isinstance(fields, dict):
            raise ValueError("recipe.yaml is not a mapping of fields")
        return fields

    def status(self) -> dict[str, Any]:
        """Read the status.

        Returns:
            The content of status.json; empty when there is none.

        Raises:
            ValueError: If it cannot be read.
        """
        path, remedy = self.path / "status.json", self._remedy("status.json")
        record = as_object(path, self._content("status.json"), remedy)
        if not isinstance(record.get("seconds", {}), dict):
            raise ValueError(f"{path}: seconds is not an object; {remedy}")
        for stage, spent in record.get("seconds", {}).items():
            if isinstance(spent, bool) or not isinstance(spent, int | float):
                raise ValueError(f"{path}: seconds.{stage} is not a number; {remedy}")
        return record

    def result(self) -> dict[str, Any]:
        """Read the summary.

        Returns:
            The content of result.json; empty when there is none yet.
        """
        path, remedy = self.path / "result.json", self._remedy("result.json")
        record = as_object(path, self._content("result.json"), remedy)
        check_result(record, path, remedy)
        return record

    def environment(self) -> dict[str, Any]:
        """Read what may differ between machines.

        Returns:
            The content of env.json; empty when there is none. One that cannot be read is a
            ValueError.
        """
        path, remedy = self.path / "env.json", self._remedy("env.json")
        return as_object(path, self._content("env.json"), remedy)

    def command(self) -> dict[str, str]:
        """Read the command that began the run, for a run that goes on.

        Returns:
            As env.json has it; empty for a new run, or where it cannot be read.
        """
        try:
            said = self.environment().get("command")
        except ValueError:
            return {}
        return {"command": said} if isinstance(said, str) else {}

    def metrics(self) -> list[dict[str, Any]]:
        """Read the rows written while training.

        Returns:
            One dictionary per task and epoch (see `as_rows`); none where there is no file.

        Raises:
            ValueError: If a row is damaged, or not one of a training.
        """
        content = self._content(LOGGED)
        if content is None:
            return []
        listed = self._listed()
        path, open_ended = self.path / LOGGED, bool(listed) and LOGGED not in listed
        rows = as_rows(path, content, digests=open_ended)
        for k, row in enumerate(rows, start=1):
            try:
                check_row(row)
            except ValueError as error:
                raise ValueError(f"{path}: row {k}: {error}; {self._remedy(LOGGED)}") from None
        return rows

    def check(self, *, checkpoints: bool = True) -> None:
        """Read every file that a report shows.

        Args:
            checkpoints: As in `verify`.

        Raises:
            ValueError: If one is damaged, by its name, or the result is missing beside the rows.
        """
        self.verify(checkpoints=checkpoints)
        try:
            self.fields()
        except ValueError as error:
            raise ValueError(f"run = {str(self.path)!r}: {error}") from None
        self.environment()
        self.status()
        for name in self._missing():
            raise ValueError(f"{self.path / name}: missing; {self._remedy(name)}")
        if self.metrics() and not self.result():
            raise ValueError(
                f"{self.path / 'result.json'}: missing beside the rows of metrics.jsonl; `capacity "
                f"run --resume {self.path}` writes it anew"
            )

    def spectra(self) -> dict[str, Tensor]:
        """Read what the spectra left.

        Returns:
            Tensors by name; none where nothing was measured.
        """
        name = "spectra.safetensors"
        return as_tensors(self.path / name, self._content(name))

    def log_volume_steps(self) -> dict[int, list[float]]:
        """Read log|det| of every step, in order, by task.

        Returns:
            Lists; none where nothing was measured.
        """
        name = "spectra.safetensors"
        numbers = as_numbers(self.path / name, self._content(name))
        found = {re.fullmatch(r"task(\d+)\.log_volume_steps", part): part for part in numbers}
        return dict(sorted((int(m[1]), numbers[part]) for m, part in found.items() if m))

    def theta(self, name: str) -> Tensor:
        """Read a checkpoint.

        Args:
            name: `initial` or `task{i}`.

        Returns:
            Parameters (R, P) on the CPU.

        Raises:
            ValueError: If there is none, or it is damaged, or of another run.
        """
        file = f"checkpoints/{name}.safetensors"
        tensors = as_tensors(self.path / file, self._content(file))
        if "theta" not in tensors:
            raise ValueError(f"{self.path / file}: not there; {self._remedy(file)}")
        return tensors["theta"]
