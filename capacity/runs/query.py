"""Many runs as tables, asked in SQL (DuckDB); the rows of runs that ended come from Parquet."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from capacity.comparison.compare import paths_of
from capacity.comparison.differences import flat
from capacity.comparison.gather import read_checked, run_directories
from capacity.report.view import RunView, pick
from capacity.runs.directory import UNFINISHED
from capacity.runs.rows import Rows

TABLES = ("runs", "tasks", "transitions", "strategies", "metrics")

Row = dict[str, Any]


class RunTables:
    """Many runs as five tables, kept in memory.

    Every number of an estimate has its standard error beside it, as `accuracy` and
    `accuracy_stderr`, and where it matters its status. Tasks count from 0, accuracies lie in
    [0, 1]. A run that did not finish is there with its `status`: filter on it.

    Tables:
        runs: one row per run: run (its number), path, name, seed, status, message, replicas,
            parameters, tasks_learned, final means, scores of the forecasts, seconds; `recipe` is
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
        self._connection = duckdb.connect()
        rows: dict[str, list[Row]] = {name: [] for name in TABLES}
        views: list[RunView] = []
        for k, path in enumerate(self.paths):
            view = read_checked(path)
            rows["runs"].append(_run(k, path, view))
            rows["tasks"] += _tasks(k, view)
            rows["transitions"] += _transitions(k, view)
            if not _compacted(path, view):
                rows["metrics"] += _metrics(k, view)
            rows["strategies"] += _strategies(k, view)
            views.append(view)
        for name, columns in _COLUMNS.items():
            self._fill(name, columns, rows[name])
        for k, (path, view) in enumerate(zip(self.paths, views, strict=True)):
            if _compacted(path, view):
                self._read_metrics(k, path / "metrics.parquet")

    def query(self, sql: str) -> Rows:
        """Ask the tables.

        Args:
            sql: A SELECT over the tables.

        Returns:
            The rows: `.rows` are tuples, iterating gives dictionaries, `.to_pandas()` and
            `.to_arrow()` hand them on where these are installed.

        Raises:
            ValueError: If the SQL is wrong; the message is DuckDB's.
        """
        import duckdb

        if not isinstance(sql, str) or not sql.strip():
            raise ValueError(
                f'sql = {sql!r} is no query; pass one as "SELECT * FROM runs" (tables: '
                f"{', '.join(TABLES)})"
            )
        try:
            made = self._connection.execute(sql)
            return Rows(tuple(column[0] for column in made.description or ()), made.fetchall())
        except duckdb.Error as error:
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

    def _read_metrics(self, k: int, path: Path) -> None:
        """Take the rows of a run that ended from its Parquet file, which DuckDB reads itself."""
        import duckdb

        lists = ("test_accuracy", "test_accuracy_stderr", "test_loss", "test_loss_stderr")
        single = [c for c in _COLUMNS["metrics"] if c not in {"run", "tested", *lists}]
        asked = [f'"{c}"::{_COLUMNS["metrics"][c]} AS "{c}"' for c in single]
        # Lists that are unnested side by side go row by row.
        asked += [f"unnest({c}::DOUBLE[]) AS {c}" for c in lists]
        asked += ["?::INTEGER AS run", "unnest(range(len(test_loss)))::INTEGER AS tested"]
        try:
            self._connection.execute(
                f"INSERT INTO metrics BY NAME SELECT {', '.join(asked)} FROM read_parquet(?)",
                [k, str(path)],
            )
        except duckdb.Error as error:
            said = " ".join(str(error).split())
            raise ValueError(
                f"{path}: not readable as the rows of a run ({said}); delete it, and the rows are "
                "read from metrics.jsonl"
            ) from None

    def _fill(self, name: str, columns: Mapping[str, str], rows: Sequence[Row]) -> None:
        """Make one table; the columns are declared, so that an empty one has them, too."""
        declared = ", ".join(f'"{column}" {kind}' for column, kind in columns.items())
        self._connection.execute(f"CREATE TABLE {name} ({declared})")
        if not rows:
            return
        # One JSON text is read a hundred times faster than rows are inserted.
        structure = "[{" + ", ".join(f'"{c}": "{k}"' for c, k in columns.items()) + "}]"
        text = json.dumps([{column: row.get(column) for column in columns} for row in rows])
        self._connection.execute(
            f"INSERT INTO {name} SELECT unnest(from_json(?::JSON, ?), max_depth := 2)",
            [text, structure],
        )


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


