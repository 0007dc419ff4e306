"""The run directory: everything a run keeps, written so that it is readable at any moment."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from capacity.base.files import (
    is_temporary,
    read_bytes,
    sweep,
    to_json,
    to_lines,
    to_row,
    write_all,
)
from capacity.recipe.config import Recipe
from capacity.results.fingerprint import with_the_same
from capacity.results.manifest import Manifest
from capacity.results.reader import LOGGED, REPORT, SUMMARY, RunReader
from capacity.results.recipe_of_result import changed_fields
from capacity.runs.journal import Journal
from capacity.runs.lock import DirectoryLock
from capacity.runs.parquet import to_parquet

_FILES = (
    "recipe.yaml",
    "env.json",
    "status.json",
    "metrics.jsonl",
    "metrics.parquet",
    SUMMARY,
    "result.json",
    "spectra.safetensors",
    "report.html",
    Manifest.NAME,
)
_FOLDERS = ("checkpoints", "journal")

Files = Mapping[str, Mapping[str, Any] | bytes]


class RunDirectory(RunReader):
    """Reads and writes one run directory (see `result_schema.md` for its files).

    Attributes:
        path: The directory.
        removed: Whether it was removed while this process worked on it, and made anew.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._lock = DirectoryLock(path)
        self._seconds: dict[str, float] = {}
        self._started = ""
        self._kept: dict[str, bytes] = {}
        self._rows: list[bytes] = []
        self.removed = False

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
            raise self.unwritable(error) from None
        try:
            # Once more, now that nobody else can change it.
            if self._holds(recipe):
                self._lock.release()
                return True
            self._check_names()
            self._sweep()
            if not (self.path / "recipe.yaml").is_file():
                self._begin(recipe.to_yaml().encode())
            self._kept["recipe.yaml"] = (self.path / "recipe.yaml").read_bytes()
        except OSError as error:
            self._lock.release()
            raise self.unwritable(error) from None
        except BaseException:
            self._lock.release()
            raise
        return False

    def _begin(self, recipe: bytes) -> None:
        write_all({self.path / "recipe.yaml": recipe})
        self._manifest.begin(["recipe.yaml"])

    def _stay(self) -> None:
        """Make the directory anew if somebody has removed it; one that is another's is refused."""
        if not self._lock.lost:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock.renew()
        self.removed = True
        if not (self.path / "recipe.yaml").is_file():
            self._begin(self._kept["recipe.yaml"])
        if "env.json" in self._kept and not (self.path / "env.json").is_file():
            self.write({"env.json": self._kept["env.json"]})
        if self._rows and not (self.path / LOGGED).is_file():
            write_all({self.path / LOGGED: b"".join(self._rows)})

    def take_up(self) -> None:
        """Have the files checked from here on, where an earlier process did not come to it."""
        kept = [f"checkpoints/{p.name}" for p in self.path.glob("checkpoints/*.safetensors")]
        listed = [name for name in _FILES if name not in {LOGGED, REPORT, Manifest.NAME}]
        self._manifest.begin([*listed, *kept])

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
        try:
            if not (self.path / "recipe.yaml").is_file():
                return recipe
            return with_the_same(recipe, self.recipe())
        except OSError as error:
            raise self.unwritable(error) from None
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
        if not self.complete:
            return False
        self.verify()
        return True

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do: the run is finished, and its report was made."""
        return self.finished and not (self.path / "journal").is_dir()

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

    def unwritable(self, error: OSError) -> ValueError:
        """Say that the directory cannot be written.

        Args:
            error: What the system said.

        Returns:
            The refusal.
        """
        return ValueError(
            f"out = {str(self.path)!r} cannot be written ({error.strerror}); name another directory"
        )

    def _sweep(self) -> None:
        """Remove what a killed process left half-written."""
        for folder in (self.path, self.path / "checkpoints", self.path / "journal"):
            for path in folder.iterdir() if folder.is_dir() else ():
                # A report may be under way in another process; `render` sweeps after it.
                if is_temporary(path.name) and not path.name.startswith(f".{REPORT}."):
                    path.unlink(missing_ok=True)
        sweep(self.path, REPORT)

    def set_status(self, state: str, message: str = "", files: Files | None = None) -> None:
        """Say where the run stands.

        Args:
            state: One of the states of the schema.
            message: A sentence for people.
            files: What is written before it.
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
        self.write({**(files or {}), "status.json": record})

    def timed(self, stage: str) -> _Timer:
        """Add the time of a `with` block to a stage of status.json.

        Args:
            stage: Name of the stage.

        Returns:
            A context manager.
        """
        return _Timer(self._seconds, stage)

    def spent(self, stage: str, seconds: float) -> None:
        """Add time that was taken in a process beside this one.

        Args:
            stage: Name of the stage.
            seconds: How long.
        """
        self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds

    def write(self, files: Files) -> None:
        """Write files of the run, each whole or not at all; checkpoints that stand so are left.

        Args:
            files: By path below the run directory: plain types for JSON, tensors by name for
                safetensors, or bytes.
        """
        self._stay()
        contents = {name: _bytes_of(name, record) for name, record in files.items()}
        self._kept |= {name: data for name, data in contents.items() if name == "env.json"}
        contents = {
            name: data
            for name, data in contents.items()
            if not (name.startswith("checkpoints/") and self._stands(name, data))
        }
        self._manifest.announce(contents)
        write_all({self.path / name: data for name, data in contents.items()})
        self._manifest.settle(contents)

    def _stands(self, name: str, data: bytes) -> bool:
        return name in self._manifest.listed() and read_bytes(self.path / name) == data

    def settle(self) -> None:
        """Note that everything that was announced is written."""
        with suppress(OSError):  # a full disk leaves digests of what was replaced, and no harm
            self._manifest.announce({})

    def write_metrics(self, rows: Iterable[dict[str, Any]]) -> None:
        """Begin metrics.jsonl anew.

        Args:
            rows: The rows that are known to belong there.
        """
        self._stay()
        self._rows = [to_row(row) for row in rows]
        self._manifest.announce({}, unlisted=(LOGGED,))
        write_all({self.path / LOGGED: b"".join(self._rows)})

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Append one row to metrics.jsonl.

        Args:
            row: Plain types without NaN or infinity.
        """
        self._stay()
        self._rows.append(to_row(row))
        with (self.path / LOGGED).open("ab") as file:
            file.write(self._rows[-1])

    def compact_metrics(self) -> None:
        """Write metrics.parquet from metrics.jsonl; skipped while there is no row."""
        self._stay()
        rows = self.metrics()
        if not rows:
            return
        # DuckDB reads paths as patterns: `run[1]` is its neighbour `run1`. It gets the rows.
        compacted = to_parquet(rows, self.path.absolute() / ".metrics.parquet.tmp")
        # From here on no row is added, and the file has one digest for all.
        logged = (self.path / LOGGED).read_bytes()
        self.write({LOGGED: logged, "metrics.parquet": compacted})


class _Timer:
    def __init__(self, seconds: dict[str, float], stage: str) -> None:
        self._seconds, self._stage = seconds, stage

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        spent = time.perf_counter() - self._start
        self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + spent


def _bytes_of(name: str, record: Mapping[str, Any] | bytes) -> bytes:
    if isinstance(record, bytes):
        return record
    if name.endswith(".safetensors"):
        from safetensors.torch import save  # seconds to import

        return save({key: part.detach().cpu().contiguous() for key, part in record.items()})
    return to_lines(record) if name == "result.json" else to_json(record)


def _foreign(path: Path) -> bool:
    """Tell other people's files from what a run killed at its start leaves behind."""
    return path.name != DirectoryLock.NAME and not is_temporary(path.name)
