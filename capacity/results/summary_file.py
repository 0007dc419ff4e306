"""The summary of a run, a Parquet file: what comparisons and tables take from it, read at once.

It has one row with, as JSON, the rows of every table, what a comparison keeps, and a key: which
content of the other files it was made from. A file that changed since makes another key, and the
run is read whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

from capacity.base.distribution import VERSION
from capacity.base.files import write_atomically
from capacity.results.manifest import Manifest
from capacity.results.query_rows import COLUMNS, rows_of
from capacity.results.reader import SUMMARY, RunReader
from capacity.results.run_summary import summarised
from capacity.results.schema import Result
from capacity.results.snapshot import Snapshot
from capacity.results.view import RunView
from capacity.results.view_of_run import view_of

TABLES = tuple(COLUMNS)
_COMPARED = ("result", "recipe", "env", "status")
_AT_ONCE = 100
_LAYOUT = json.dumps([2, VERSION, COLUMNS])
_PATTERNS = frozenset("*?[]{}\\")
"""What DuckDB takes for a pattern of names; such a run is read whole."""


class Compared(NamedTuple):
    """What a comparison takes from a run.

    Attributes:
        recipe: The whole recipe, as plain data.
        view: The run as `run_summary.summarised` leaves it.
    """

    recipe: Mapping[str, Any]
    view: RunView


def texts_of(paths: Sequence[Path]) -> Iterator[dict[str, str]]:
    """Read the rows of runs.

    Args:
        paths: The run directories.

    Yields:
        Per run, in order, and by table: the rows of `query_rows.rows_of` as a JSON array. A damaged
        file is a ValueError.
    """
    for path, kept in zip(paths, _kept(paths, TABLES), strict=True):
        yield kept if kept is not None else _rows(read_whole(path))


def compared(paths: Sequence[Path]) -> Iterator[Compared]:
    """Read what a comparison takes from runs.

    Args:
        paths: The run directories.

    Yields:
        One record per run, in order. A damaged file is a ValueError.
    """
    for path, kept in zip(paths, _kept(paths, _COMPARED), strict=True):
        if kept is None:
            view = read_whole(path)
            yield Compared(view.recipe, summarised(view))
            continue
        parts = {name: json.loads(text) for name, text in kept.items()}
        recipe = parts["recipe"]
        few = {name: recipe[name] for name in ("name", "seed") if name in recipe}
        result = cast(Result, parts["result"])
        view = RunView(result=result, recipe=few, env=parts["env"], status=parts["status"])
        yield Compared(recipe, view)


def checked(path: Path) -> tuple[Snapshot, RunView]:
    """Read a run without its summary, and check every file.

    Args:
        path: The run directory.

    Returns:
        The run and its content. A file that cannot be read, or that follows another schema, is a
        ValueError.
    """
    run = Snapshot.open(path)
    run.check(checkpoints=False)
    return run, view_of(run)


def read_whole(path: Path) -> RunView:
    """Read a run as `checked` does, and leave a summary where it has ended.

    Args:
        path: The run directory.

    Returns:
        Its content.
    """
    run, view = checked(path)
    if run.verified and run.finished and not (path / "journal").is_dir():
        with suppress(OSError):  # of others, perhaps, who let us read it alone
            content = summary_of(run, view)
            manifest = Manifest(path)
            manifest.announce({SUMMARY: content})
            write_atomically(path / SUMMARY, content)
    return view


def summary_of(run: RunReader, view: RunView) -> bytes:
    """Make the summary of a run.

    Args:
        run: The run, whose files are checked.
        view: Its content.

    Returns:
        The bytes of the Parquet file.
    """
    lean = summarised(view)
    kept = {"result": lean.result, "recipe": view.recipe, "env": view.env, "status": view.status}
    texts = {name: json.dumps(part) for name, part in kept.items()}
    texts = {"key": _key(run), **_rows(view), **texts}
    part = run.path.absolute() / f".{SUMMARY}.tmp-{os.getpid()}"
    columns = ", ".join(f"? AS {name}" for name in texts)
    try:
        with _database().cursor() as connection:
            made = connection.sql(f"SELECT {columns}", params=list(texts.values()))
            made.write_parquet(str(part), compression="zstd")
        return part.read_bytes()
    finally:
        part.unlink(missing_ok=True)


def _rows(view: RunView) -> dict[str, str]:
    """Give the rows of a run as JSON, by table."""
    # Half a character is no text to a database.
    return {
        name: json.dumps(rows, ensure_ascii=False).encode(errors="replace").decode()
        for name, rows in rows_of(view).items()
    }


def _key(run: RunReader) -> str:
    """Say which content of a run's files a summary is made from; a damaged file is a ValueError."""
    digests = sorted(run.digests().items())
    return hashlib.sha256(json.dumps([_LAYOUT, digests]).encode()).hexdigest()


def _kept(paths: Sequence[Path], names: Sequence[str]) -> Iterator[dict[str, str] | None]:
    """Read columns of the summaries; None for a run that has none, or one of other files."""
    for k in range(0, len(paths), _AT_ONCE):
        some = paths[k : k + _AT_ONCE]
        keys = {path: _key(Snapshot(path)) for path in some if _may_have(path)}
        files = {os.path.abspath(path / SUMMARY): path for path in keys}
        found = _columns(list(files), names)
        for path in some:
            file = os.path.abspath(path / SUMMARY)
            key, *texts = found.get(file, (None,))
            same = key is not None and key == keys[path]
            yield dict(zip(names, texts, strict=True)) if same else None


@cache
def _database() -> Any:
    """Open a database in memory, once: that takes longer than to read a run."""
    import duckdb  # 0.2 s to import

    return duckdb.connect()


def _may_have(path: Path) -> bool:
    file = path / SUMMARY
    return file.is_file() and Manifest(path).present and not _PATTERNS & set(os.path.abspath(file))


def _columns(files: list[str], names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Read columns of Parquet files, by file."""
    if not files:
        return {}
    import duckdb

    asked = f"SELECT filename, key, {', '.join(names)} FROM read_parquet(?, filename = true, "
    asked += "hive_partitioning = false)"
    with _database().cursor() as connection:
        try:
            rows = connection.execute(asked, [files]).fetchall()
        except duckdb.Error:  # of another layout: the runs are read whole, and write theirs anew
            return {}
    return {file: tuple(texts) for file, *texts in rows}
