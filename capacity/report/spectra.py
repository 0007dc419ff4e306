"""The whole spectrum of the training Jacobian: its three parts, and what was not resolved."""

from __future__ import annotations

from typing import Any

import altair as alt

from capacity.records.number_format import Cell, header_cell, text_cell
from capacity.records.numbers import number, plural, with_error
from capacity.report.charts import MUTED, Figure, Key, data, log_ticks, spec
from capacity.report.tables import TaskTable
from capacity.results.view import Record, RunView

_PARTS = {
    "shrunk": "var(--forecast)",
    "left alone": "var(--muted)",
    "stretched": "var(--measured)",
}
_LEAST = 0.3
"""Where a logarithmic axis of counts begins: a class that holds less than one value is empty."""


def composed_figure(view: RunView) -> Figure | None:
    """Draw how many singular values lie where, over all tasks, else over the last one.

    Args:
        view: The run.

    Returns:
        The figure; None where nothing was counted.
    """
    found = density_source(view)
    if found is None:
        return None
    subject, transport = found
    parts, rows = transport["parts"], density_classes(transport)
    if not any(row["count"] >= _LEAST for row in rows):
        return None
    top = max(row["high"] for row in rows)
    domain = [_LEAST, 1.6 * top]
    held = [row for row in rows if row["count"] >= _LEAST]
    # Classes that hold nothing at the ends would push the others together; the table has them.
    ends = [min(0.3, *(row["from"] for row in held)), max(3.0, *(row["to"] for row in held))]
    x_scale = alt.Scale(type="log", domain=ends, nice=False)
    y_scale = alt.Scale(type="log", domain=domain, nice=False)
    edges = [row["to"] for row in rows[:-1] if ends[0] <= row["to"] <= ends[1]]
    x_axis = alt.Axis(format="~g", values=_readable(edges), labelOverlap="greedy")
    x = alt.X("from:Q", scale=x_scale, title="singular value of J, logarithmic", axis=x_axis)
    y_axis = alt.Axis(format="~s", values=log_ticks(1.0, domain[1]))
    title = "singular values in the class"
    base = alt.Chart(data(held))
    shade = alt.Scale(domain=list(_PARTS), range=list(_PARTS.values()))
    tooltip = [
        alt.Tooltip("between:N", title="singular values"),
        alt.Tooltip("part:N", title="part"),
        alt.Tooltip("said:N", title="how many"),
    ]
    bars = base.encode(
        x=x,
        x2=alt.X2("to:Q"),
        y=alt.Y("floor:Q", scale=y_scale, title=title, axis=y_axis),
        y2=alt.Y2("count:Q"),
        tooltip=tooltip,
    )
    chart = alt.layer(
        bars
        .transform_filter("datum.resolved")
        .mark_rect(fillOpacity=0.75, stroke="var(--page)", strokeWidth=1, clip=True)
        .encode(fill=alt.Fill("part:N", scale=shade, legend=None)),
        bars
        .transform_filter("!datum.resolved")
        .mark_rect(
            fillOpacity=0.14, strokeDash=[4, 3], strokeWidth=1.4, strokeOpacity=0.9, clip=True
        )
        .encode(
            fill=alt.Fill("part:N", scale=shade, legend=None),
            stroke=alt.Stroke("part:N", scale=shade, legend=None),
        ),
        base
        .transform_filter("datum.spread")
        .mark_rule(strokeWidth=1.3, clip=True)
        .encode(
            x=alt.X("middle:Q", scale=x_scale),
            y=alt.Y("low:Q", scale=y_scale, title=title, axis=y_axis),
            y2=alt.Y2("high:Q"),
        ),
        alt
        .Chart(data([{"one": 1}]))
        .mark_rule(stroke=MUTED, strokeDash=[2, 3])
        .encode(x=alt.X("one:Q", scale=x_scale)),
    )
    unresolved = sum(not row["resolved"] for row in rows)
    high, low = f"{parts['chaotic_above']:g}", f"{parts['stable_below']:g}"
    return Figure(
        id="fig-parts",
        title=f"The spectrum of J of {subject}, in its three parts",
        caption=f"How many singular values lie in each class: stretched above {high}, left alone "
        f"around 1, shrunk up to {low}. Nearly all directions are left as they were; both tails "
        "are what training does. "
        + (
            f"{unresolved} of {plural(len(rows), 'class').replace('classs', 'classes')} (dashed "
            "outline) are not resolved: more sweeps would tell their counts. "
            if unresolved
            else "Every class is resolved. "
        )
        + "Bars: \u00b1 one standard error. Outermost classes are open.",
        alt=f"Histogram of the singular values of J of {subject}: "
        + ", ".join(
            f"{number(parts[key]['value'], 3)} {name}"
            for key, name in (
                ("stable", "shrunk"),
                ("bulk", "left alone"),
                ("chaotic", "stretched"),
            )
            if parts[key]["value"] is not None
        )
        + ".",
        spec=spec(chart, height=230),
        keys=[
            *(Key(name, color_, "square") for name, color_ in _PARTS.items()),
            *([Key("not resolved", MUTED, "outline")] if unresolved else []),
            Key("\u03c3 = 1: no change", MUTED, "dash"),
        ],
        table=TaskTable(
            caption=f"Singular values of J of {subject} per class",
            columns=("Singular values", "Part", "How many", "Resolved"),
            rows=[
                (
                    header_cell(row["between"]),
                    text_cell(row["part"]),
                    Cell(row["said"].removesuffix(", not resolved")),
                    text_cell("yes" if row["resolved"] else "not resolved"),
                )
                for row in rows
            ],
            remark="The first class starts at 0, the last one has no upper end.",
        ),
        csv={
            "from": "from",
            "to": "to",
            "part": "part",
            "count": "count",
            "low": "minus one standard error",
            "high": "plus one",
            "resolved": "resolved",
        },
    )


