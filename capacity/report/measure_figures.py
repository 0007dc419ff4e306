"""Figures of the training Jacobian and of the thermodynamics of learning."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import altair as alt

from capacity.records.estimate import Estimate
from capacity.records.number_format import Cell, cell, header_cell, text_cell
from capacity.records.numbers import number
from capacity.report.charts import (
    HOVER,
    MEASURED,
    MUTED,
    Figure,
    Key,
    data,
    dimmed,
    focus,
    log_ticks,
    spec,
    task_keys,
    task_scale,
)
from capacity.report.sequence_axis import boundaries
from capacity.report.tables import Table, TaskTable, evenly, some_drawn
from capacity.results.view import RunView, pick

_VOLUME_POINTS, _DOTS, _SPECTRA = 300, 40, 24
_LOSS_DROP = "T \u0394L over |\u0394\u03b8|²"


def spectrum_figure(view: RunView) -> Figure | None:
    """Draw the largest singular values of every task's Jacobian.

    Args:
        view: The run.

    Returns:
        The figure; None where the Jacobian was not tracked.
    """
    labels = [view.label(i) for i in range(len(view.tasks))]
    rows: list[dict[str, Any]] = []
    transports = view.transports
    for i in evenly(len(transports), _SPECTRA):
        transport = transports[i]
        for rank, s in enumerate(transport["singular_values"] if transport else [], start=1):
            if s["value"] is None or s["value"] <= 0:
                continue
            rows.append({
                "task": labels[i],
                "rank": rank,
                "value": s["value"],
                "low": max(s["value"] - s["residual"], s["value"] / 10),
                "high": s["value"] + s["residual"],
                "resolved": bool(s["resolved"]),
                "said": f"{number(s['value'], 4)} ± {number(s['residual'], 2)}"
                + ("" if s["resolved"] else ", not resolved"),
            })
    if not rows:
        return None
    top = max(row["rank"] for row in rows)
    lowest = min(row["low"] for row in rows)
    y_scale = alt.Scale(type="log", nice=False, domainMin=min(0.9, lowest * 0.9))
    title = "singular value of J, logarithmic"
    highest = max(row["high"] for row in rows)
    y_axis = alt.Axis(format="~g", values=log_ticks(min(0.9, lowest * 0.9), highest))
    x = alt.X(
        "rank:Q",
        title="rank",
        scale=alt.Scale(domain=[0.5, top + 0.5], nice=False),
        axis=alt.Axis(values=_ticks(top), format="d"),
    )
    color = alt.Color("task:N", scale=task_scale(labels), legend=None)
    base = alt.Chart(data(rows)).encode(x=x, color=color, opacity=dimmed("task"))
    y = alt.Y("value:Q", title=title, scale=y_scale, axis=y_axis)
    tooltip = [
        alt.Tooltip("task:N", title="training of"),
        alt.Tooltip("rank:Q"),
        alt.Tooltip("said:N", title="singular value"),
    ]
    one = alt.Chart(data([{"one": 1}])).mark_rule(stroke=MUTED, strokeDash=[4, 4])
    resolved = base.transform_filter("datum.resolved")
    open_ = base.transform_filter("!datum.resolved")
    chart = alt.layer(
        one.encode(y=alt.Y("one:Q", scale=y_scale)),
        base.mark_line(strokeWidth=1, strokeOpacity=0.5).encode(y=y),
        base.mark_rule(strokeWidth=1.5).encode(
            y=alt.Y("low:Q", title=title, scale=y_scale, axis=y_axis), y2=alt.Y2("high:Q")
        ),
        resolved.mark_circle(size=60, opacity=1).encode(y=y, tooltip=tooltip),
        open_.mark_point(size=60, fill="var(--surface)", strokeWidth=1.6).encode(
            y=y, tooltip=tooltip
        ),
    ).add_params(focus())
    present = {row["task"] for row in rows}
    missed = any(not row["resolved"] for row in rows)
    return Figure(
        id="fig-spectrum",
        title="Top of the spectrum of the training Jacobian, per task",
        caption="Above the dashed line at 1, training amplifies a small difference in the "
        "parameters it starts from. Bars: a true singular value lies within the residual. "
        + some_drawn(len(view.transports), _SPECTRA)
        + (
            "Hollow marks are not resolved: their residual exceeds a thousandth of the value."
            if missed
            else "All values shown are resolved to a thousandth."
        ),
        alt="Largest singular values of J against their rank, one series per task; the largest is "
        f"{number(highest)}.",
        spec=spec(chart, height=280),
        keys=[
            *(key for key in task_keys(labels, "dot") if key.label in present),
            *([Key("not resolved", MUTED, "ring")] if missed else []),
            Key("\u03c3 = 1: no change", MUTED, "dash"),
        ],
        table=TaskTable(
            caption="Singular values of J, largest first",
            columns=("Task", "Rank", "Value ± residual", "Resolved"),
            rows=[
                (
                    header_cell(row["task"]),
                    Cell(str(row["rank"])),
                    Cell(row["said"].removesuffix(", not resolved")),
                    text_cell("yes" if row["resolved"] else "not resolved"),
                )
                for row in rows
            ],
        ),
        csv={
            "task": "task",
            "rank": "rank",
            "value": "singular value",
            "low": "from",
            "high": "to",
            "resolved": "resolved",
        },
    )


def transport_table(view: RunView) -> Table | None:
    """List what is known of every task's Jacobian.

    Args:
        view: The run.

    Returns:
        The table; None where the Jacobian was not tracked.
    """
    rows = []
    method = ""
    for i, phase in enumerate(view.phases):
        transport = (phase or {}).get("transport")
        if transport is None:
            continue
        values = transport["singular_values"]
        method = str(transport.get("method") or method)
        rows.append((
            header_cell(view.label(i)),
            cell(pick(transport, "log_volume")),
            _composed(pick(transport, "log_volume_total")),
            cell(pick(transport, "frobenius_sq")),
            cell(pick(transport, "deviation_sq")),
            text_cell(f"{transport['top_resolved']} of {len(values)}"),
            Cell(f"{transport['products_forward']} + {transport['products_adjoint']}"),
        ))
    if not rows:
        return None
    return TaskTable(
        id="table-transport",
        caption="The training Jacobian of every task (replica 0)",
        columns=(
            "Task",
            "log|det J|, nats::this task",
            "log|det J|, nats::composed so far",
            "|J|_F²",
            "|J − 1|_F²",
            "Top values resolved",
            "Products J·, Jᵀ·",
        ),
        rows=rows,
        remark=f"Method: {method}.",
    )


def _composed(found: Estimate | None) -> Cell:
    """Show a sum over tasks; its note repeats those of the tasks, which stand beside it."""
    entry = cell(found)
    if found is None or found.value is None or not found.note:
        return entry
    return Cell(entry.text, entry.status, "What is noted of one task holds for the sum from there.")


def volume_figure(view: RunView) -> Figure | None:
    """Draw how the log-volume shrinks along the sequence.

    Args:
        view: The run.

    Returns:
        The figure; None where no step was recorded.
    """
    labels = [view.label(i) for i in range(len(view.tasks))]
    starts = dict(boundaries(view))
    rows: list[dict[str, Any]] = []
    total = 0.0
    for i, steps in sorted(view.log_volume_steps.items()):
        if (
            not len(steps)
            or i not in starts
            or any(s != s or abs(s) == float("inf") for s in steps)
        ):
            break
        sums = [total, *(total + s for s in accumulate(steps))]
        stride = -(-len(sums) // _VOLUME_POINTS)
        keep = sorted({*range(0, len(sums), stride), len(sums) - 1})
        rows += [
            {"task": labels[i], "step": starts[i] + k, "value": sums[k], "said": number(sums[k])}
            for k in keep
        ]
        total = sums[-1]
    if not rows:
        return None
    color = alt.Color("task:N", scale=task_scale(labels), legend=None)
    end = max(row["step"] for row in rows)
    steps = alt.Axis(tickCount=6, format="~s" if end >= 10_000 else "d")
    x = alt.X(
        "step:Q", title="training step", scale=alt.Scale(domain=[0, end], nice=False), axis=steps
    )
    few = alt.Axis(tickCount=5, labelExpr="format(datum.value, '~s')")
    y = alt.Y("value:Q", title="cumulative log|det J|, nats", axis=few)
    tooltip = [
        alt.Tooltip("task:N", title="training of"),
        alt.Tooltip("step:Q"),
        alt.Tooltip("said:N", title="log|det J|, nats"),
    ]
    base = alt.Chart(data(rows)).encode(x=x, y=y, color=color, opacity=dimmed("task"))
    chart = alt.layer(
        base.mark_line(strokeWidth=2),
        base
        .properties(name=HOVER)
        .mark_circle(size=60, opacity=0)
        .encode(tooltip=tooltip, opacity=alt.OpacityValue(0)),
    ).add_params(focus())
    present = [label for label in labels if any(row["task"] == label for row in rows)]
    last = {row["task"]: row for row in rows}
    return Figure(
        id="fig-volume",
        title="Volume of parameter space along the sequence",
        caption="How much a small cloud of initial parameters has been squeezed: the steeper the "
        "fall, the faster training forgets where it started. The table above has its error.",
        alt="Line chart of the cumulative log-determinant of J against training step; at the end "
        f"{rows[-1]['said']} nats.",
        spec=spec(chart, height=200),
        keys=[key for key in task_keys(labels) if key.label in present],
        table=TaskTable(
            caption="Cumulative log|det J| at the end of every task",
            columns=("Task", "Step", "log|det J|, nats"),
            rows=[
                (header_cell(label), Cell(str(last[label]["step"])), Cell(last[label]["said"]))
                for label in present
            ],
        ),
        csv={"task": "task", "step": "step", "value": "cumulative log|det J|, nats"},
    )


def thermo_figure(view: RunView) -> Figure | None:
    """Draw the inefficiency of every task's training against the speed limit.

    Args:
        view: The run.

    Returns:
        The figure; None where none is defined.
    """
    paths = {"inefficiency": "inefficiency_path", _LOSS_DROP: "loss_drop_ratio"}
    rows: list[dict[str, Any]] = []
    shown = evenly(len(view.phases), _DOTS)
    for i in shown:
        for kind, name in paths.items():
            found = pick(view.phases[i], "thermo", name)
            if found is None or not found.resolved or not found.value or found.value <= 0:
                continue
            low, high = found.interval or (found.value, found.value)
            rows.append({
                "task": view.label(i),
                "kind": kind,
                "value": found.value,
                "low": max(low, found.value / 10),
                "high": high,
                "said": cell(found).text,
            })
    if not rows:
        return None
    order = [view.label(i) for i in range(len(view.tasks))]
    kinds, colors, shapes = list(paths), [MEASURED, "var(--third)"], ["diamond", "circle"]
    highest = max(row["high"] for row in rows)
    lowest = min(row["low"] for row in rows)
    domain = [min(0.8, 0.9 * lowest), 1.15 * highest]
    scale = alt.Scale(type="log", domain=domain, nice=False)
    axis = alt.Axis(format="~g", grid=True, values=log_ticks(*domain))
    title = "× the speed limit, logarithmic"
    y = alt.Y("task:N", sort=order, title=None, axis=alt.Axis(grid=True, gridDash=[1, 3]))
    base = alt.Chart(data(rows)).encode(
        y=y, color=alt.Color("kind:N", scale=alt.Scale(domain=kinds, range=colors), legend=None)
    )
    limit = alt.Chart(data([{"one": 1}])).mark_rule(stroke=MUTED, strokeDash=[4, 4])
    chart = alt.layer(
        limit.encode(x=alt.X("one:Q", scale=scale)),
        base.mark_rule(strokeWidth=1.5).encode(
            x=alt.X("low:Q", scale=scale, title=title, axis=axis), x2=alt.X2("high:Q")
        ),
        base.mark_point(filled=True, size=85, opacity=1).encode(
            x=alt.X("value:Q", scale=scale, title=title, axis=axis),
            shape=alt.Shape("kind:N", scale=alt.Scale(domain=kinds, range=shapes), legend=None),
            tooltip=[
                alt.Tooltip("task:N"),
                alt.Tooltip("kind:N", title="what"),
                alt.Tooltip("said:N", title="× the speed limit"),
            ],
        ),
    )
    present = {row["kind"] for row in rows}
    table = thermo_table(view)
    assert table is not None
    return Figure(
        id="fig-thermo",
        title="Inefficiency of learning, per task",
        caption="At the dashed line at 1 the network goes straight to where it ends, at constant "
        "speed. The inefficiency: T times the action of the steps that were taken, minibatch noise "
        "included, over the squared displacement; no path can be below 1. T \u0394L over the same "
        "equals it where the steps follow gradient flow, and is drawn there only."
        + f" {some_drawn(len(view.phases), _DOTS)}".rstrip(),
        alt="Dot plot of the inefficiency per task against the speed limit at 1: "
        + "; ".join(f"{row['task']} {row['kind']} {row['said']}" for row in rows[:8])
        + ".",
        spec=spec(chart, height=max(34 * len({row["task"] for row in rows}), 60)),
        keys=[
            *(
                Key(kind, color, shape)
                for kind, color, shape in zip(kinds, colors, ("diamond", "dot"), strict=True)
                if kind in present
            ),
            Key("speed limit", MUTED, "dash"),
        ],
        table=table,
        csv={"task": "task", "kind": "what", "value": "value", "low": "from", "high": "to"},
    )


def thermo_table(view: RunView) -> Table | None:
    """List the thermodynamic record of every task.

    Args:
        view: The run.

    Returns:
        The table; None where nothing was learned.
    """
    rows = []
    for i, phase in enumerate(view.phases):
        thermo = (phase or {}).get("thermo")
        if thermo is None:
            continue
        invariant = thermo["path_invariant"]
        smallest = number(invariant["smallest_ratio"], 4)
        rows.append((
            header_cell(view.label(i)),
            Cell(number(thermo["learning_time"], 4)),
            cell(pick(thermo, "loss_drop")),
            cell(pick(thermo, "action")),
            cell(pick(thermo, "displacement_sq")),
            cell(pick(thermo, "inefficiency_path")),
            cell(pick(thermo, "loss_drop_ratio")),
            cell(pick(thermo, "length_ratio")),
            text_cell(f"{'holds' if invariant['holds'] else 'BROKEN'}, smallest {smallest}"),
        ))
    if not rows:
        return None
    return TaskTable(
        id="table-thermo",
        caption="Cost of learning every task, mean ± standard error over replicas",
        columns=(
            "Task",
            "T, sum of learning rates",
            "Loss drop",
            "Action",
            "|\u0394\u03b8|²",
            "× the speed limit::inefficiency",
            f"× the speed limit::{_LOSS_DROP}",
            "Length over chord",
            "Check of the meter: path \u2265 1",
        ),
        rows=rows,
    )


def _ticks(top: int) -> list[int]:
    stride = max(1, -(-top // 10))
    return list(range(1, top + 1, stride))
