"""One run as tables: rows under named columns, by the name of what they hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from capacity.base.checks import one_of
from capacity.records.rows import Rows
from capacity.results.gather import read_checked
from capacity.results.query_rows import LISTS, Row, cells, rows_of
from capacity.results.view import RunView

_SIDES = {"forecasts": "forecast", "measured": "measured"}
FRAMES = ("transitions", *_SIDES, "strategies", "tasks", "costs", "spectra", "metrics", "runs")
"""What `table_of` gives."""


def table_of(path: Path, name: str) -> Rows:
    """Read a table of a run.

    Args:
        path: The run directory.
        name: One of `FRAMES`.

    Returns:
        Its rows; every number of an estimate has its standard error and its status beside it.
        Tasks count from 0, accuracies lie in [0, 1].
    """
    view = read_checked(path)
    rows = list(_rows(path, view, one_of("name", name, FRAMES)))
    columns = dict.fromkeys(key for row in rows for key in row)
    columns.pop("run", None)
    return Rows(tuple(columns), [tuple(row.get(key) for key in columns) for row in rows])


def _rows(path: Path, view: RunView, name: str) -> Iterator[Row]:
    if name == "costs":
        for i, phase in enumerate(view.phases):
            if thermo := (phase or {}).get("thermo"):
                yield {"task": i, **_flat(thermo)}
    elif name == "spectra":
        for i, transport in enumerate(view.transports):
            for rank, value in enumerate(transport["singular_values"] if transport else [], 1):
                yield {"task": i, "rank": rank, **value}
    elif name == "metrics":
        for row in view.rows:
            yield from _tested(row)
    elif name in _SIDES:
        side = f"_{_SIDES[name]}"
        for row in rows_of(view)["transitions"]:
            kept = {k.replace(side, ""): v for k, v in row.items() if side in k}
            if kept:
                yield {"task": row["task"], "old_task": row["old_task"], **kept}
    else:
        path_of = {"path": str(path)} if name == "runs" else {}
        yield from ({**path_of, **row} for row in rows_of(view)[name])


def _flat(thermo: Any) -> Row:
    row: Row = {}
    for name, value in thermo.items():
        if isinstance(value, dict):
            row |= cells(name, thermo, name) if "status" in value else {}
        else:
            row[name] = value
    return row


def _tested(row: Any) -> Iterator[Row]:
    """Give a row of metrics.jsonl once per tested task."""
    lists = {name: row[name] for name in LISTS if row.get(name)}
    plain = {key: value for key, value in row.items() if key not in LISTS}
    for j in range(max(map(len, lists.values()), default=0)):
        yield {**plain, "tested": j, **{name: values[j] for name, values in lists.items()}}
