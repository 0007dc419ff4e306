"""Figures that hold forecasts against what was measured."""

from __future__ import annotations

from typing import Any

import altair as alt

from capacity.records.estimate import Estimate
from capacity.records.number_format import say
from capacity.records.numbers import Bounds, clip, number, plural
from capacity.report.charts import (
    FORECAST,
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
from capacity.report.tables import (
    drop_target,
    evenly,
    forecast_table,
    pair_table,
    room_table,
    some_drawn,
)
from capacity.results.view import RunView, forecast_mean, measured_mean, pick

_KINDS = {
    "forecast": Key("forecast, with interval", FORECAST, "band"),
    "measured": Key("measured", MEASURED, "dot"),
}

_ALT_TASKS, _MARKS, _LINES = 6, 250, 40
_ENDS = {"low": "90 % interval from", "high": "to"}
_SIDES = (("value", ""), ("low", ", 90 % interval from"), ("high", ", to"))


def drop_figure(view: RunView) -> Figure | None:
    """Draw forecast and measured forgetting per transition on one line each.

    Args:
        view: The run.

    Returns:
        The figure; None without a transition that has a value.
    """
    target, scale, bounds = drop_target(view)
    shown = [view.transitions[k] for k in evenly(len(view.transitions), _LINES)]
    order = [view.label(t["task"]) for t in shown]
    rows = []
    for transition in shown:
        both = {
            "forecast": forecast_mean(transition, target),
            "measured": measured_mean(view, transition, target),
        }
        for kind, found in both.items():
            if found is not None and found.value is not None:
                row = _point(found, scale, bounds)
                rows.append({"task": view.label(transition["task"]), "kind": kind, **row})
    if not rows:
        return None
    title = (
        "accuracy lost on earlier tasks, points" if view.classifies else "rise of earlier losses"
    )
    values = [row["value"] for row in rows]
    domain = _domain(values, [row[end] for row in rows for end in ("low", "high")], zero=True)
    y = alt.Y("task:N", sort=order, title=None, axis=alt.Axis(grid=True, gridDash=[1, 3]))
    x_scale, x_axis = alt.Scale(domain=domain, nice=False), alt.Axis(tickCount=8)
    x = alt.X("value:Q", title=title, scale=x_scale, axis=x_axis)
    tooltip = [
        alt.Tooltip("task:N", title="new task"),
        alt.Tooltip("kind:N", title="what"),
        alt.Tooltip("said:N", title="mean over earlier tasks"),
    ]
    base = alt.Chart(data(rows)).encode(y=y, tooltip=tooltip)
    forecast = base.transform_filter("datum.kind == 'forecast'")
    measured = base.transform_filter("datum.kind == 'measured'")
    chart = alt.layer(
        forecast.mark_bar(
            height=14, color=FORECAST, fillOpacity=0.3, cornerRadius=3, clip=True, minBandSize=3
        ).encode(x=alt.X("low:Q", title=title, scale=x_scale, axis=x_axis), x2=alt.X2("high:Q")),
        forecast.mark_tick(color=FORECAST, thickness=3, size=22).encode(x=x),
        measured.mark_rule(stroke=MEASURED, strokeWidth=1.5, clip=True).encode(
            x=alt.X("low:Q"), x2=alt.X2("high:Q")
        ),
        measured.mark_circle(color=MEASURED, size=80, opacity=1).encode(x=x),
    )
    return Figure(
        id="fig-drop",
        title="Forgetting forecast before training, and measured after it",
        caption="A dot on the tick is a forecast that came true. Bar and line: 90 % intervals; the "
        f"forecast's is one {view.interval_covers}. {some_drawn(len(view.transitions), _LINES)}",
        alt=f"Dot plot of {title}: "
        + "; ".join(
            f"{task} " + ", ".join(f"{r['kind']} {r['said']}" for r in rows if r["task"] == task)
            for task in order[:_ALT_TASKS]
        )
        + ("; and so on." if len(order) > _ALT_TASKS else "."),
        spec=spec(chart, height=max(34 * len(order), 60)),
        keys=[key for kind, key in _KINDS.items() if any(row["kind"] == kind for row in rows)],
        table=forecast_table(view),
        csv={"task": "new task", "kind": "what", "value": title, **_ENDS},
    )


def scatter_figure(view: RunView, target: str) -> Figure | None:
    """Draw measured against forecast forgetting, one mark per pair of a new and an old task.

    Args:
        view: The run.
        target: `accuracy_drop` or `loss_increase`.

    Returns:
        The figure; None without a pair.
    """
    scale, bounds = (100.0, (-100.0, 100.0)) if target == "accuracy_drop" else (1.0, None)
    labels = [view.label(i) for i in range(len(view.tasks))]
    rows = []
    for transition in view.transitions:
        for old in transition["old"]:
            forecast, measured = pick(old["forecast"], target), pick(old["measured"], target)
            if forecast is None or measured is None:
                continue
            if forecast.value is None or measured.value is None:
                continue
            f, m = _point(forecast, scale, bounds), _point(measured, scale, bounds)
            rows.append({
                "new": labels[transition["task"]],
                "old": labels[old["task"]],
                **{f"f_{key}": value for key, value in f.items()},
                **{f"m_{key}": value for key, value in m.items()},
            })
    if not rows:
        return None
    values = [row[f"{side}_value"] for row in rows for side in "fm"]
    ends = [row[f"{side}_{end}"] for row in rows for side in "fm" for end in ("low", "high")]
    domain = _domain(values, ends, zero=False)
    axis = alt.Axis(grid=True, tickCount=5)
    unit = ", points" if scale == 100.0 else ""
    x_scale = alt.Scale(domain=domain, nice=False, zero=False)
    x = alt.X("f_value:Q", title=f"forecast{unit}", scale=x_scale, axis=axis)
    y = alt.Y("m_value:Q", title=f"measured{unit}", scale=x_scale, axis=axis)
    color = alt.Color("new:N", scale=task_scale(labels), legend=None)
    tooltip = [
        alt.Tooltip("new:N", title="learning"),
        alt.Tooltip("old:N", title="forgetting of"),
        alt.Tooltip("f_said:N", title="forecast"),
        alt.Tooltip("m_said:N", title="measured"),
    ]
    drawn = [rows[k] for k in evenly(len(rows), _MARKS)]
    base = alt.Chart(data(drawn)).encode(color=color, opacity=dimmed("new", 0.9))
    line = [{"a": domain[0], "b": domain[0]}, {"a": domain[1], "b": domain[1]}]
    diagonal = alt.Chart(data(line)).mark_line(stroke=MUTED, strokeDash=[4, 4], strokeWidth=1)
    chart = alt.layer(
        diagonal.encode(x=alt.X("a:Q", scale=x_scale), y=alt.Y("b:Q", scale=x_scale)),
        base.mark_rule(clip=True, strokeWidth=1.2).encode(
            x=alt.X("f_low:Q", title=f"forecast{unit}", scale=x_scale, axis=axis),
            x2=alt.X2("f_high:Q"),
            y=y,
        ),
        base.mark_rule(clip=True, strokeWidth=1.2).encode(
            x=x, y=alt.Y("m_low:Q"), y2=alt.Y2("m_high:Q")
        ),
        base.mark_circle(size=70, opacity=0.9, stroke="var(--surface)", strokeWidth=1).encode(
            x=x, y=y, tooltip=tooltip
        ),
    ).add_params(focus())
    word = "drop of accuracy" if target == "accuracy_drop" else "rise of the loss"
    present = {row["new"] for row in rows}
    return Figure(
        id=f"fig-scatter-{'accuracy' if target == 'accuracy_drop' else 'loss'}",
        title=f"{word[0].upper()}{word[1:]}, every pair",
        caption="One mark per pair of a new and an old task, coloured by the new one; on the "
        "dashed diagonal the forecast is exact. Bars: 90 % intervals, cut at the frame."
        + (f" {len(drawn)} of {len(rows)} pairs are drawn." if len(drawn) < len(rows) else ""),
        alt=f"Scatter of measured against forecast {word} over {plural(len(rows), 'pair')}; "
        f"on average they are {number(_apart(rows))} apart.",
        spec=spec(chart, height=290),
        keys=[key for key in task_keys(labels, "dot") if key.label in present],
        table=pair_table(view, target),
        half=True,
        csv={"new": "new task", "old": "old task"}
        | {f"{s[0]}_{key}": f"{s}{head}" for s in ("forecast", "measured") for key, head in _SIDES},
    )


def capacity_figure(view: RunView) -> Figure | None:
    """Draw the room R_A against the need m_B on one logarithmic axis.

    Args:
        view: The run.

    Returns:
        The figure; None where neither was measured.
    """
    paths = {
        "room R_A": ("capacity", "directions"),
        "need m_B, stable rank": ("dimension", "stable_rank"),
        "need m_B, intrinsic": ("dimension", "intrinsic"),
    }
    rows: list[dict[str, Any]] = []
    below = False
    shown = [view.transitions[k] for k in evenly(len(view.transitions), _LINES)]
    for transition in shown:
        for kind, path in paths.items():
            found = pick(transition, *path)
            if found is None or found.value is None:
                continue
            if found.value <= 0:
                below = True
                continue
            point = _point(found, 1.0, None)
            # A logarithmic axis has no place for an interval that reaches 0.
            point["low"] = max(point["low"], 0.3)
            point["high"] = max(point["high"], point["low"])
            rows.append({"task": view.label(transition["task"]), "kind": kind, **point})
    if not rows:
        return None
    parameters = float(view.result["model"]["parameters"])
    order = [view.label(t["task"]) for t in shown]
    kinds, colors = list(paths), [FORECAST, MEASURED, "var(--third)"]
    shapes = ["circle", "diamond", "square"]
    domain = [
        0.8 * min(1.25, *(r["low"] for r in rows)),
        1.5 * max(parameters, *(r["high"] for r in rows)),
    ]
    scale = alt.Scale(type="log", domain=domain, nice=False)
    title = "directions, logarithmic"
    axis = alt.Axis(format="~s", grid=True, values=log_ticks(*domain))
    y = alt.Y("task:N", sort=order, title=None, axis=alt.Axis(grid=True, gridDash=[1, 3]))
    base = alt.Chart(data(rows)).encode(
        y=y, color=alt.Color("kind:N", scale=alt.Scale(domain=kinds, range=colors), legend=None)
    )
    whole = alt.Chart(data([{"p": parameters}])).mark_rule(stroke=MUTED, strokeDash=[4, 4])
    chart = alt.layer(
        whole.encode(x=alt.X("p:Q", scale=scale)),
        base.mark_rule(strokeWidth=1.5, clip=True).encode(
            x=alt.X("low:Q", scale=scale, title=title, axis=axis), x2=alt.X2("high:Q")
        ),
        base.mark_point(filled=True, size=85, opacity=1).encode(
            x=alt.X("value:Q", scale=scale, title=title, axis=axis),
            shape=alt.Shape("kind:N", scale=alt.Scale(domain=kinds, range=shapes), legend=None),
            tooltip=[
                alt.Tooltip("task:N", title="new task"),
                alt.Tooltip("kind:N", title="what"),
                alt.Tooltip("said:N", title="directions"),
            ],
        ),
    )
    return Figure(
        id="fig-capacity",
        title="Room left by the earlier tasks against the need of the new one",
        caption="The literal criterion fires where a diamond lies to the right of its circle. R_A "
        "is of the order of the number of parameters (dashed), whatever the tasks are, while m_B "
        f"is bounded by what the data asks for. {some_drawn(len(view.transitions), _LINES)}"
        + (" Values at or below 0 (a negative trace) are in the table only." if below else ""),
        alt="Dot plot per new task on a logarithmic axis: "
        + "; ".join(
            f"{kind} {_span([row['value'] for row in rows if row['kind'] == kind])}"
            for kind in kinds
            if any(row["kind"] == kind for row in rows)
        )
        + f"; P is {number(round(parameters), 6)}.",
        spec=spec(chart, height=max(34 * len(order), 60)),
        keys=[
            *(
                Key(kind, color, shape)
                for kind, color, shape in zip(
                    kinds, colors, ("dot", "diamond", "square"), strict=True
                )
            ),
            Key("P, all parameters", MUTED, "dash"),
        ],
        table=room_table(view),
        csv={"task": "new task", "kind": "what", "value": "directions", **_ENDS},
    )


def _point(found: Estimate, scale: float, bounds: Bounds) -> dict[str, Any]:
    value = (found.value or 0.0) * scale
    low, high = found.interval or (found.value or 0.0,) * 2
    low, high = clip((low * scale, high * scale), bounds)
    return {
        "value": value,
        "low": low,
        "high": high,
        "said": say(found, scale=scale, interval=True, bounds=bounds),
    }


def _apart(rows: list[dict[str, Any]]) -> float:
    return float(sum(abs(row["f_value"] - row["m_value"]) for row in rows) / len(rows))


def _span(values: list[float]) -> str:
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} to {high}"


def _domain(values: list[float], ends: list[float], *, zero: bool) -> list[float]:
    """Span all values, and of the intervals as much as a quarter of that beyond them."""
    low, high = min(values), max(values)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    reach = (high - low) or max(abs(high), 1e-3)
    low = max(min(low, *ends), low - reach / 4)
    high = min(max(high, *ends), high + reach / 4)
    margin = 0.05 * reach
    return [low if zero and low == 0 else low - margin, high + margin]
