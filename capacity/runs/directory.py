"""The run directory: everything a run keeps, written so that it is readable at any moment."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file, save
from torch import Tensor

from capacity import config
from capacity.config import Recipe

UNFINISHED = ("running", "interrupted", "failed")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    Args:
        path: The file.
        content: Its bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def to_json(record: object) -> bytes:
    """Write JSON the way every file of a run has it.

    Args:
        record: Plain types without NaN or infinity.

    Returns:
        UTF-8 bytes.
    """
    return (json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


class RunDirectory:
    """Reads and writes one run directory (see `result_schema.md` for its files).

    Attributes:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
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
        path = Path(path)
        if not (path / "recipe.yaml").is_file():
            raise ValueError(
                f"run = {str(path)!r} is not a run directory (it has no recipe.yaml); pass the "
                "directory that `capacity run` printed"
            )
        return cls(path)

    def claim(self, recipe: Recipe) -> bool:
        """Take the directory for a recipe, before any work starts.

        Args:
            recipe: What will run.

        Returns:
            Whether the directory already holds this recipe's finished run.

        Raises:
            ValueError: If it holds another recipe or foreign files, or cannot be written.
        """
        shown = str(self.path)
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"out = {shown!r} is a file; name a directory")
        saved = self.path / "recipe.yaml"
        if saved.is_file():
            try:
                before = self.recipe()
            except ValueError as error:
                raise ValueError(
                    f"out = {shown!r} holds a recipe that cannot be read ({error}); name another"
                ) from None
            if before != recipe:
                raise ValueError(
                    f"out = {shown!r} holds a run of another recipe ({_difference(before, recipe)})"
                    "; name another directory, or delete this one"
                )
            if (
                self.status().get("state") not in UNFINISHED
                and (self.path / "result.json").exists()
            ):
                return True
        elif self.path.is_dir() and any(self.path.iterdir()):
            raise ValueError(
                f"out = {shown!r} holds files that are no run; name a new or empty directory"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(saved, recipe.to_yaml().encode())
            (self.path / "metrics.jsonl").write_bytes(b"")
        except OSError as error:
            raise ValueError(
                f"out = {shown!r} cannot be written ({error.strerror}); name another directory"
            ) from None
        return False

    def recipe(self) -> Recipe:
        """Read the recipe.

        Returns:
            The resolved recipe of the run.

        Raises:
            ValueError: If it cannot be read.
        """
        try:
            fields = yaml.safe_load((self.path / "recipe.yaml").read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"recipe.yaml: {' '.join(str(error).split())}") from None
        if not isinstance(fields, dict):
            raise ValueError("recipe.yaml: not a mapping of fields")
        return config.build(fields, source="recipe.yaml")

    def status(self) -> dict[str, Any]:
        """Read the status.

        Returns:
            The content of status.json; empty when there is none.
        """
        return self._read("status.json")

    def result(self) -> dict[str, Any]:
        """Read the summary.

        Returns:
            The content of result.json; empty when there is none yet.
        """
        return self._read("result.json")

    def metrics(self) -> list[dict[str, Any]]:
        """Read the rows written while training.

        Returns:
            One dictionary per task and epoch. A last line cut short by a kill is left out.
        """
        path = self.path / "metrics.jsonl"
        rows = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def theta(self, name: str) -> Tensor:
        """Read a checkpoint.

        Args:
            name: `initial` or `task{i}`.

        Returns:
            Parameters (R, P) on the CPU.
        """
        return load_file(self.path / "checkpoints" / f"{name}.safetensors")["theta"]

    def set_status(self, state: str, message: str = "") -> None:
        """Say where the run stands.

        Args:
            state: One of the states of the schema.
            message: A sentence for people.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._started = self._started or now
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
        plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        write_atomically(self.path / name, save(plain))

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

        rows = self.path / "metrics.jsonl"
        if not rows.is_file() or rows.stat().st_size == 0:
            return
        part = self.path / ".metrics.parquet.tmp"
        with duckdb.connect() as connection:
            connection.read_json(str(rows), format="newline_delimited").write_parquet(str(part))
        os.replace(part, self.path / "metrics.parquet")

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        if not path.is_file():
            return {}
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not readable as JSON ({error})") from None
        if not isinstance(record, dict):
            raise ValueError(f"{path}: not a JSON object")
        return record


class _Timer:
    def __init__(self, seconds: dict[str, float], stage: str) -> None:
        self._seconds, self._stage = seconds, stage

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        spent = time.perf_counter() - self._start
        self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + spent


def _difference(before: Recipe, now: Recipe) -> str:
    """Name the first field in which two recipes differ."""

    def flat(prefix: str, fields: dict[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, value in fields.items():
            out |= (
                flat(f"{prefix}{key}.", value) if isinstance(value, dict) else {prefix + key: value}
            )
        return out

    old, new = flat("", before.model_dump()), flat("", now.model_dump())
    name = next(key for key in old if old[key] != new[key])
    return f"{name} was {old[name]!r}, is {new[name]!r}"