def _pair(name: str) -> dict[str, str]:
    return {name: "DOUBLE", f"{name}_stderr": "DOUBLE"}


def _triple(name: str) -> dict[str, str]:
    return {**_pair(name), f"{name}_status": "VARCHAR"}


_RUN_ESTIMATES = {
    "accuracy": ("final", "accuracy"),
    "loss": ("final", "loss"),
    "forgetting_last": ("final", "forgetting_last"),
    "forgetting_max": ("final", "forgetting_max"),
    "accuracy_drop_spearman": ("scores", "accuracy_drop", "spearman"),
    "accuracy_drop_error": ("scores", "accuracy_drop", "mean_error"),
    "loss_increase_spearman": ("scores", "loss_increase", "spearman"),
    "loss_increase_error": ("scores", "loss_increase", "mean_error"),
}
_BEFORE = {
    "capacity_nats": ("capacity", "nats"),
    "capacity_directions": ("capacity", "directions"),
    "dimension_stable_rank": ("dimension", "stable_rank"),
    "dimension_intrinsic": ("dimension", "intrinsic"),
    "cost_ratio": ("cost_ratio",),
}
_REACHED = {
    "average_accuracy": ("average_accuracy",),
    "average_loss": ("average_loss",),
    "new_accuracy": ("new", "accuracy"),
    "new_loss": ("new", "loss"),
    "cost_ratio": ("cost_ratio",),
}
_COLUMNS: dict[str, dict[str, str]] = {
    "runs": {
        "run": "INTEGER",
        "path": "VARCHAR",
        "name": "VARCHAR",
        "seed": "BIGINT",
        "status": "VARCHAR",
        "message": "VARCHAR",
        "strategy": "VARCHAR",
        "replicas": "INTEGER",
        "parameters": "BIGINT",
        "tasks_total": "INTEGER",
        "tasks_learned": "INTEGER",
        **{c: k for name in _RUN_ESTIMATES for c, k in _triple(name).items()},
        "seconds": "DOUBLE",
        "fields": "MAP(VARCHAR, VARCHAR)",
        "recipe": "JSON",
    },
    "tasks": {
        "run": "INTEGER",
        "task": "INTEGER",
        "name": "VARCHAR",
        "status": "VARCHAR",
        "train_samples": "BIGINT",
        "test_samples": "BIGINT",
        "steps": "BIGINT",
        "accuracy_learned": "DOUBLE",
        "accuracy_final": "DOUBLE",
        "loss_learned": "DOUBLE",
        "loss_final": "DOUBLE",
        **_triple("forgetting"),
        **_triple("inefficiency"),
    },
    "transitions": {
        "run": "INTEGER",
        "task": "INTEGER",
        "old_task": "INTEGER",
        **{
            c: k
            for target in ("accuracy_drop", "loss_increase")
            for side in ("forecast", "measured")
            for c, k in _triple(f"{target}_{side}").items()
        },
        **{c: k for name in _BEFORE for c, k in _triple(name).items()},
        "verdict": "VARCHAR",
    },
    "strategies": {
        "run": "INTEGER",
        "task": "INTEGER",
        "rank": "INTEGER",
        "strategy": "VARCHAR",
        "mean_accuracy_drop": "DOUBLE",
        "mean_loss_increase": "DOUBLE",
        **{c: k for name in _REACHED for c, k in _triple(name).items()},
    },
    "metrics": {
        "run": "INTEGER",
        "task": "INTEGER",
        "epoch": "INTEGER",
        "step": "BIGINT",
        "learning_time": "DOUBLE",
        "lr": "DOUBLE",
        **_pair("train_loss"),
        "tested": "INTEGER",
        **_pair("test_accuracy"),
        **_pair("test_loss"),
    },
}


