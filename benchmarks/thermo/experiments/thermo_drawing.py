"""What the experiments' figures and tables share: series with error bars, and text tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from capacity.records.estimate import Estimate
from capacity.records.number_format import Cell, cell, header_cell
from capacity.records.numbers import MINUS, MISSING, number
from capacity.report.charts import MUTED, Figure, Key, data, log_ticks, spec
from capacity.report.tables import Table

COLORS = tuple(f"var(--own-{i})" for i in range(8))
Value = Estimate | float | None


@dataclass(frozen=True)
class Series:
    """Points of one kind.

    Attributes:
        name: For the key and the table.
        points: (x, value); an estimate is drawn with one standard error to both sides.
        color: A CSS colour.
        shape: `dot` for what was measured, `line` or `dash` for a curve, `both` for a line through
            dots.
    """

    name: str
    points: Sequence[tuple[float, Value]]
    color: str
    shape: str = "dot"


def plotted(
    series: Sequence[Series],
    *,
    anchor: str,
    title: str,
    caption: str,
    alt_text: str,
    x: str,
    y: str,
    log_x: bool = False,
    log_y: bool = False,
    one: bool = False,
    one_label: str = "1, the speed limit",
    half: bool = False,
    height: int = 260,
) -> Figure:
    """Draw series over one axis.

    Args:
        series: What is drawn.
        anchor: Of the figure.
        title: Its title.
        caption: What is to be seen.
        alt_text: The same for somebody who cannot see it.
        x: Title of the horizontal axis, and of the table's first column.
        y: Title of the vertical axis.
        log_x: Whether the horizontal axis is logarithmic.
        log_y: Whether the vertical one is.
        one: Whether a dashed line marks y = 1.
        one_label: What that line is.
        half: Whether the figure takes half of the column.
        height: Of the plotting area, px.

    Returns:
        The figure with its data as a table.
    """
    rows = {s.name: _rows(s, log_y) for s in series}
    xs = [row["x"] for part in rows.values() for row in part]
    ys = [row[k] for part in rows.values() for row in part for k in ("low", "high")]
    axis_x = alt.X("x:Q", title=x, **_scale(xs, log=log_x, tight=True))
    axis_y = _scale([*ys, *([1.0] if one else [])], log=log_y)
    layers: list[alt.Chart] = []
    if one:
        rule = alt.Chart(data([{"value": 1.0}])).mark_rule(stroke=MUTED, strokeDash=[4, 4])
        layers.append(rule.encode(y=alt.Y("value:Q", title=y, **axis_y)))
    for s in series:
        base = alt.Chart(data(rows[s.name])).encode(x=axis_x)
        up = alt.Y("value:Q", title=y, **axis_y)
        if s.shape in {"line", "dash", "both"}:
            dash = {"strokeDash": [6, 4]} if s.shape == "dash" else {}
            layers.append(base.mark_line(stroke=s.color, strokeWidth=2, **dash).encode(y=up))
        if s.shape in {"dot", "both"}:
            bar = base.mark_rule(stroke=s.color, strokeWidth=1.5)
            layers.append(bar.encode(y=alt.Y("low:Q", title=y, **axis_y), y2="high:Q"))
            layers.append(base.mark_circle(color=s.color, size=42, opacity=1).encode(y=up))
    shapes = {"both": "line"}
    keys = [Key(s.name, s.color, shapes.get(s.shape, s.shape)) for s in series]
    return Figure(
        id=anchor,
        title=title,
        caption=caption,
        alt=alt_text,
        spec=spec(alt.layer(*layers), height=height),
        keys=[*keys, *([Key(one_label, MUTED, "dash")] if one else [])],
        half=half,
        table=series_table(title, x, series),
    )


def series_table(caption: str, x: str, series: Sequence[Series], most: int = 40) -> Table:
    """List what a figure draws, one row per x."""
    found: dict[float, dict[str, Value]] = {}
    for s in series:
        for at, value in s.points:
            found.setdefault(float(f"{at:.6g}"), {})[s.name] = value
    xs = sorted(found)
    step = max(1, math.ceil(len(xs) / most))
    return Table(
        caption=caption,
        columns=(x, *(s.name for s in series)),
        rows=[
            (header_cell(number(at, 4)), *(entry(found[at].get(s.name)) for s in series))
            for at in xs[::step]
        ],
        remark="Mean ± standard error where there is one.",
    )


def entry(value: Value) -> Cell:
    """Make a table entry of an estimate or of an exact number; notes stay with the record."""
    if isinstance(value, Estimate):
        made = cell(value)
        return Cell(made.text, status=made.status)
    return Cell(MISSING if value is None else number(value, 4))


def printed(table: Table) -> list[str]:
    """Set a table in plain text."""
    heads = [head.replace("::", ": ") for head in table.columns]
    body = [[c.text + (f" ({c.status})" if c.status else "") for c in row] for row in table.rows]
    widths = [max(len(row[i]) for row in [heads, *body]) for i in range(len(heads))]
    lines = [table.caption, "  ".join(h.rjust(w) for h, w in zip(heads, widths, strict=True))]
    lines += ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in body]
    return [*lines, *([table.remark] if table.remark else []), ""]


def value_of(estimate: Estimate) -> float:
    """Read the value of an estimate that has one."""
    if estimate.value is None:
        raise ValueError(f"the estimate has no value ({estimate.status}: {estimate.note})")
    return estimate.value


def deviation(estimate: Estimate, truth: float) -> float:
    """How many standard errors an estimate is off its truth."""
    if estimate.stderr is None or estimate.stderr == 0:
        raise ValueError("the estimate has no standard error to measure its deviation by")
    return (value_of(estimate) - truth) / estimate.stderr


def signed(value: float) -> str:
    """Write a number of standard errors."""
    return f"{value:.1f}".replace("-", MINUS) if abs(value) >= 0.05 else "0.0"


def _rows(series: Series, log: bool) -> list[dict[str, Any]]:
    rows = []
    for x, value in series.points:
        middle = value.value if isinstance(value, Estimate) else value
        if middle is None or (log and middle <= 0):
            continue
        error = value.stderr or 0.0 if isinstance(value, Estimate) else 0.0
        # Half an error bar may leave a logarithmic axis; it is cut at a tenth of the value.
        low = max(middle - error, middle / 10) if log else middle - error
        rows.append({"x": float(x), "value": middle, "low": low, "high": middle + error})
    return rows


def _scale(values: Sequence[float], *, log: bool, tight: bool = False) -> dict[str, Any]:
    low, high = min(values), max(values)
    if log:
        scale = alt.Scale(type="log", nice=False, domain=[low / 1.15, high * 1.15])
        said = "datum.value < 0.001 || datum.value >= 1e5 ? '.0e' : '~g'"
        ticks = log_ticks(low / 1.15, high * 1.15)
        return {
            "scale": scale,
            "axis": alt.Axis(values=ticks, labelExpr=f"format(datum.value, {said})"),
        }
    room = 0.03 * (high - low or 1.0)
    domain = (
        [low - room, high + room]
        if tight
        else [min(low - room, 0.0) if low < 0 else 0, high + room]
    )
    if not tight and low > 0.6 * high:
        domain = [low - 2 * room, high + 2 * room]
    return {
        "scale": alt.Scale(domain=domain, nice=False, zero=False),
        "axis": alt.Axis(tickCount=6),
    }
