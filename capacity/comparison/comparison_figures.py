"""Figures of a comparison: variants side by side, the course over the tasks, forecasts."""

from __future__ import annotations

from typing import Any

import altair as alt

from capacity.comparison import compared_measures, comparison_tables
from capacity.comparison.compared_measures import Quantity
from capacity.comparison.comparison_sentences import facts_range
from capacity.records.number_format import Cell, cell, header_cell, say
from capacity.records.numbers import MISSING, number
from capacity.report.charts import (
    HOVER,
    INK,
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
from capacity.report.tables import Table
from capacity.results.gather import Gathered, Variant
from capacity.results.view import forecast_mean, measured_mean

_ROW = 38


def quantity_figure(gathered: Gathered, k: int) -> Figure | None:
    """Draw one quantity of all variants: every run a dot, the mean a tick with its interval.

    Args:
        gathered: The runs.
        k: Which of the quantities.

    Returns:
        The figure; None where no finished run has the quantity.
    """
    quantity = compared_measures.quantities(gathered)[k]
    means: list[dict[str, Any]] = []
    dots: list[dict[str, Any]] = []
    for variant in gathered.variants:
        found = compared_measures.of_variant(variant, quantity)
        if found is None or found.value is None:
            continue
        value, low, high = facts_range(found, quantity)
        said = say(found, scale=quantity.scale, interval=True, bounds=quantity.bounds)
        row = {"variant": variant.label, "value": value, "low": low, "high": high, "said": said}
        means.append(row)
        for entry in variant.counted:
            own = quantity.read(entry.view)
            if own is not None and own.value is not None:
                dots.append({
                    "variant": variant.label,
                    "value": own.value * quantity.scale,
                    "said": say(own, scale=quantity.scale),
                    "seed": entry.seed,
                })
    if not means:
        return None
    names = [variant.label for variant in gathered.variants]
    order = [variant.label for variant, _ in compared_measures.ranked(gathered, quantity)]
    means.sort(key=lambda row: order.index(row["variant"]))
    color = alt.Color("variant:N", scale=task_scale(names), legend=None)
    y = alt.Y(
        "variant:N",
        sort=order,
        title=None,
        axis=alt.Axis(grid=True, gridDash=[1, 3], labelLimit=150),
    )
    ends = [row[end] for row in means for end in ("low", "high")] + [d["value"] for d in dots]
    domain = _domain(ends, quantity)
    x_scale, x_axis = alt.Scale(domain=domain, nice=False, zero=False), alt.Axis(tickCount=5)
    x = alt.X("value:Q", title=quantity.head, scale=x_scale, axis=x_axis)
    tooltip = [alt.Tooltip("variant:N"), alt.Tooltip("said:N", title=quantity.name)]
    base = alt.Chart(data(means)).encode(y=y, color=color)
    runs = alt.Chart(data(dots)).encode(y=y, color=color)
    chart = alt.layer(
        base.mark_rule(strokeWidth=2).encode(
            x=alt.X("low:Q", title=quantity.head, scale=x_scale, axis=x_axis), x2=alt.X2("high:Q")
        ),
        base.mark_tick(thickness=3, size=20).encode(x=x, tooltip=tooltip),
        runs.mark_point(size=45, filled=False, strokeWidth=1.5, opacity=0.75).encode(
            x=x, tooltip=[*tooltip, alt.Tooltip("seed:Q")]
        ),
    )
    return Figure(
        id=f"fig-quantity-{k}",
        title=f"{quantity.name[0].upper()}{quantity.name[1:]}",
        caption=f"The best on top: one ring per run, a tick at the mean with its 90 % interval. "
        f"Further "
        f"{'right' if quantity.better > 0 else 'left'} is better; intervals that lie apart differ "
        "beyond the spread.",
        alt=f"{quantity.head} per variant, the best first: "
        + "; ".join(f"{row['variant']} {row['said']}" for row in means[:8])
        + ".",
        spec=spec(chart, height=max(_ROW * len(means), 60)),
        table=_values(gathered, quantity),
        half=True,
        csv={"variant": "variant", "value": quantity.head, "seed": "seed"},
    )


def _domain(values: list[float], quantity: Quantity) -> list[float]:
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or max(abs(high), 1.0) * 0.05
    low, high = low - margin, high + margin
    if quantity.bounds is not None:
        low, high = max(low, quantity.bounds[0]), min(high, quantity.bounds[1])
    return [low, high]


def _values(gathered: Gathered, quantity: Quantity) -> Table:
    rows = [
        (
            header_cell(variant.label),
            Cell(str(entry.seed)),
            cell(quantity.read(entry.view), scale=quantity.scale, bounds=quantity.bounds),
        )
        for variant in gathered.variants
        for entry in variant.counted
    ]
    return Table(
        caption=f"{quantity.head} of every finished run",
        columns=("Variant", "Seed", quantity.head),
        rows=rows,
    )


def course_figure(gathered: Gathered) -> Figure | None:
    """Draw the mean score over the learned tasks, task after task.

    Args:
        gathered: The runs.

    Returns:
        The figure; None where fewer than two tasks were learned.
    """
    kind, scale = ("accuracy", 100.0) if gathered.classifies else ("loss", 1.0)
    courses = {
        variant.label: compared_measures.course(variant, kind) for variant in gathered.variants
    }
    longest = max(map(len, courses.values()), default=0)
    if longest < 2:
        return None
    points: list[dict[str, Any]] = [
        {
            "variant": label,
            "tasks": i + 1,
            "value": (e.value or 0.0) * scale,
            "low": ((e.value or 0.0) - (e.stderr or 0.0)) * scale,
            "high": ((e.value or 0.0) + (e.stderr or 0.0)) * scale,
            "said": say(e, scale=scale),
        }
        for label, estimates in courses.items()
        for i, e in enumerate(estimates)
        if e.value is not None
    ]
    names = [variant.label for variant in gathered.variants]
    unit = ", %" if gathered.classifies else ""
    y_title = f"mean {gathered.scored_on} {kind} on tasks so far{unit}"
    x = alt.X(
        "tasks:Q",
        title="tasks learned",
        scale=alt.Scale(domain=[1, longest], nice=False),
        axis=alt.Axis(format="d", values=_counts(longest)),
    )
    color = alt.Color("variant:N", scale=task_scale(names), legend=None)
    y_scale = alt.Scale(domain=[0, 100]) if gathered.classifies else alt.Scale(zero=False)
    base = alt.Chart(data(points)).encode(x=x, color=color)
    y = alt.Y("value:Q", title=y_title, scale=y_scale, axis=alt.Axis(tickCount=5))
    tooltip = [
        alt.Tooltip("variant:N"),
        alt.Tooltip("tasks:Q", title="tasks learned"),
        alt.Tooltip("said:N", title=f"mean {kind}"),
    ]
    chart = alt.layer(
        base.mark_area(tooltip=None).encode(
            y=alt.Y("low:Q", title=y_title), y2=alt.Y2("high:Q"), opacity=dimmed("variant", 0.18)
        ),
        base.mark_line(strokeWidth=2, strokeJoin="round", point=alt.OverlayMarkDef(size=40)).encode(
            y=y, opacity=dimmed("variant")
        ),
        base.properties(name=HOVER).mark_circle(size=120, opacity=0).encode(y=y, tooltip=tooltip),
    ).add_params(focus())
    rows = [
        (
            header_cell(label),
            *(cell(e, scale=scale) for e in estimates),
            *(Cell("\u2013") for _ in range(longest - len(estimates))),
        )
        for label, estimates in courses.items()
        if estimates
    ]
    better = "higher" if gathered.classifies else "lower"
    return Figure(
        id="fig-course",
        title=f"Mean {kind} over the tasks learned so far",
        caption=f"A line that keeps its height forgets nothing and goes on learning; {better} is "
        "better. Bands: \u00b1 one standard error over seeds, or over replicas where one run is "
        "counted. Choose a variant in the key to see it alone.",
        alt=f"Line chart of mean {gathered.scored_on} {kind} over the tasks so far, one line per "
        "variant; at the end "
        + ", ".join(
            f"{r[0].text} {[c.text for c in r[1:] if c.text != MISSING][-1]}" for r in rows[:8]
        )
        + ".",
        spec=spec(chart, height=280),
        keys=_keys(names, {point["variant"] for point in points}, "line"),
        table=Table(
            caption=f"Mean {gathered.scored_on} {kind} over the tasks learned so far{unit}",
            columns=("Variant", *(f"after task {i + 1}" for i in range(longest))),
            rows=rows,
        ),
        csv={"variant": "variant", "tasks": "tasks learned", "value": y_title}
        | {"low": "minus one standard error", "high": "plus one"},
    )


def _keys(names: list[str], drawn: set[str], shape: str) -> list[Key]:
    """Make the key of the variants that are drawn; each keeps its colour."""
    return [key for key in task_keys(names, shape) if key.label in drawn]


def _counts(longest: int) -> list[int]:
    stride = -(-longest // 10)
    return list(range(1, longest + 1, stride))


def task_figure(gathered: Gathered) -> Figure | None:
    """Draw the final score on every task as a matrix, one row per variant.

    Args:
        gathered: The runs.

    Returns:
        The figure; None where the runs learn different tasks, or none finished.
    """
    table = comparison_tables.task_table(gathered)
    if table is None:
        return None
    kind, scale = ("accuracy", 100.0) if gathered.classifies else ("loss", 1.0)
    view = gathered.counted[0].view
    short = [str(j + 1) for j in range(len(view.tasks))]
    rows: list[dict[str, Any]] = []
    for variant in gathered.variants:
        for j in range(len(short)) if variant.counted else ():
            found = comparison_tables.task_estimate(variant, kind, j)
            if found is not None and found.value is not None:
                rows.append({
                    "variant": variant.label,
                    "on": short[j],
                    "task": view.label(j),
                    "value": found.value,
                    "text": f"{100 * found.value:.0f}" if scale > 1 else number(found.value, 2),
                    "said": say(found, scale=scale),
                })
    if not rows:
        return None
    top = 1.0 if gathered.classifies else max(row["value"] for row in rows) or 1.0
    for row in rows:
        row["shade"] = 0.04 + 0.96 * max(row["value"], 0.0) / top
    order = list(dict.fromkeys(row["variant"] for row in rows))
    gaps = alt.Scale(type="band", paddingInner=0.06, paddingOuter=0)
    axis = alt.Axis(orient="top", labelAngle=0, domain=False, ticks=False)
    x = alt.X("on:N", sort=short, title=f"final {kind} on task", axis=axis, scale=gaps)
    side = alt.Axis(domain=False, ticks=False, labelLimit=150)
    y = alt.Y("variant:N", sort=order, title=None, axis=side, scale=gaps)
    tooltip = [
        alt.Tooltip("variant:N"),
        alt.Tooltip("task:N"),
        alt.Tooltip("said:N", title=f"final {kind}"),
    ]
    base = alt.Chart(data(rows)).encode(x=x, y=y, tooltip=tooltip)
    opacity = alt.Opacity("shade:Q", scale=alt.Scale(domain=[0, 1], range=[0, 1]), legend=None)
    layers = [
        base.mark_rect(fill="var(--heat)", stroke=None, cornerRadius=3).encode(fillOpacity=opacity)
    ]
    if len(short) <= 16:
        ink = alt.ColorValue(
            INK, condition={"test": "datum.shade > 0.72", "value": "var(--heat-ink)"}
        )
        layers.append(base.mark_text(fontSize=12).encode(text=alt.Text("text:N"), color=ink))
    fades = "Faint" if gathered.classifies else "Strong"
    return Figure(
        id="fig-tasks",
        title=f"What is left of every task at the end{', %' if gathered.classifies else ''}",
        caption="One row per variant, one column per task in the order of learning. "
        f"{fades} cells on the left are early tasks that were forgotten; on the right, "
        "late tasks that were not learned.",
        alt=f"Matrix of final {gathered.scored_on} {kind}, one row per variant, one column per "
        f"task; the values go from {number(scale * min(r['value'] for r in rows))} to "
        f"{number(scale * max(r['value'] for r in rows))}.",
        spec=spec(alt.layer(*layers), height=34 * len(order)),
        table=table,
        csv={"variant": "variant", "task": "task", "value": f"final {kind}"},
    )


def forecast_figure(gathered: Gathered) -> Figure | None:
    """Draw measured against forecast forgetting, one mark per transition of every run.

    Args:
        gathered: The runs.

    Returns:
        The figure; None where nothing was both forecast and measured.
    """
    target, scale = ("accuracy_drop", 100.0) if gathered.classifies else ("loss_increase", 1.0)
    rows, cells = [], []
    for variant, entry, transition in _transitions(gathered):
        view = entry.view
        forecast = forecast_mean(transition, target)
        measured = measured_mean(view, transition, target)
        if forecast is None or measured is None or None in {forecast.value, measured.value}:
            continue
        label = view.label(transition["task"])
        rows.append({
            "variant": variant.label,
            "seed": entry.seed,
            "task": label,
            "forecast": (forecast.value or 0.0) * scale,
            "measured": (measured.value or 0.0) * scale,
            "f_said": say(forecast, scale=scale),
            "m_said": say(measured, scale=scale),
        })
        cells.append((
            header_cell(variant.label),
            Cell(str(entry.seed)),
            Cell(label, numeric=False),
            cell(forecast, scale=scale),
            cell(measured, scale=scale),
        ))
    if not rows:
        return None
    names = [variant.label for variant in gathered.variants]
    unit = ", points" if gathered.classifies else ""
    ends = [row[side] for row in rows for side in ("forecast", "measured")] + [0.0]
    margin = 0.06 * (max(ends) - min(ends)) or 1.0
    scale_ = alt.Scale(domain=[min(ends) - margin, max(ends) + margin], nice=False, zero=False)
    axis = alt.Axis(grid=True, tickCount=5)
    line = data([{"forecast": end, "measured": end} for end in scale_.domain])
    x = alt.X("forecast:Q", title=f"forecast{unit}", scale=scale_, axis=axis)
    y = alt.Y("measured:Q", title=f"measured{unit}", scale=scale_, axis=axis)
    marks = alt.Chart(data(rows)).encode(
        x=x,
        y=y,
        color=alt.Color("variant:N", scale=task_scale(names), legend=None),
        opacity=dimmed("variant", 0.85),
        tooltip=[
            alt.Tooltip("variant:N"),
            alt.Tooltip("seed:Q"),
            alt.Tooltip("task:N", title="new task"),
            alt.Tooltip("f_said:N", title="forecast"),
            alt.Tooltip("m_said:N", title="measured"),
        ],
    )
    diagonal = alt.Chart(line).mark_line(stroke=MUTED, strokeDash=[4, 4], strokeWidth=1)
    chart = alt.layer(diagonal.encode(x=x, y=y), marks.mark_circle(size=60)).add_params(focus())
    return Figure(
        id="fig-forecast",
        title="Forgetting forecast before training, and measured after it",
        caption="One mark per new task and run, each a mean over the earlier tasks. On the dashed "
        "line the forecast came true; above it more was forgotten than forecast.",
        alt=f"Measured against forecast forgetting, {len(rows)} marks, one per new task and run; "
        f"on average {number(sum(abs(r['forecast'] - r['measured']) for r in rows) / len(rows))} "
        "apart.",
        spec=spec(chart, height=300),
        keys=_keys(names, {row["variant"] for row in rows}, "dot"),
        table=Table(
            caption="Every new task of every finished run, means over the earlier tasks",
            columns=(
                "Variant",
                "Seed",
                "New task",
                f"Forecast{unit}",
                f"Measured{unit}",
            ),
            rows=cells,
        ),
        half=True,
        csv={
            "variant": "variant",
            "seed": "seed",
            "task": "new task",
            "forecast": f"forecast{unit}",
            "measured": f"measured{unit}",
        },
    )


def _transitions(gathered: Gathered) -> list[tuple[Variant, Any, Any]]:
    return [
        (variant, entry, transition)
        for variant in gathered.variants
        for entry in variant.counted
        for transition in entry.view.transitions
    ]