def _cells(name: str, record: Mapping[str, Any] | None, *path: str) -> Row:
    """Spread an estimate over its columns; null where there is none."""
    found = pick(record, *path)
    if found is None:
        return {}
    return {
        name: found.value,
        f"{name}_stderr": found.stderr,
        f"{name}_status": str(found.status),
    }


def _run(k: int, path: Path, view: RunView) -> Row:
    fields = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in flat(view.recipe).items()
    }
    row: Row = {
        "run": k,
        "path": str(path),
        "name": view.name,
        "seed": view.recipe.get("seed"),
        "status": view.state,
        "message": str(view.status.get("message") or ""),
        "strategy": fields.get("training.strategy.name", "naive"),
        "replicas": view.replicas,
        "parameters": (view.result.get("model") or {}).get("parameters"),
        "tasks_total": len(view.tasks),
        "tasks_learned": view.learned,
        "seconds": sum((view.status.get("seconds") or {}).values()) or None,
        "fields": fields,
        "recipe": view.recipe,
    }
    for name, where in _RUN_ESTIMATES.items():
        row |= _cells(name, view.result, *where)
    return row


def _tasks(k: int, view: RunView) -> Iterable[Row]:
    kind = "accuracy" if view.classifies else "loss"
    last = ((view.result.get("forgetting") or {}).get(kind) or {}).get("last") or []
    end = view.learned - 1
    for i, task in enumerate(view.tasks):
        row: Row = {"run": k, "task": i}
        for name in ("name", "status", "train_samples", "test_samples", "steps"):
            row[name] = task[name]
        for score in ("accuracy", "loss"):
            mean = (view.result.get(score) or {}).get("mean")
            if mean and end >= 0:
                row[f"{score}_learned"], row[f"{score}_final"] = mean[i][i], mean[end][i]
        if 0 <= end < len(last):
            row |= _cells("forgetting", {"e": last[end][i]}, "e")
        yield row | _cells("inefficiency", view.phases[i], "thermo", "inefficiency")


def _transitions(k: int, view: RunView) -> Iterable[Row]:
    for transition in view.transitions:
        verdict = transition.get("verdicts") or transition.get("literal") or {}
        before: Row = {"verdict": verdict.get("verdict")}
        for name, where in _BEFORE.items():
            before |= _cells(name, transition, *where)
        for old in transition["old"]:
            row: Row = {"run": k, "task": transition["task"], "old_task": old["task"]}
            for target in ("accuracy_drop", "loss_increase"):
                for side in ("forecast", "measured"):
                    row |= _cells(f"{target}_{side}", old[side], target)
            yield row | before


def _strategies(k: int, view: RunView) -> Iterable[Row]:
    for transition in view.transitions:
        for place, entry in enumerate(transition.get("by_strategy") or [], start=1):
            row: Row = {"run": k, "task": transition["task"], "rank": place}
            row["strategy"] = entry["name"]
            for target in ("accuracy_drop", "loss_increase"):
                values = [cell["forecast"][target]["value"] for cell in entry["old"]]
                known = [value for value in values if value is not None]
                row[f"mean_{target}"] = math.fsum(known) / len(known) if known else None
            for name, where in _REACHED.items():
                row |= _cells(name, entry, *where)
            yield row


def _compacted(path: Path, view: RunView) -> bool:
    """Whether the rows of a run are all in its Parquet file."""
    return view.state not in UNFINISHED and (path / "metrics.parquet").is_file()


def _metrics(k: int, view: RunView) -> Iterable[Row]:
    for row in view.rows:
        shared = {
            name: row.get(name)
            for name in (
                "task", "epoch", "step", "learning_time", "lr", "train_loss", "train_loss_stderr"
            )
        }  # fmt: skip
        for j in range(len(row.get("test_loss") or [])):
            tested = {
                name: row[name][j]
                for score in ("test_accuracy", "test_loss")
                for name in (score, f"{score}_stderr")
                if row.get(name)
            }
            yield {"run": k, **shared, "tested": j, **tested}