def density_source(view: RunView) -> tuple[str, Record] | None:
    """Pick whose spectrum to draw: of all tasks together, else of the last one that was counted.

    Args:
        view: The run.

    Returns:
        Its name in words and its spectrum; None where nothing was counted.
    """
    composed = view.result.get("composed")
    if composed:
        return f"all {plural(int(composed['tasks']), 'task')}", composed
    for i, transport in reversed(list(enumerate(view.transports))):
        if transport is not None:
            return view.spoken(i), transport
    return None


def density_classes(transport: Record) -> list[dict[str, Any]]:
    """List the classes of a spectrum.

    Args:
        transport: The spectrum, as the result has it.

    Returns:
        Per class its ends, its part, its count with an error, and whether that is resolved.
    """
    density, parts = transport["density"], transport["parts"]
    above, below = float(parts["chaotic_above"]), float(parts["stable_below"])
    edges = [float(edge) for edge in density["edges"]]
    first, last = edges[0] / 3, edges[-1] * 3
    bounds = [first, *edges, last]
    rows = []
    for k, count in enumerate(density["counts"]):
        start, end = bounds[k], bounds[k + 1]
        error = None if density["stderr"] is None else density["stderr"][k]
        value = max(float(count), 0.0)
        error = 0.0 if error is None else float(error)
        part = "stretched" if start >= above else "shrunk" if end <= below else "left alone"
        resolved = bool(density["resolved"][k])
        said = with_error(value, error) if error else number(round(value, 6))
        between = f"{start:g} to {end:g}"
        if k == 0:
            between = f"up to {end:g}"
        elif k == len(density["counts"]) - 1:
            between = f"above {start:g}"
        rows.append({
            "from": start,
            "to": end,
            "middle": (start * end) ** 0.5,
            "between": between,
            "part": part,
            "count": value,
            "floor": _LEAST,
            "low": max(value - error, _LEAST),
            "high": max(value + error, _LEAST),
            "spread": error > 0,
            "resolved": resolved,
            "said": said + ("" if resolved else ", not resolved"),
        })
    return rows


def _readable(edges: list[float]) -> list[float]:
    """Leave edges out that would stand on top of each other; 1 itself is marked by a line."""
    kept: list[float] = []
    for edge in edges:
        if not kept or edge / kept[-1] > 1.5 or edge >= 1:
            kept.append(edge)
    return kept
