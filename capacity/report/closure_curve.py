"""The closing of the critical period: the next task, judged along the training before it."""

from __future__ import annotations

from typing import Any

import altair as alt

from capacity.records.intervals import interval
from capacity.records.number_format import Cell, cell, header_cell, say, text_cell
from capacity.records.numbers import number
from capacity.report.capacity_detail import capital, form_unit
from capacity.report.charts import (
    MUTED,
    Figure,
    Key,
    data,
    dimmed,
    focus,
    spec,
    task_keys,
    task_scale,
)
from capacity.report.tables import Table, TaskTable, evenly, some_drawn
from capacity.results.criterion_schema import Closure, FormName, Verdicts
from capacity.results.schema import Transition
from capacity.results.view import Record, RunView, pick

_CURVES = 40
"""Curves of a figure."""


def closure_figure(view: RunView) -> Figure | None:
    """Draw how, while a task is learned, the room for the next one closes.

    Args:
        view: The run.

    Returns:
        The figure; None where it was not measured.
    """
    found = closures_of(view)
    if not found:
        return None
    form = found[0][1]["decides"]
    name, scale, _ = form_unit(view, form)
    curves = [(t, closures[form]) for t, _, closures in found]
    drawn = [curves[k] for k in evenly(len(curves), _CURVES)]
    above = bool(curves[0][1]["fires_above"])
    rows = [row for t, c in drawn for row in _curve(view, t, c, above, scale)]
    if not rows:
        return None
    threshold = [{"limit": curves[0][1]["threshold"] * scale}]
    labels = [view.label(i) for i in range(len(view.tasks))]
    color = alt.Color("task:N", scale=task_scale(labels), legend=None)
    title = f"{name}, points" if scale == 100.0 else name
    y_axis = alt.Axis(tickCount=5)
    x = alt.X(
        "time:Q",
        title="learning time of the task before, on a square-root scale",
        scale=alt.Scale(type="sqrt", nice=False),
        axis=alt.Axis(tickCount=6),
    )
    base = alt.Chart(data(rows)).encode(x=x, color=color, opacity=dimmed("task"))
    y = alt.Y("value:Q", title=title, axis=y_axis)
    chart = alt.layer(
        alt
        .Chart(data(threshold))
        .mark_rule(stroke=MUTED, strokeDash=[4, 4])
        .encode(y=alt.Y("limit:Q", title=title, axis=y_axis)),
        base.mark_line(strokeWidth=2).encode(y=y),
        base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q", title=title), y2=alt.Y2("high:Q")),
        base.mark_circle(size=60, opacity=1).encode(
            y=y,
            tooltip=[
                alt.Tooltip("task:N", title="next task"),
                alt.Tooltip("time:Q", title="learning time"),
                alt.Tooltip("said:N", title=name),
            ],
        ),
    ).add_params(focus())
    present = {row["task"] for row in rows}
    side = "rises above" if above else "falls to"
    return Figure(
        id="fig-closure",
        title="How the room for the next task closes while a task is learned",
        caption=f"At some moments of each training the next task is judged: {name} if it were "
        f"learned from there. The room is closed where the curve {side} the dashed threshold. "
        "Bars: 90 % intervals, the known error of the form included. "
        + some_drawn(len(curves), _CURVES),
        alt=f"Line chart of {name} against learning time, one line per next task: "
        + "; ".join(
            f"{view.label(t['task'])} "
            + {True: "closes", False: "stays open", None: "undecided"}[c["closes"]]
            for t, c in curves[:8]
        )
        + ".",
        spec=spec(chart, height=230),
        keys=[
            *(key for key in task_keys(labels) if key.label in present),
            Key("threshold", MUTED, "dash"),
        ],
        table=_closure_table(view, [t for t, _, _ in found], form),
        csv={
            "task": "next task",
            "time": "learning time",
            "value": title,
            "low": "90 % interval from",
            "high": "to",
        },
    )


def closures_of(
    view: RunView,
) -> list[tuple[Transition, Verdicts, dict[str, Closure]]]:
    """List the transitions before which the room was followed.

    Args:
        view: The run.

    Returns:
        Each with its verdicts and its curves by form.
    """
    return [
        (transition, verdicts, closures)
        for transition in view.transitions
        if (closures := transition.get("closures")) and (verdicts := transition.get("verdicts"))
    ]


def _curve(
    view: RunView, transition: Transition, curve: Closure, above: bool, scale: float
) -> list[dict[str, Any]]:
    rows = []
    for point in curve["points"]:
        value = pick(point, "need" if above else "capacity")
        if value is None or value.value is None:
            continue
        low, high = interval(value.value, value.stderr or 0.0)
        rows.append({
            "task": view.label(transition["task"]),
            "time": point["time"],
            "value": value.value * scale,
            "low": low * scale,
            "high": high * scale,
            "said": say(value, scale=scale),
        })
    return rows


def _closure_table(view: RunView, found: list[Record], form: FormName) -> Table:
    name, scale, _ = form_unit(view, form)
    rows = []
    for transition in found:
        curve = transition["closures"][form]
        above = bool(curve["fires_above"])
        closed = {True: "closes", False: "stays open", None: "undecided"}[curve["closes"]]
        for k, point in enumerate(curve["points"]):
            rows.append((
                header_cell(view.label(transition["task"])),
                Cell(number(point["time"])),
                cell(pick(point, "need" if above else "capacity"), scale=scale),
                text_cell(closed if not k else ""),
                cell(pick(curve, "time"), interval=True) if not k else Cell(""),
            ))
    return TaskTable(
        caption="The next task, judged along the training before it",
        columns=("Next task", "Learning time", capital(name), "Room", "Closes at learning time"),
        rows=rows,
    )
