"""The run directory: everything a run keeps, written so that it is readable at any moment."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capacity import config
from capacity.checks import path_of
from capacity.config import Recipe
from capacity.runs.files import (
    is_temporary,
    read_json,
    read_rows,
    read_tensors,
    to_json,
    write_atomically,
)
from capacity.runs.fingerprint import with_the_same
from capacity.runs.journal import Journal
from capacity.runs.lock import DirectoryLock
from capacity.runs.reading import changed_fields, check_result
from capacity.strict_yaml import read_yaml

if TYPE_CHECKING:  # seconds to import, and a path without a run is refused at once
    from torch import Tensor

_FILES = (
    "recipe.yaml",
    "env.json",
    "status.json",
    "metrics.jsonl",
    "metrics.parquet",
    "result.json",
    "spectra.safetensors",
    "report.html",
)
_FOLDERS = ("checkpoints", "journal")

UNFINISHED = ("running", "interrupted", "failed")


class RunDirectory:
    """Reads and writes one run directory (see `result_schema.md` for its files).

    Attributes:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = DirectoryLock(path)
        self._seconds: dict[str, float] = {}
        self._started = ""

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
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

    def claim(self, recipe: Recipe) -> bool:
        """Take the directory for a recipe, before any work starts; `release` gives it back.

        One that holds another recipe or foreign files, is in use by another process or cannot be
        written is a ValueError.

        Args:
            recipe: What will run.

        Returns:
            Whether the directory already holds this recipe's run, finished and reported; it is not
            taken then.
        """
        try:
            if self._holds(recipe):
                return True
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            # Once more, now that nobody else can change it.
            if self._holds(recipe):
                self._lock.release()
                return True
            self._check_names()
            self._sweep()
            if not (self.path / "recipe.yaml").is_file():
                write_atomically(self.path / "recipe.yaml", recipe.to_yaml().encode())
        except OSError as error:
            self._lock.release()
            raise self._unwritable(error) from None
        except BaseException:
            self._lock.release()
            raise
        return False

    def release(self) -> None:
        """Let other processes have the directory."""
        self._lock.release()

    def as_kept(self, recipe: Recipe) -> Recipe:
        """Read a recipe as the directory has it, where the two differ by rounding only.

        Args:
            recipe: What is asked for; its fingerprint was taken on this machine.

        Returns:
            The recipe, with the fingerprint that the directory holds where both are of the same.
        """
        if not (self.path / "recipe.yaml").is_file():
            return recipe
        try:
            return with_the_same(recipe, self.recipe())
        except ValueError:
            return recipe  # `claim` says what is wrong

    def journal(self, recipe: Recipe) -> Journal:
        """Open the records of what is done.

        Args:
            recipe: The recipe of the run.

        Returns:
            The journal, empty for a new run.
        """
        return Journal(self.path / "journal", recipe)

    def _holds(self, recipe: Recipe) -> bool:
        """Say whether this recipe's finished run is here, and refuse what is not this recipe's."""
        shown = str(self.path)
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"out = {shown!r} is a file; name a directory")
        if not (self.path / "recipe.yaml").is_file():
            if self.path.is_dir() and any(map(_foreign, self.path.iterdir())):
                raise ValueError(
                    f"out = {shown!r} holds files that are no run; name a new or empty directory"
                )
            return False
        try:
            before = self.recipe()
        except ValueError as error:
            raise ValueError(
                f"out = {shown!r} holds a recipe that cannot be read ({error}); name another"
            ) from None
        if before != recipe:
            raise ValueError(
                f"out = {shown!r} holds a run of another recipe ({changed_fields(before, recipe)})"
                "; name another directory, or delete this one"
            )
        return self.complete

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do: the run is finished, and its report was made."""
        return self.finished and not (self.path / "journal").is_dir()

    @property
    def finished(self) -> bool:
        """Whether everything of the run is measured; its report may be missing."""
        ended = self.status().get("state", "running") not in UNFINISHED
        return ended and (self.path / "result.json").is_file()

    @property
    def busy(self) -> bool:
        """Whether a living process works on the run."""
        return self._lock.taken()

    def _check_names(self) -> None:
        """Refuse a directory where a run writes a file, and the other way round."""
        for name in _FILES:
            if (self.path / name).is_dir():
                raise IsADirectoryError(0, f"{name} is a directory there, and no file")
        for name in _FOLDERS:
            if (self.path / name).is_file():
                raise NotADirectoryError(0, f"{name} is a file there, and no directory")

    def _unwritable(self, error: OSError) -> ValueError:
        return ValueError(
            f"out = {str(self.path)!r} cannot be written ({error.strerror}); name another directory"
        )

    def _sweep(self) -> None:
        """Remove what a killed process left half-written."""
        for folder in (self.path, self.path / "checkpoints", self.path / "journal"):
            for path in folder.iterdir() if folder.is_dir() else ():
                if is_temporary(path.name):
                    path.unlink(missing_ok=True)

    def recipe(self) -> Recipe:
        """Read the recipe.

        Returns:
            The resolved recipe of the run. One that cannot be read is a ValueError.
        """
        return config.build(self._fields(), source="recipe.yaml")

    def _fields(self) -> dict[str, Any]:
        try:
            fields = read_yaml(self.path / "recipe.yaml")
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
        path, remedy = self.path / "status.json", "delete it; it holds no result"
        record = read_json(path, remedy)
        if not isinstance(record.get("seconds", {}), dict):
            raise ValueError(f"{path}: seconds is not an object; {remedy}")
        return record

    def result(self) -> dict[str, Any]:
        """Read the summary.

        Returns:
            The content of result.json; empty when there is none yet.
        """
        path = self.path / "result.json"
        remedy = f"delete it, and `capacity run --resume {self.path}` writes it anew"
        record = read_json(path, remedy)
        check_result(record, path, remedy)
        return record

    def command(self) -> dict[str, str]:
        """Read the command that began the run, for a run that goes on.

        Returns:
            As env.json has it; empty for a new run, or where it cannot be read.
        """
        try:
            said = read_json(self.path / "env.json").get("command")
        except ValueError:
            return {}
        return {"command": said} if isinstance(said, str) else {}

    def metrics(self) -> list[dict[str, Any]]:
        """Read the rows written while training.

        Returns:
            One dictionary per task and epoch (see `read_rows`).
        """
        return read_rows(self.path / "metrics.jsonl")

    def check(self) -> None:
        """Read every file that a report shows.

        Raises:
            ValueError: If one is damaged, by its name, or the result is missing beside the rows.
        """
        try:
            self._fields()
        except ValueError as error:
            raise ValueError(f"run = {str(self.path)!r}: {error}") from None
        read_json(self.path / "env.json", "delete it; it holds no result")
        self.status()
        if self.metrics() and not self.result():
            raise ValueError(
                f"{self.path / 'result.json'}: missing beside the rows of metrics.jsonl; `capacity "
                f"run --resume {self.path}` writes it anew"
            )

    def theta(self, name: str) -> Tensor:
        """Read a checkpoint.

        Args:
            name: `initial` or `task{i}`.

        Returns:
            Parameters (R, P) on the CPU.
        """
        return read_tensors(self.path / "checkpoints" / f"{name}.safetensors")["theta"]

    def set_status(self, state: str, message: str = "") -> None:
        """Say where the run stands.

        Args:
            state: One of the states of the schema.
            message: A sentence for people.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        if not self._started:
            earlier = self.status()
            self._started = str(earlier.get("started") or now)
            self._seconds = {**earlier.get("seconds", {}), **self._seconds}
        record = {
            "state": state,
            "message": message,
            "started": self._started,
            "updated": now,
            "seconds": {stage: round(s, 3) for stage, s in self._seconds.items()},
        }
        write_atomically(self.path / "status.json", to_json(record))

    def timed(self, stage: str) -> _Timer:
        """Add the time of a `with` block to a stage of status.json.

        Args:
            stage: Name of the stage.

        Returns:
            A context manager.
        """
        return _Timer(self._seconds, stage)

    def write_json(self, name: str, record: object) -> None:
        """Write one JSON file.

        Args:
            name: File name, as result.json.
            record: Plain types.
        """
        write_atomically(self.path / name, to_json(record))

    def write_tensors(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Write one safetensors file.

        Args:
            name: Path below the run directory.
            tensors: What to keep.
        """
        from safetensors.torch import save

        plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        write_atomically(self.path / name, save(plain))

    def write_metrics(self, rows: Iterable[dict[str, Any]]) -> None:
        """Begin metrics.jsonl anew.

        Args:
            rows: The rows that are known to belong there.
        """
        lines = [json.dumps(row, allow_nan=False) + "\n" for row in rows]
        write_atomically(self.path / "metrics.jsonl", "".join(lines).encode())

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Append one row to metrics.jsonl.

        Args:
            row: Plain types without NaN or infinity.
        """
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")

    def compact_metrics(self) -> None:
        """Write metrics.parquet from metrics.jsonl; skipped while there is no row."""
        import duckdb  # 0.2 s to import, and only the end of a run needs it

        rows = self.metrics()
        if not rows:
            return
        # DuckDB reads paths as patterns: `run[1]` is its neighbour `run1`. It gets the rows.
        text = json.dumps(rows)
        part = self.path.absolute() / ".metrics.parquet.tmp"
        with duckdb.connect() as connection:
            asked = "SELECT json_structure(?::JSON)"
            (structure,) = connection.execute(asked, [text]).fetchone()
            structure = structure.replace('"UBIGINT"', '"BIGINT"')  # or epoch - 1 fails
            table = "unnest(from_json(?::JSON, ?), max_depth := 2)"
            connection.execute(f"CREATE TABLE kept AS SELECT {table}", [text, structure])
            connection.table("kept").write_parquet(str(part))
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, self.path / "metrics.parquet")


class _Timer:
    def __init__(self, seconds: dict[str, float], stage: str) -> None:
        self._seconds, self._stage = seconds, stage

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        spent = time.perf_counter() - self._start
        self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + spent


def _foreign(path: Path) -> bool:
    """Tell other people's files from what a run killed at its start leaves behind."""
    return path.name != DirectoryLock.NAME and not is_temporary(path.name)
