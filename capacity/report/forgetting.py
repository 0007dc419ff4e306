"""Forgetting as a curve: what is left of the tasks so far, and what was lost since each."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from capacity.records.number_format import Cell, cell, header_cell
from capacity.records.numbers import number
from capacity.report.charts import FORECAST, HOVER, MEASURED, Figure, Key, data, spec
from capacity.report.learning import some_of
from capacity.report.sequence_axis import boundary_marks, step_axis, thin
from capacity.report.tables import Table, TaskTable, evenly, rows_of
from capacity.results.view import Record, RunView, pick

_POINTS, _NAMED = 375, 8
_COLUMNS = 24


def forgetting_figure(view: RunView) -> Figure | None:
    """Draw the mean score over the tasks met so far, and the mean forgetting of the earlier ones.

    Args:
        view: The run.

    Returns:
        The figure; None before a second task was begun.
    """
    kind, scale = ("accuracy", 100.0) if view.classifies else ("loss", 1.0)
    kept, lost = f"mean {kind} on tasks so far", "mean forgetting since learned"
    found = [(row, *_of(view, row, kind)) for row in thin(view.rows, _POINTS)]
    rows = [
        {
            "task": view.label(int(row["task"])),
            "step": row["step"],
            "epoch": row["epoch"],
            "kind": name,
            "value": value * scale,
            "said": number(value * scale),
        }
        for row, mean, forgotten in found
        for name, value in ((kept, mean), (lost, forgotten))
        if value is not None
    ]
    if not any(row["kind"] == lost for row in rows):
        return None
    unit = ", % and points" if view.classifies else ""
    title = f"{kind}{unit}"
    color = alt.Color(
        "kind:N", scale=alt.Scale(domain=[kept, lost], range=[FORECAST, MEASURED]), legend=None
    )
    dash = alt.StrokeDash(
        "kind:N", scale=alt.Scale(domain=[kept, lost], range=[[1, 0], [6, 3]]), legend=None
    )
    base = alt.Chart(data(rows)).encode(
        x=step_axis(view),
        y=alt.Y("value:Q", title=title, axis=alt.Axis(tickCount=5)),
        color=color,
    )
    tooltip = [
        alt.Tooltip("kind:N", title="what"),
        alt.Tooltip("task:N", title="while learning"),
        alt.Tooltip("epoch:Q"),
        alt.Tooltip("said:N", title="value"),
    ]
    chart = alt.layer(
        *boundary_marks(view),
        base.mark_line(strokeWidth=2, strokeJoin="round").encode(strokeDash=dash),
        base.properties(name=HOVER).mark_circle(size=90, opacity=0).encode(tooltip=tooltip),
    )
    last = {row["kind"]: row["said"] for row in rows}
    worse = "falls" if view.classifies else "rises"
    return Figure(
        id="fig-forgetting",
        title="What is left, and what is forgotten, along the sequence",
        caption=f"The solid line is the mean {view.scored_on} {kind} over the tasks met so far; "
        f"where it {worse} while a task is learned, more is forgotten than learned. The dashed "
        "line is the mean over the earlier tasks of what each has lost since it was learned; below "
        "0, learning a task has helped the earlier ones." + (view.old_said and f" {view.old_said}"),
        alt=f"Line chart against training step; at the end {kept} is {last[kept]}, {lost} "
        f"{last[lost]}.",
        spec=spec(chart, height=220),
        keys=[Key(kept, FORECAST, "line"), Key(lost, MEASURED, "dash")],
        table=_table(view, kind, scale, kept, lost),
        csv={"task": "while learning", "epoch": "epoch", "step": "step", "kind": "what"}
        | {"value": title},
    )


def forgetting_tables(view: RunView) -> list[Table]:
    """List both forgettings after every task.

    Args:
        view: The run.

    Returns:
        One table per definition; none while nothing could be forgotten.
    """
    kind, scale = ("accuracy", 100.0) if view.classifies else ("loss", 1.0)
    unit = "points of accuracy" if view.classifies else "loss"
    best = "highest accuracy" if view.classifies else "lowest loss"
    found = view.forgotten(kind)
    tables = {"last": found.get("last"), "max": found.get("max")}
    explained = {
        "last": "against just after the task was learned",
        "max": f"against the {best} so far",
    }
    made: list[Table] = []
    for version, against in explained.items():
        cells = tables[version] or []
        old = evenly(len(cells) - 1, _COLUMNS) if cells else []
        known = [i for i, row in enumerate(cells) if any(e is not None for e in row)]
        columns = ("After learning", *_heads(view, old))
        rows = [
            (
                header_cell(view.label(i)),
                *(cell(pick({"e": cells[i][j]}, "e"), scale=scale) for j in old),
            )
            for i in (known[k] for k in evenly(len(known), rows_of(len(columns))))
        ]
        if rows:
            table = TaskTable(
                id=f"table-forgetting-{version}",
                caption=f"forgetting_{version}, {unit}, {against}",
                columns=columns,
                rows=rows,
                remark=some_of(len(old), len(cells) - 1),
            )
            made.append(table)
    return made


def _heads(view: RunView, old: Sequence[int]) -> list[str]:
    """Name the old tasks: by number alone where there are many."""
    if len(old) <= _NAMED:
        return [view.label(j) for j in old]
    return [f"forgotten of task::{j + 1}" for j in old]


def _of(view: RunView, row: Record, kind: str) -> tuple[float | None, float | None]:
    """Average a row over the tasks up to its own: the score, and how far it is from its first."""
    i = int(row["task"])
    tested = (row.get(f"test_{kind}") or [])[: i + 1]
    known = {j: value for j, value in enumerate(tested) if value is not None}
    if i not in known or (len(known) <= i and not view.old_said):
        return None, None
    scores = view.scores(kind)["mean"] or []
    first = {j: scores[j][j] if j < len(scores) else None for j in known if j < i}
    mean = sum(known.values()) / len(known)
    if not first or None in first.values():
        return mean, None
    sign = 1.0 if kind == "accuracy" else -1.0
    moved = [sign * (value - known[j]) for j, value in first.items() if value is not None]
    return mean, sum(moved) / len(moved)


def _table(view: RunView, kind: str, scale: float, kept: str, lost: str) -> Table:
    columns, rows = ("While learning", "Epoch", "Step", kept, lost), []
    for row in thin(view.rows, rows_of(len(columns))):
        values = _of(view, row, kind)
        rows.append((
            header_cell(view.label(int(row["task"]))),
            Cell(str(row["epoch"])),
            Cell(str(row["step"])),
            *(Cell(number(None if v is None else v * scale)) for v in values),
        ))
    return TaskTable(
        caption="Means over the tasks so far",
        columns=columns,
        rows=rows,
        remark="Means over replicas.",
    )
