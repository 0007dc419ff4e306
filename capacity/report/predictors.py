"""The forecast beside simpler predictors: how well each ranks what was measured."""

from __future__ import annotations

from typing import Any

import altair as alt

from capacity.records.estimate import Estimate
from capacity.records.number_format import correlation
from capacity.records.numbers import clip, number
from capacity.report.charts import FORECAST, MUTED, Figure, Key, data, spec
from capacity.report.tables import CONTROL_NAMES, drop_target, score_table
from capacity.results.view import Record, RunView, pick


def predictor_figure(view: RunView) -> Figure | None:
    """Draw the rank correlation of every predictor with the measured forgetting.

    Args:
        view: The run.

    Returns:
        The figure; None where no correlation is defined.
    """
    target, _, _ = drop_target(view)
    scores: Record = view.result.get("scores") or {}
    found: list[tuple[str, Estimate | None]] = [("forecast", pick(scores, target, "spearman"))]
    for name, score in (scores.get("controls") or {}).items():
        label = CONTROL_NAMES.get(name, name.replace("_", " "))
        found.append((label, pick(score, target)))
    rows: list[dict[str, Any]] = []
    for label, rank in found:
        if rank is None or rank.value is None:
            continue
        low, high = clip(rank.interval or (rank.value, rank.value), (-1.0, 1.0))
        rows.append({
            "predictor": label,
            "kind": "forecast" if label == "forecast" else "simpler",
            "value": rank.value,
            "low": low,
            "high": high,
            "said": correlation(rank),
        })
    if not rows:
        return None
    order = [row["predictor"] for row in rows]
    # Of equals, or of what cannot be ranked, the forecast stays on top.
    order = [order[0], *sorted(order[1:], key=lambda label: -abs(_value(rows, label)))]
    y = alt.Y(
        "predictor:N",
        sort=order,
        title=None,
        axis=alt.Axis(grid=True, gridDash=[1, 3], labelLimit=190),
    )
    title = "Spearman's rank correlation"
    x_scale = alt.Scale(domain=[-1, 1], nice=False)
    x_axis = alt.Axis(values=[-1, -0.5, 0, 0.5, 1], grid=True, format="~f")
    color = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=["forecast", "simpler"], range=[FORECAST, MUTED]),
        legend=None,
    )
    base = alt.Chart(data(rows)).encode(y=y, color=color)
    zero = alt.Chart(data([{"zero": 0}])).mark_rule(stroke=MUTED, strokeDash=[4, 4])
    chart = alt.layer(
        zero.encode(x=alt.X("zero:Q", scale=x_scale)),
        base.mark_rule(strokeWidth=2).encode(
            x=alt.X("low:Q", scale=x_scale, title=title, axis=x_axis), x2=alt.X2("high:Q")
        ),
        base.mark_point(filled=True, size=85, opacity=1).encode(
            x=alt.X("value:Q", scale=x_scale, title=title, axis=x_axis),
            shape=alt.Shape(
                "kind:N",
                scale=alt.Scale(domain=["forecast", "simpler"], range=["circle", "square"]),
                legend=None,
            ),
            tooltip=[
                alt.Tooltip("predictor:N"),
                alt.Tooltip("said:N", title="rank correlation"),
            ],
        ),
    )
    best = max(rows[1:], key=lambda row: abs(row["value"]), default=None)
    beside = (
        f", {best['predictor']} {number(best['value'], 2)}, the best of the simpler ones"
        if best
        else ""
    )
    first = rows[0]
    return Figure(
        id="fig-predictors",
        title="The forecast beside simpler predictors",
        caption="How well each predictor orders the pairs of a new and an old task by what was "
        "then forgotten: 1 is the right order, 0 none. A simpler predictor far to the left orders "
        "them backwards. Lines: 90 % intervals, too narrow where pairs of one sequence depend on "
        "each other.",
        alt=f"Rank correlations with measured forgetting: {first['predictor']} "
        f"{number(first['value'], 2)}{beside}.",
        spec=spec(chart, height=max(34 * len(rows), 60)),
        keys=[Key("forecast", FORECAST, "dot"), Key("simpler predictor", MUTED, "square")],
        table=score_table(view),
        csv={"predictor": "predictor", "value": title}
        | {"low": "90 % interval from", "high": "to"},
    )


def _value(rows: list[dict[str, Any]], label: str) -> float:
    return float(next(row["value"] for row in rows if row["predictor"] == label))
