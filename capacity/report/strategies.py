"""Strategies against forgetting, as they were forecast: the figure and its table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from capacity.records.number_format import PERCENT, Cell, cell, header_cell, say, text_cell
from capacity.records.numbers import MISSING, clip, number, plural
from capacity.report.capacity_detail import capital
from capacity.report.charts import (
    Figure,
    Key,
    data,
    dimmed,
    focus,
    spec,
    task_keys,
    task_scale,
)
from capacity.report.strategy_forecasts import foreseen, ranked, without_value
from capacity.report.tables import Table, TaskTable, drop_target, evenly, some_drawn
from capacity.results.view import RunView

_DOTS = 60
"""New tasks whose dots are drawn."""


def strategy_figure(view: RunView) -> Figure | None:
    """Draw what every strategy was forecast to cost, the best on top.

    Args:
        view: The run.

    Returns:
        The figure; None where no strategy was forecast.
    """
    target, scale, bounds = drop_target(view)
    ranking = ranked(view)
    if not ranking:
        return None
    labels = [view.label(i) for i in range(len(view.tasks))]
    rows: list[dict[str, Any]] = []
    for k in evenly(len(view.transitions), _DOTS):
        transition = view.transitions[k]
        for found in foreseen(transition, target):
            value = (found.drop.value or 0.0) * scale
            ends = found.drop.interval or (found.drop.value or 0.0,) * 2
            low, high = clip((ends[0] * scale, ends[1] * scale), bounds)
            rows.append({
                "strategy": found.label,
                "task": view.label(transition["task"]),
                "value": value,
                "low": low,
                "high": high,
                "said": say(found.drop, scale=scale, interval=True, bounds=bounds),
                "new": "\u2013" if found.new is None else say(found.new, scale=scale),
            })
    order = [one.label for one in ranking]
    means = [{"strategy": one.label, "mean": one.drop, "said": number(one.drop)} for one in ranking]
    title = "forecast drop, points" if view.classifies else "forecast rise of the loss"
    y = alt.Y(
        "strategy:N",
        sort=order,
        title=None,
        axis=alt.Axis(grid=True, gridDash=[1, 3], labelLimit=210),
    )
    values = [row["value"] for row in rows] + [0.0]
    margin = 0.05 * (max(values) - min(values)) or 0.5
    x_scale = alt.Scale(domain=[min(values) - margin, max(values) + margin], nice=False)
    x = alt.X("value:Q", title=title, scale=x_scale, axis=alt.Axis(tickCount=7))
    color = alt.Color("task:N", scale=task_scale(labels), legend=None)
    base = alt.Chart(data(rows)).encode(y=y, color=color, opacity=dimmed("task", 0.9))
    tooltip = [
        alt.Tooltip("strategy:N"),
        alt.Tooltip("task:N", title="new task"),
        alt.Tooltip("said:N", title="forecast drop"),
        alt.Tooltip("new:N", title="on the new task"),
    ]
    chart = alt.layer(
        base.mark_rule(strokeWidth=1.2, strokeOpacity=0.45, clip=True).encode(
            x=alt.X("low:Q", title=title, scale=x_scale, axis=alt.Axis(tickCount=7)),
            x2=alt.X2("high:Q"),
        ),
        base.mark_circle(size=70).encode(x=x, tooltip=tooltip),
        alt
        .Chart(data(means))
        .mark_tick(thickness=3, size=20, color="var(--ink)")
        .encode(
            y=y,
            x=alt.X("mean:Q", title=title, scale=x_scale),
            tooltip=[alt.Tooltip("strategy:N"), alt.Tooltip("said:N", title="mean over new tasks")],
        ),
    ).add_params(focus())
    present = {row["task"] for row in rows}
    best, worst = ranking[0], ranking[-1]
    return Figure(
        id="fig-strategies",
        title="Strategies against forgetting, ranked by forecast",
        caption="One dot per new task, a tick at the mean over them; the strategies stand in the "
        "order of the average they would end with, the best on top. Further left forgets less, but "
        "may also learn less: the table has both. A bar is a 90 % interval, "
        f"{view.interval_covers}."
        + _left_out(view, target)
        + f" {some_drawn(len(view.transitions), _DOTS)}".rstrip(),
        alt=f"Forecast forgetting per strategy: {best.label} ends with the best average, "
        f"{worst.label} with the worst.",
        spec=spec(chart, height=max(30 * len(order), 60)),
        keys=[
            *(key for key in task_keys(labels, "dot") if key.label in present),
            Key("mean", "var(--ink)", "tick"),
        ],
        table=strategy_table(view),
        csv={"strategy": "strategy", "task": "new task", "value": title}
        | {"low": "90 % interval from", "high": "to"},
    )


def _left_out(view: RunView, target: str) -> str:
    """Say which means leave tasks out: a strategy that diverges must not look better for it."""
    lost: dict[str, int] = {}
    for transition in view.transitions:
        for label, _ in without_value(transition, target):
            lost[label] = lost.get(label, 0) + 1
    of = plural(len(view.transitions), "new task")
    said = ", ".join(f"{label} for {count} of {of}" for label, count in lost.items())
    return f" Without a value, and left out of the mean: {said}." if said else ""


def strategy_table(view: RunView) -> Table:
    """List every strategy's forecast of every transition, the best average first.

    Args:
        view: The run.

    Returns:
        The table.
    """
    target, scale, bounds = drop_target(view)
    unit, percent = (", points", ", %") if view.classifies else ("", "")
    kind = "accuracy" if view.classifies else "loss"
    top = PERCENT if view.classifies else None
    rows: list[Sequence[Cell]] = []
    for transition in view.transitions:
        head = header_cell(view.label(transition["task"]))
        rows += [
            (
                head,
                Cell(str(place)),
                text_cell(found.label),
                cell(found.average, scale=scale, interval=True, bounds=top),
                cell(found.drop, scale=scale, interval=True, bounds=bounds),
                cell(found.new, scale=scale, interval=True, bounds=top),
                cell(found.cost),
            )
            for place, found in enumerate(foreseen(transition, target), start=1)
        ]
        rows += [
            (head, Cell(MISSING), text_cell(label), Cell(MISSING), cell(lost), Cell(MISSING),
             Cell(MISSING))
            for label, lost in without_value(transition, target)
        ]  # fmt: skip
    return TaskTable(
        caption="Every strategy as it was forecast for every new task",
        columns=(
            "New task",
            "Rank",
            "Strategy",
            f"Average {kind} at the end{percent}",
            f"Lost on the old tasks{unit}" if view.classifies else "Rise of the old losses",
            f"{capital(kind)} on the new task{percent}",
            "Cost of the forecast, \u00d7 training",
        ),
        rows=rows,
        remark="Values with 90 % intervals for one further network.",
    )
