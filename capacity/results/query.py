"""Many runs as tables, asked in SQL (DuckDB); the rows of runs that ended come from Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from capacity.records.rows import Rows
from capacity.results.gather import paths_of, run_directories
from capacity.results.query_rows import COLUMNS, LISTS, LOGGED
from capacity.results.summary_file import texts_of

TABLES = tuple(COLUMNS)

_Item = TypeVar("_Item")
_AT_ONCE = 100
"""Runs that move from Python to the database at once, which needs 0.4 MB for each of them."""
# Whatever stands in a run or in a question, it reads and writes nothing but these tables.
_LOCKED = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


class RunTables:
    """Many runs as five tables, kept in memory.

    Every number of an estimate has its standard error beside it, as `accuracy` and
    `accuracy_stderr`, and where it matters its status. Tasks count from 0, accuracies lie in
    [0, 1]. A run that did not finish is there with its `status`: filter on it.

    Tables:
        runs: one row per run: run (its number), path, name, seed, status, message, verified
            (whether its files carry digests), replicas, parameters, tasks_learned, final means,
            scores of the forecasts, seconds; `recipe` is
            the resolved recipe as JSON, `fields` maps its dotted names to their values as text.
        tasks: one row per run and task: its last accuracy and loss, forgetting, inefficiency.
        transitions: one row per run, new task and old task: forecast and measured, and what was
            measured before the new task.
        strategies: one row per run, new task and strategy that was forecast for comparison: its
            rank (from 1), what it was forecast to reach, and its mean drop over the old tasks.
        metrics: the rows of metrics.jsonl, one per run, task in training, epoch and tested task.

    Attributes:
        paths: The run directories; `run` in every table is the place in this list.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        import duckdb  # 0.2 s to import

        self.paths = list(paths)
        self._connection = duckdb.connect(config=_LOCKED)
        # Else a name that is no table is looked up among the variables of Python.
        self._connection.execute("SET python_enable_replacements = false")
        self._connection.execute("SET lock_configuration = true")
        for name, columns in COLUMNS.items():
            declared = ", ".join(f'"{column}" {kind}' for column, kind in columns.items())
            self._connection.execute(f"CREATE TABLE {name} ({declared})")
        for some in batched(zip(enumerate(self.paths), texts_of(self.paths), strict=True)):
            for name in TABLES:
                self._fill(name, [(k, str(path), texts[name]) for (k, path), texts in some])

    def query(self, sql: str) -> Rows:
        """Ask the tables.

        Args:
            sql: A SELECT over the tables.

        Returns:
            The rows: `.rows` are tuples, iterating gives dictionaries, `.to_pandas()` and
            `.to_arrow()` hand them on where these are installed.

        Raises:
            ValueError: If the SQL is wrong, with DuckDB's message, or is no SELECT.
        """
        import duckdb

        if not isinstance(sql, str) or not sql.strip():
            raise ValueError(f"sql = {sql!r} is no query; {_ACCEPTED}")
        with self._connection.cursor() as cursor:
            try:
                sql.encode()
                statements = cursor.extract_statements(sql)
                kinds = [str(statement.type.name) for statement in statements]
                if kinds != ["SELECT"]:
                    came = " and ".join(kinds) or "nothing"
                    raise ValueError(f"sql holds {came}, and one SELECT is accepted; {_ACCEPTED}")
                # A SELECT may write, too: WITH gone AS (DELETE ...).
                cursor.execute("BEGIN TRANSACTION READ ONLY")
                made = cursor.execute(statements[0])
                return Rows(tuple(column[0] for column in made.description), made.fetchall())
            except (duckdb.Error, UnicodeError) as error:
                raise ValueError(f"sql: {error}") from None

    @property
    def runs(self) -> Rows:
        """One row per run."""
        return self.query("FROM runs")

    @property
    def tasks(self) -> Rows:
        """One row per run and task."""
        return self.query("FROM tasks")

    @property
    def transitions(self) -> Rows:
        """One row per run, new task and old task."""
        return self.query("FROM transitions")

    @property
    def metrics(self) -> Rows:
        """One row per run, task in training, epoch and tested task."""
        return self.query("FROM metrics")

    @property
    def strategies(self) -> Rows:
        """One row per run, new task and strategy that was compared."""
        return self.query("FROM strategies")

    def _fill(self, name: str, given: list[tuple[int, str, str]]) -> None:
        """Move the rows of some runs into a table: numbers, paths and rows as JSON.

        One JSON text is read a hundred times faster than rows.
        """
        columns: Mapping[str, Any] = LOGGED if name == "metrics" else COLUMNS[name]
        of_rows = {c: kind for c, kind in columns.items() if c not in {"run", "path"}}
        structure = json.dumps([of_rows])
        lists = [list(part) for part in zip(*given, strict=True)]
        asked = "SELECT unnest(?) AS run, unnest(?) AS path, unnest(?) AS text"
        rows = "unnest(from_json(text::JSON, ?), max_depth := 2)"
        asked = f"SELECT run, {'path, ' if name == 'runs' else ''}{rows} FROM ({asked})"
        if name == "metrics":
            # Lists that are unnested side by side go row by row.
            spread = ", ".join(f"unnest({column}) AS {column}" for column in LISTS)
            single = ", ".join(column for column in columns if column not in LISTS)
            asked = (
                f"SELECT {single}, {spread}, unnest(range(len(test_loss))) AS tested FROM ({asked})"
            )
        self._connection.execute(f"INSERT INTO {name} BY NAME {asked}", [structure, *lists])


def batched(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Take so many at once that they move from Python to the database in one piece."""
    some: list[_Item] = []
    for item in items:
        some.append(item)
        if len(some) == _AT_ONCE:
            yield some
            some = []
    if some:
        yield some


_ACCEPTED = f'pass one as "SELECT * FROM runs" (tables: {", ".join(TABLES)})'


def load_runs(*runs: object) -> RunTables:
    """Read many runs into tables.

    Args:
        *runs: Paths of run directories, folders of run directories, `Run`s, or lists of these.

    Returns:
        The tables. A path that holds no run, a foreign file and an empty list are ValueErrors.

    Example:
        >>> import capacity
        >>> tables = capacity.load_runs("runs")  # doctest: +SKIP
        >>> tables.query("SELECT seed, accuracy FROM runs ORDER BY seed")  # doctest: +SKIP
    """
    return RunTables(run_directories(paths_of(runs)))


def query(sql: str, *runs: object) -> Rows:
    """Ask many runs one question; `load_runs` for more than one.

    Args:
        sql: A SELECT over the tables of `RunTables`.
        *runs: Paths of run directories, folders of run directories, `Run`s, or lists of these.

    Returns:
        The rows (see `RunTables.query`).

    Example:
        >>> import capacity
        >>> asked = "SELECT status, count(*) FROM runs GROUP BY status"
        >>> print(capacity.query(asked, "runs"))  # doctest: +SKIP
    """
    return load_runs(*runs).query(sql)
