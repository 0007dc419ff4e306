"""The sequence as an axis: training steps, with the tasks marked on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from capacity.report.charts import MUTED, data, task_color
from capacity.report.tables import evenly
from capacity.results.view import Record, RunView

_RULES = 40
"""Beginnings of tasks that are marked."""


def thin(rows: Sequence[Record], most: int) -> list[Record]:
    """Leave rows out evenly, but never the first or the last one of a task.

    Where these alone are too many, the last rows of some tasks are kept, chosen evenly.

    Args:
        rows: Rows in order, each with its task.
        most: About how many to keep.

    Returns:
        The rows that are kept.
    """
    stride = -(-len(rows) // max(most, 1))
    ends = {
        k
        for k in range(len(rows))
        if k in {0, len(rows) - 1}
        or rows[k]["task"] != rows[k - 1]["task"]
        or rows[k]["task"] != rows[k + 1]["task"]
    }
    if len(ends) > most:
        after = [*(row["task"] for row in rows[1:]), None]
        last = [k for k in sorted(ends) if rows[k]["task"] != after[k]]
        return [rows[last[k]] for k in evenly(len(last), max(most, 2))]
    return [row for k, row in enumerate(rows) if k % stride == 0 or k in ends]


def boundaries(view: RunView) -> list[tuple[int, int]]:
    """Find where each task begins.

    Args:
        view: The run.

    Returns:
        Task and first step, in order.
    """
    starts: dict[int, int] = {}
    for row in view.rows:
        starts.setdefault(int(row["task"]), int(row["step"]))
    return sorted(starts.items())


def boundary_marks(view: RunView) -> list[Any]:
    """Mark where tasks begin, with their numbers on top.

    Args:
        view: The run.

    Returns:
        Layers of a chart over training steps.
    """
    starts = boundaries(view)
    end = max((int(row["step"]) for row in view.rows), default=1)
    stops = [step for _, step in starts[1:]] + [end]
    middles = [
        {"step": (start + stop) / 2, "number": str(task + 1), "color": task_color(task)}
        for (task, start), stop in zip(starts, stops, strict=True)
    ]
    # Of very many tasks some beginnings are marked, evenly: all of them would be a grey ground.
    rules = [{"step": starts[k + 1][1]} for k in evenly(len(starts) - 1, _RULES)]
    layers = [
        alt
        .Chart(data(rules))
        .mark_rule(stroke=MUTED, strokeDash=[2, 3], opacity=0.6)
        .encode(x=alt.X("step:Q"))
    ]
    if len(starts) <= 24:
        # On a telephone twenty numbers would run into each other.
        shown = middles[:: -(-len(middles) // 12)]
        labels = alt.Chart(data(shown)).mark_text(fontSize=12, fontWeight="bold", baseline="bottom")
        layers.append(
            labels.encode(
                x=alt.X("step:Q"),
                y=alt.YValue(-3),
                text=alt.Text("number:N"),
                color=alt.Color("color:N", scale=None, legend=None),
            )
        )
    return layers


def step_axis(view: RunView) -> Any:
    """Make the axis of training steps.

    Args:
        view: The run.

    Returns:
        The channel; its field is `step`.
    """
    end = max((int(row["step"]) for row in view.rows), default=1)
    axis = alt.Axis(tickCount=6, format="~s" if end >= 10_000 else "d")
    scale = alt.Scale(domain=[0, end], nice=False)
    return alt.X("step:Q", title="training step", scale=scale, axis=axis)
