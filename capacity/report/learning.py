"""Figures of what was learned and forgotten: the score matrix and the curves over the sequence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from capacity.records.number_format import Cell, header_cell
from capacity.records.numbers import MISSING, number, with_error
from capacity.report.charts import (
    HOVER,
    INK,
    RULE,
    Figure,
    data,
    dimmed,
    focus,
    log_ticks,
    spec,
    task_keys,
    task_scale,
)
from capacity.report.sequence_axis import boundary_marks, step_axis, thin
from capacity.report.tables import TaskTable, evenly, rows_of, some_drawn
from capacity.results.view import Record, RunView

_CURVE_POINTS, _CURVES, _LOSSES = 2400, 40, 375
_PRINTED_CELLS, _DRAWN_CELLS = 16, 30
_COLUMNS = 24
"""Of a table over pairs of tasks: two hundred tasks are forty thousand numbers."""
_BAND = {"low": "minus one standard error", "high": "plus one"}


def matrix_figure(view: RunView) -> Figure | None:
    """Draw the accuracy matrix, or the loss matrix for regression.

    Args:
        view: The run.

    Returns:
        The figure; None while no task was learned.
    """
    kind, scale, unit = ("accuracy", 100.0, "%") if view.classifies else ("loss", 1.0, "")
    scores = view.scores(kind)
    mean, stderr = scores["mean"] or [], scores.get("stderr") or []
    count = len(mean)
    known = [v for row in mean for v in row if v is not None]
    if not known:
        return None
    top = 1.0 if view.classifies else max(known) or 1.0
    # Of more tasks than there is room for, a cell is the mean over a block of them.
    size = -(-count // _DRAWN_CELLS)
    blocks = [range(first, min(first + size, count)) for first in range(0, count, size)]
    n = len(blocks)
    short = [str(b[0] + 1) if size == 1 else f"{b[0] + 1}–{b[-1] + 1}" for b in blocks]
    order = [view.label(b[0]) if size == 1 else f"tasks {short[k]}" for k, b in enumerate(blocks)]
    rows: list[dict[str, Any]] = []
    for i, after in enumerate(blocks):
        for j, on in enumerate(blocks):
            found = [v for a in after for b in on if (v := mean[a][b]) is not None]
            value = math.fsum(found) / len(found) if found else None
            error = stderr[i][j] if size == 1 and stderr and stderr[i] else None
            met = any(v is not None for a in after for v in mean[a])
            said = "not scored" if met else "not reached"
            if value is not None:
                said = f"{_said(value, error, scale)} {unit}".strip()
            rows.append({
                "after": order[i],
                "on": short[j],
                "tested": order[j],
                "shade": None if value is None else 0.04 + 0.96 * max(value, 0.0) / top,
                "text": "" if value is None else _short(value * scale),
                "said": said,
                "value": None if value is None else value * scale,
                "own": i == j,
            })
    cell = 34 if n <= 10 else max(10, 400 // n)
    top_axis = alt.Axis(orient="top", labelAngle=0, domain=False, ticks=False)
    gaps = alt.Scale(type="band", paddingInner=0.04, paddingOuter=0)
    x = alt.X("on:N", sort=short, title=f"{kind} on task", axis=top_axis, scale=gaps)
    gaps = alt.Scale(type="band", paddingInner=0.1, paddingOuter=0)
    side = alt.Axis(domain=False, ticks=False)
    y = alt.Y("after:N", sort=order, title=None, axis=side, scale=gaps)
    tooltip = [
        alt.Tooltip("after:N", title="after learning"),
        alt.Tooltip("tested:N", title="tested on"),
        alt.Tooltip("said:N", title=kind),
    ]
    base = alt.Chart(data(rows)).encode(x=x, y=y, tooltip=tooltip)
    corners = {"cornerRadius": 3 if n <= 10 else 0}
    opacity = alt.Opacity("shade:Q", scale=alt.Scale(domain=[0, 1], range=[0, 1]), legend=None)
    reached, missed = "datum.shade != null", "datum.shade == null"
    layers = [
        base
        .transform_filter(reached)
        .mark_rect(fill="var(--heat)", stroke=None, **corners)
        .encode(fillOpacity=opacity),
        base.transform_filter(missed).mark_rect(
            fill="transparent", stroke=RULE, strokeDash=[3, 3], **corners
        ),
        base.transform_filter("datum.own && datum.shade != null").mark_rect(
            fill="transparent", stroke=INK, strokeWidth=1.4, **corners
        ),
    ]
    if n <= _PRINTED_CELLS:
        text = base.mark_text(fontSize=12 if n <= 10 else 10).encode(
            text=alt.Text("text:N"),
            color=alt.ColorValue(
                INK, condition={"test": "datum.shade > 0.72", "value": "var(--heat-ink)"}
            ),
        )
        layers.append(text)
    chart = alt.layer(*layers)
    shown = evenly(count, _COLUMNS)
    columns = ("After learning", *(view.label(j) for j in shown))
    learned = [i for i in range(count) if any(v is not None for v in mean[i])]
    cells = [
        (
            header_cell(view.label(i)),
            *(Cell(_said(mean[i][j], stderr[i][j] if stderr else None, scale)) for j in shown),
        )
        for i in (learned[k] for k in evenly(len(learned), rows_of(len(columns))))
    ]
    spread = " ± standard error" if view.replicas > 1 else ""
    held = "fades" if view.classifies else "darkens"
    scored = f"{view.scored_on} {kind}".capitalize()
    return Figure(
        id="fig-matrix",
        title=f"{view.scored_on.capitalize()} {kind} after every task"
        + (", %" if view.classifies else ""),
        caption=f"Read down a column: a task is learned on the outlined diagonal, and what is "
        f"forgotten later {held} below it; to the right stand tasks not seen yet."
        + (" Dashed cells were not reached." if None in [r["shade"] for r in rows] else "")
        + (f" Every cell is the mean over blocks of {size} tasks." if size > 1 else "")
        + (view.old_said and f" {view.old_said}"),
        alt=f"Matrix of {view.scored_on} {kind}, one row per learned task, one column per tested "
        f"task: {_mean_of(rows, own=True)}{unit} on average on a task just learned, "
        f"{_mean_of(rows, own=False)}{unit} on all tasks at the end.",
        spec=spec(chart, height=cell * n),
        table=TaskTable(
            caption=f"{scored}{', %,' if view.classifies else ''} mean{spread}",
            columns=columns,
            rows=cells,
            remark=some_of(len(shown), count),
        ),
        csv={"after": "after learning", "tested": "tested on", "value": f"{kind} {unit}".strip()},
    )


def curve_figure(view: RunView) -> Figure | None:
    """Draw test accuracy (or loss) of every task over the whole sequence.

    Args:
        view: The run.

    Returns:
        The figure; None while there is no row of metrics.
    """
    kind, scale = ("accuracy", 100.0) if view.classifies else ("loss", 1.0)
    labels = [view.label(i) for i in range(len(view.tasks))]
    lines = evenly(len(labels), _CURVES)
    kept = thin(view.rows, max(_CURVE_POINTS // max(len(lines), 1), 2))
    points = [
        _point(row, row[f"test_{kind}"][j], (row.get(f"test_{kind}_stderr") or [None] * 999)[j])
        | {"task": labels[j]}
        for row in kept
        for j in lines
        if j < len(row.get(f"test_{kind}") or [])
        if row[f"test_{kind}"][j] is not None
    ]
    if not points:
        return None
    for point in points:
        for name in ("value", "low", "high"):
            point[name] *= scale
        point["said"] = _said_scaled(point)
        if view.classifies:
            point["low"], point["high"] = max(point["low"], 0.0), min(point["high"], 100.0)
    scale_y = alt.Scale(domain=[0, 100]) if view.classifies else alt.Scale(zero=False, nice=True)
    y_title = f"{view.scored_on} {kind}" + (", %" if view.classifies else "")
    color = alt.Color("task:N", scale=task_scale(labels), legend=None)
    base = alt.Chart(data(points)).encode(x=step_axis(view), color=color)
    tooltip = [
        alt.Tooltip("task:N", title="tested on"),
        alt.Tooltip("step:Q"),
        alt.Tooltip("epoch:Q", title="epoch of its task"),
        alt.Tooltip("said:N", title=kind),
    ]
    y = alt.Y("value:Q", title=y_title, scale=scale_y, axis=alt.Axis(tickCount=5))
    chart = alt.layer(
        *boundary_marks(view),
        base.mark_area(tooltip=None).encode(
            y=alt.Y("low:Q", title=y_title),
            y2=alt.Y2("high:Q"),
            opacity=dimmed("task", 0.18),
        ),
        base.mark_line(strokeWidth=2, strokeJoin="round").encode(y=y, opacity=dimmed("task")),
        base.properties(name=HOVER).mark_circle(size=90, opacity=0).encode(y=y, tooltip=tooltip),
    ).add_params(focus())
    tested = evenly(len(labels), _COLUMNS)
    columns = ("Task", "Epoch", "Step", *(labels[j] for j in tested))
    scored = f"{view.scored_on} {kind}".capitalize()
    shown = thin(view.rows, rows_of(len(columns)))
    cells = [
        (
            header_cell(labels[row["task"]]),
            Cell(str(row["epoch"])),
            Cell(str(row["step"])),
            *(
                Cell(_said(row[f"test_{kind}"][j], (errors or {j: None})[j], scale))
                for errors in [row.get(f"test_{kind}_stderr")]
                for j in tested
                if j < len(row[f"test_{kind}"])
            ),
        )
        for row in shown
    ]
    return Figure(
        id="fig-curves",
        title=f"{scored} of every task along the sequence",
        caption=f"Every line is one task's {view.scored_on} score, from before the first step to "
        "after the last; the numbered spans are the tasks being trained. A line rises in the span "
        "of its own number; what it loses in later spans is forgetting."
        + (" Bands: ± one standard error over replicas." if view.replicas > 1 else "")
        + " Choose a task in the key to see it alone. "
        + some_drawn(len(labels), _CURVES),
        alt=f"Line chart of {view.scored_on} {kind} per task against training step; at the end "
        + ", ".join(f"{task} {said}" for task, said in list(_last(points).items())[:8])
        + ".",
        spec=spec(chart, height=300),
        keys=[key for key in task_keys(labels) if key.label in {labels[j] for j in lines}],
        table=TaskTable(
            caption=f"{scored} per epoch{', %' if view.classifies else ''}",
            columns=columns,
            rows=cells,
            remark=f"{_thinned(view.rows, shown)} {some_of(len(tested), len(labels))}".strip(),
        ),
        csv={"task": "tested on", "step": "step", "epoch": "epoch", "value": y_title, **_BAND},
    )


def train_figure(view: RunView) -> Figure | None:
    """Draw the training loss over the whole sequence.

    Args:
        view: The run.

    Returns:
        The figure; None while there is no finite loss.
    """
    labels = [view.label(i) for i in range(len(view.tasks))]
    lines = set(evenly(len(labels), _CURVES))
    points = [
        _point(row, row["train_loss"], row.get("train_loss_stderr"))
        | {
            "task": labels[row["task"]],
            "said": _said(row["train_loss"], row.get("train_loss_stderr")),
        }
        for row in thin([row for row in view.rows if row["task"] in lines], _LOSSES)
        if row.get("train_loss") is not None
    ]
    if not points:
        return None
    smallest = min(point["value"] for point in points)
    log = smallest > 0 and max(point["value"] for point in points) > 20 * smallest
    if log:
        for point in points:
            point["low"] = max(point["low"], point["value"] / 10)
    scale = alt.Scale(type="log", nice=False) if log else alt.Scale(zero=True)
    color = alt.Color("task:N", scale=task_scale(labels), legend=None)
    fill = alt.Fill("task:N", scale=task_scale(labels), legend=None)
    tooltip = [
        alt.Tooltip("task:N", title="training"),
        alt.Tooltip("step:Q"),
        alt.Tooltip("said:N", title="training loss"),
    ]
    ends = [point[end] for point in points for end in ("value", "low", "high")]
    axis = (
        alt.Axis(format="~g", values=log_ticks(min(ends), max(ends)))
        if log
        else alt.Axis(format="~g", tickCount=4)
    )
    base = alt.Chart(data(points)).encode(x=step_axis(view))
    chart = alt.layer(
        *boundary_marks(view),
        base.mark_area(opacity=0.18, stroke=None).encode(
            y=alt.Y("low:Q", scale=scale, title="training loss", axis=axis),
            y2=alt.Y2("high:Q"),
            fill=fill,
        ),
        base.mark_line(strokeWidth=2, strokeJoin="round").encode(
            y=alt.Y("value:Q", scale=scale, title="training loss", axis=axis), color=color
        ),
        base
        .properties(name=HOVER)
        .mark_circle(size=90, opacity=0)
        .encode(y=alt.Y("value:Q", scale=scale), color=color, tooltip=tooltip),
    )
    columns = ("Task", "Epoch", "Step", "Learning rate", "Training loss")
    shown = thin(view.rows, rows_of(len(columns)))
    return Figure(
        id="fig-train",
        title="Training loss along the sequence",
        caption="Loss on the training data of the task being learned. It jumps where a task "
        "begins: that is how badly the network fits the new task before its first step."
        + (" The axis is logarithmic." if log else "")
        + f" {some_drawn(len(labels), _CURVES)}".rstrip(),
        alt="Line chart of the training loss against training step; at the end of each task "
        + ", ".join(f"{task} {said}" for task, said in list(_last(points).items())[:8])
        + ".",
        spec=spec(chart, height=170),
        table=TaskTable(
            caption="Training loss per epoch",
            columns=columns,
            rows=[
                (
                    header_cell(labels[row["task"]]),
                    Cell(str(row["epoch"])),
                    Cell(str(row["step"])),
                    Cell(number(row.get("lr"))),
                    Cell(_said(row.get("train_loss"), row.get("train_loss_stderr"))),
                )
                for row in shown
            ],
            remark=_thinned(view.rows, shown),
        ),
        csv={"task": "task", "step": "step", "epoch": "epoch", "value": "training loss", **_BAND},
    )


def _mean_of(rows: Sequence[Record], *, own: bool) -> str:
    """Average the diagonal, or the last row that was reached."""
    known = [row for row in rows if row["value"] is not None]
    last = known[-1]["after"]
    values = [row["value"] for row in known if (row["own"] if own else row["after"] == last)]
    return number(sum(values) / len(values)) if values else MISSING


def _last(points: Sequence[Record]) -> dict[str, str]:
    return {str(point["task"]): str(point["said"]) for point in points}


def some_of(shown: int, count: int) -> str:
    """Say that a table has some of the tasks only.

    Args:
        shown: How many.
        count: Of how many.

    Returns:
        A sentence; empty where none is left out.
    """
    return "" if shown == count else f"{shown} of {count} tasks; all are in result.json."


def _thinned(rows: Sequence[Record], shown: Sequence[Record]) -> str:
    if len(shown) == len(rows):
        return ""
    return f"{len(shown)} of {len(rows)} rows; all are in metrics.jsonl."


def _point(row: Record, value: float, stderr: float | None) -> dict[str, Any]:
    error = stderr or 0.0
    return {
        "step": row["step"],
        "epoch": row["epoch"],
        "value": value,
        "low": value - error,
        "high": value + error,
    }


def _said_scaled(point: dict[str, Any]) -> str:
    error = (point["high"] - point["low"]) / 2
    return with_error(point["value"], error) if error > 0 else number(point["value"])


def _said(value: float | None, stderr: float | None, scale: float = 1.0) -> str:
    if value is None or stderr is None:
        return number(None if value is None else value * scale)
    return with_error(value * scale, stderr * scale)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 9.95 else f"{value:.2g}" if value < 1 else f"{value:.1f}"
