"""The cost of learning while it goes on: entropy production, bounds of W2², inefficiency."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import altair as alt

from capacity.records.number_format import Cell, header_cell
from capacity.records.numbers import number, with_error
from capacity.report.charts import (
    FORECAST,
    HOVER,
    MEASURED,
    MUTED,
    Figure,
    Key,
    data,
    log_ticks,
    spec,
)
from capacity.report.sequence_axis import boundary_marks, step_axis, thin
from capacity.report.tables import Table, TaskTable, rows_of
from capacity.results.view import Record, RunView

_POINTS = 250
"""Points of one kind, of up to four."""
_COST = {
    "T \u03a3, action of the path": ("action", MEASURED, []),
    "T \u0394L, by loss drop": ("loss_drop", "var(--third)", [6, 3]),
    "W\u2082² at most: |\u0394\u03b8|²": ("displacement_sq", FORECAST, []),
    "W\u2082² at least: trace bound": ("w2_lower", FORECAST, [2, 3]),
}
_INEFFICIENCY = {
    "inefficiency": ("inefficiency_path", MEASURED, []),
    "T \u0394L over |\u0394\u03b8|²": ("loss_drop_ratio", "var(--third)", [6, 3]),
}
Kinds = Mapping[str, tuple[str, str, list[int]]]


def cost_figure(view: RunView) -> Figure | None:
    """Draw time times entropy production against the squared distance, epoch by epoch.

    Args:
        view: The run.

    Returns:
        The figure; None for runs of older versions, which did not record it.
    """
    return _figure(
        view,
        _COST,
        name="fig-production",
        title="Entropy production against the distance travelled, along the training",
        caption="The speed limit says that learning time times entropy production stays above the "
        "squared Wasserstein distance from where the task began: the solid orange line above the "
        "blue ones, and the gap is what was wasted. Every task starts anew. The distance between "
        "the replicas' distributions lies between its two bounds; for each network alone it is the "
        "upper one, exactly. The action holds minibatch noise; the loss drop does not, but equals "
        "the entropy production for gradient flow only.",
        y_title="T \u03a3 and W\u2082²",
        one=False,
    )


def inefficiency_figure(view: RunView) -> Figure | None:
    """Draw the inefficiency of the training so far, epoch by epoch.

    Args:
        view: The run.

    Returns:
        The figure; None for runs of older versions, which did not record it.
    """
    return _figure(
        view,
        _INEFFICIENCY,
        name="fig-inefficiency",
        title="Inefficiency of the training so far",
        caption="By how many times the training of a task up to an epoch exceeded the least that "
        "the speed limit (dashed, 1) allows for as far as it came. It rises where a network that "
        "has arrived goes on wandering. Dashed, where it stands for the inefficiency: the ratio by "
        "the loss drop, which long or noisy steps put out of its regime.",
        y_title="\u00d7 the speed limit",
        one=True,
    )


def _figure(
    view: RunView, kinds: Kinds, *, name: str, title: str, caption: str, y_title: str, one: bool
) -> Figure | None:
    rows = _rows(view, kinds, timed=not one)
    if not rows:
        return None
    present = [kind for kind in kinds if any(row["kind"] == kind for row in rows)]
    # Of very many tasks only the end is left: then a line joins the tasks.
    ends = Counter((row["task"], row["kind"]) for row in rows).most_common(1)[0][1] == 1
    apart = {} if ends and len(view.tasks) > 1 else {"detail": "task:N"}
    low = min(min(row["low"] for row in rows), 0.9 if one else float("inf"))
    high = max(max(row["high"] for row in rows), 1.1 if one else 0.0)
    scale = alt.Scale(type="log", domain=[0.9 * low, 1.1 * high], nice=False)
    axis = alt.Axis(format="~g", values=log_ticks(0.9 * low, 1.1 * high))
    channel = f"{y_title}, logarithmic"
    y = alt.Y("value:Q", title=channel, scale=scale, axis=axis)
    shade = alt.Scale(domain=present, range=[kinds[kind][1] for kind in present])
    color = alt.Color("kind:N", scale=shade, legend=None)
    dash = alt.StrokeDash(
        "kind:N",
        scale=alt.Scale(domain=present, range=[kinds[kind][2] or [1, 0] for kind in present]),
        legend=None,
    )
    base = alt.Chart(data(rows)).encode(x=step_axis(view))
    tooltip = [
        alt.Tooltip("kind:N", title="what"),
        alt.Tooltip("task:N", title="training of"),
        alt.Tooltip("epoch:Q"),
        alt.Tooltip("said:N", title="value"),
    ]
    limit = []
    if one:
        rule = alt.Chart(data([{"one": 1}])).mark_rule(stroke=MUTED, strokeDash=[4, 4])
        limit.append(rule.encode(y=alt.Y("one:Q", scale=scale, title=channel, axis=axis)))
    chart = alt.layer(
        *boundary_marks(view),
        *limit,
        base.mark_area(stroke=None, opacity=0.15).encode(
            y=alt.Y("low:Q", scale=scale, title=channel, axis=axis),
            y2=alt.Y2("high:Q"),
            **apart,
            fill=alt.Fill("kind:N", scale=shade, legend=None),
        ),
        base.mark_line(strokeWidth=2, strokeJoin="round").encode(
            y=y, color=color, strokeDash=dash, **apart
        ),
        base
        .properties(name=HOVER)
        .mark_circle(size=90, opacity=0)
        .encode(y=y, color=color, tooltip=tooltip),
    )
    last = {row["kind"]: row for row in rows}
    return Figure(
        id=name,
        title=title,
        caption=caption
        + ("" if apart else " Drawn is the end of every task.")
        + (" Bands: \u00b1 one standard error over replicas." if view.replicas > 1 else "")
        + ("" if one or "w2_lower" in _named(kinds, present) else _unpinned(view)),
        alt=f"Line chart of {y_title} against training step; at the end "
        + ", ".join(f"{kind} {last[kind]['said']}" for kind in present)
        + ".",
        spec=spec(chart, height=240 if not one else 190),
        keys=[
            *(Key(kind, kinds[kind][1], "dash" if kinds[kind][2] else "line") for kind in present),
            *([Key("speed limit", MUTED, "dash")] if one else []),
        ],
        table=_table(view, kinds, present, title, timed=not one),
        csv={
            "task": "training of",
            "epoch": "epoch",
            "step": "step",
            "kind": "what",
            "value": "value",
            "low": "minus one standard error",
            "high": "plus one",
        },
    )


def _named(kinds: Kinds, present: list[str]) -> set[str]:
    return {kinds[kind][0] for kind in present}


def _unpinned(view: RunView) -> str:
    if view.replicas < 4:
        return " Fewer than 4 replicas: W\u2082 has no lower bound here."
    return " Not resolved: these replicas do not pin W\u2082 from below."


def _value(row: Record, name: str, time: float | None) -> tuple[float, float] | None:
    """Read value and standard error; costs are multiplied with the learning time of their task."""
    value, error = row.get(name), row.get(f"{name}_stderr")
    if value is None or value <= 0:
        return None
    scale = time if time is not None and name in {"action", "loss_drop"} else 1.0
    return value * scale, (error or 0.0) * scale


def _starts(view: RunView) -> dict[int, float]:
    """Learning time at which each task begins."""
    starts: dict[int, float] = {}
    for row in view.rows:
        starts.setdefault(int(row["task"]), float(row["learning_time"]))
    return starts


def _rows(view: RunView, kinds: Kinds, *, timed: bool) -> list[dict[str, Any]]:
    starts, made = _starts(view), []
    for row in thin(view.rows, _POINTS):
        time = row["learning_time"] - starts[int(row["task"])] if timed else None
        for kind, (name, _, _) in kinds.items():
            found = _value(row, name, time)
            if found is None or found[0] <= 0:
                continue
            value, error = found
            made.append({
                "task": view.label(int(row["task"])),
                "kind": kind,
                "epoch": row["epoch"],
                "step": row["step"],
                "value": value,
                "low": max(value - error, value / 10),
                "high": value + error,
                "said": with_error(value, error) if error else number(value),
            })
    return made


def _table(view: RunView, kinds: Kinds, present: list[str], title: str, *, timed: bool) -> Table:
    starts, rows, columns = _starts(view), [], ("Task", "Epoch", *present)
    trained = [row for row in view.rows if row["epoch"]]
    for row in thin(trained, rows_of(len(columns))):
        time = row["learning_time"] - starts[int(row["task"])] if timed else None
        cells = []
        for kind in present:
            found = _value(row, kinds[kind][0], time)
            if found is None:
                cells.append(Cell("\u2013"))
            else:
                cells.append(Cell(with_error(*found) if found[1] else number(found[0])))
        epoch = Cell(str(row["epoch"]))
        rows.append((header_cell(view.label(int(row["task"]))), epoch, *cells))
    return TaskTable(caption=title, columns=columns, rows=rows)
