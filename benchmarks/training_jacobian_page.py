"""The page of `training_jacobian.py`: the published picture as figures, tables and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt
import torch
from training_jacobian_study import (
    CHAOTIC,
    LABELS,
    MOVED,
    NOISE,
    PLAIN,
    REGIONS,
    SEED,
    STABLE,
    TIGHT,
    Findings,
    Outcome,
    compared,
    counts,
    region_of,
)
from training_jacobian_words import facts, sentences

from capacity.records.number_format import Cell, header_cell
from capacity.records.numbers import number
from capacity.report.charts import MUTED, Figure, Key, data, spec
from capacity.report.shell import page
from capacity.report.tables import Table

_COLORS = {
    PLAIN: "var(--own-0)",
    SEED: "var(--own-2)",
    LABELS: "var(--own-1)",
    NOISE: "var(--own-3)",
}
_POINTS, _ROWS = 240, 40
_AXIS_X = alt.Axis(tickCount=6, format="d")


def write(findings: Findings, path: Path) -> None:
    """Write the page: one file, no script, nothing to fetch."""
    figures = {
        "spectrum": spectrum(findings),
        "alignment": alignment(findings.outcomes[0]),
        "distance": distance(findings),
        **{region: overlap(findings, region) for region in REGIONS},
    }
    content = page(
        "training_jacobian_page.html",
        list(figures.values()),
        folder=Path(__file__).parent,
        scripts=False,
        size=len(findings.outcomes[0].sigma),
        told=sentences(findings),
        facts=facts(findings),
        figures=figures,
        regions=regions_table(findings),
        shared=overlap_table(findings),
    )
    path.write_text(content, encoding="utf-8")


def spectrum(findings: Findings) -> Figure:
    rows = [
        {"training": o.name, "rank": rank, "value": max(value, 1e-4)}
        for o in findings.outcomes
        for rank, value in _sampled(o.sigma)
    ]
    return _lines(
        rows,
        findings,
        id="fig-spectrum",
        title="Singular values of J",
        y="singular value, logarithmic",
        rule=1.0,
        caption="Left of the plateau training amplifies a difference between two starts, right of "
        "it training forgets it; on the plateau at 1 the difference is carried through unchanged. "
        "Values below 0.0001 are drawn there.",
        alt="Singular values of J against their rank on a logarithmic axis, one line per training: "
        "a steep start, a plateau at 1 and a fall towards zero.",
        table=_series_table("Singular values of J", findings, lambda o: o.sigma),
    )


def distance(findings: Findings) -> Figure:
    gaps = {o.name: [max(abs(s - 1), 1e-7) for s in o.sigma] for o in findings.outcomes}
    rows = [
        {"training": name, "rank": rank, "value": value}
        for name, values in gaps.items()
        for rank, value in _sampled(values)
    ]
    return _lines(
        rows,
        findings,
        id="fig-distance",
        title="Distance of the singular values from 1",
        y="|\u03c3 \u2212 1|, logarithmic",
        caption="The width of the valley is the size of the bulk: compare what becomes of it with "
        "shuffled labels and with white noise in place of the images.",
        alt="Distance of each singular value from 1 against its rank on a logarithmic axis: one "
        "valley per training, as wide as its bulk.",
        table=_series_table("|\u03c3 \u2212 1|", findings, lambda o: gaps[o.name]),
    )


def alignment(plain: Outcome) -> Figure:
    size = len(plain.cosine)
    width = max(size // _POINTS, 1)
    rows: list[dict[str, Any]] = []
    for first in range(0, size, width):
        part = torch.tensor(plain.cosine[first : first + width])
        low, middle, high = part.quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()
        rows.append({"rank": first + len(part) / 2, "low": low, "value": middle, "high": high})
    x = alt.X("rank:Q", title="rank", axis=_AXIS_X, scale=alt.Scale(domain=[0, size], nice=False))
    title = "|\u27e8u, v\u27e9|"
    base = alt.Chart(data(rows)).encode(x=x)
    scale = alt.Scale(domain=[0, 1])
    chart = alt.layer(
        base.mark_area(fill=_COLORS[PLAIN], fillOpacity=0.25).encode(
            y=alt.Y("low:Q", title=title, scale=scale), y2="high:Q"
        ),
        base.mark_line(stroke=_COLORS[PLAIN], strokeWidth=2).encode(
            y=alt.Y("value:Q", title=title, scale=scale)
        ),
    )
    return Figure(
        id="fig-alignment",
        title="Alignment of left and right singular vectors",
        caption=f"1: the direction leaves training as it entered. Line: median of {width} "
        "neighbouring ranks; band: their middle nine tenths.",
        alt="Cosine between left and right singular vectors against rank: close to 1 in the bulk, "
        "lower at the chaotic end, falling to near 0 at the stable end.",
        spec=spec(chart, height=240),
        keys=[Key("median", _COLORS[PLAIN], "line"), Key("5 to 95 %", _COLORS[PLAIN], "band")],
        table=Table(
            caption="|\u27e8u, v\u27e9| of neighbouring ranks",
            columns=("Rank", "5 %", "Median", "95 %"),
            rows=[
                (
                    header_cell(number(row["rank"], 5)),
                    *(Cell(number(row[name], 3)) for name in ("low", "value", "high")),
                )
                for row in rows[:: max(len(rows) // _ROWS, 1)]
            ],
        ),
    )


def overlap(findings: Findings, region: str) -> Figure:
    size = len(findings.outcomes[0].sigma)
    names = list(findings.overlaps)
    rows = [
        {"training": name, "k": k, "value": value}
        for name in names
        for k, value in zip(findings.sizes, findings.overlaps[name][region], strict=True)
    ]
    which = {
        "chaotic": "with the largest singular values",
        "bulk": "with singular values nearest to 1",
        "stable": "with the smallest singular values",
    }[region]
    scale = alt.Scale(domain=[0, 1])
    x = alt.X(
        "k:Q",
        title="number of directions k",
        axis=alt.Axis(tickCount=5, format="d"),
        scale=alt.Scale(domain=[0, size], nice=False),
    )
    y = alt.Y("value:Q", title="overlap", scale=scale)
    chance = [{"k": 0, "value": 0.0}, {"k": size, "value": 1.0}]
    chart = alt.layer(
        alt.Chart(data(chance)).mark_line(stroke=MUTED, strokeDash=[4, 4]).encode(x=x, y=y),
        alt
        .Chart(data(rows))
        .mark_line(strokeWidth=2)
        .encode(x=x, y=y, color=_color(names), detail="training:N"),
    )
    step = max(len(findings.sizes) // _ROWS, 1)
    return Figure(
        id=f"fig-overlap-{region}",
        title=f"Shared directions: {region}",
        caption=f"Overlap between the k directions {which} of the plain training and of another: "
        "the mean squared cosine of their principal angles. Dashed: two random subspaces.",
        alt=f"Overlap of {region} subspaces against their dimension, one line per training, and "
        "the straight line of random subspaces.",
        spec=spec(chart, height=260 if region == "bulk" else 220),
        keys=[*_keys(names), Key("random subspaces", MUTED, "dash")],
        half=region != "bulk",
        table=Table(
            caption=f"Overlap of the k {region} directions with the plain training's",
            columns=("k", *names, "random"),
            rows=[
                (
                    header_cell(str(findings.sizes[i])),
                    *(Cell(number(findings.overlaps[name][region][i], 3)) for name in names),
                    Cell(number(findings.sizes[i] / size, 3)),
                )
                for i in range(0, len(findings.sizes), step)
            ],
        ),
    )


def regions_table(findings: Findings) -> Table:
    def row(o: Outcome) -> tuple[Cell, ...]:
        n = counts(o.sigma)
        cosines = [float(region_of(o, o.cosine, r).median()) for r in REGIONS]
        return (
            header_cell(o.name),
            Cell(f"{o.loss:.4f}"),
            Cell(f"{100 * o.accuracy:.1f} %"),
            Cell(number(o.sigma[0], 4)),
            *(Cell(str(n[key])) for key in ("chaotic", "bulk", "stable", "core")),
            *(Cell(f"{c:.3f}") for c in cosines),
            Cell(str(o.moved)),
        )

    return Table(
        caption="The four trainings",
        columns=(
            "Training",
            "Loss",
            "Test accuracy",
            "\u03c3 largest",
            f"Singular values::> {CHAOTIC}",
            f"Singular values::{STABLE} to {CHAOTIC}",
            f"Singular values::< {STABLE}",
            f"Singular values::1 \u00b1 {TIGHT}",
            "Median |\u27e8u, v\u27e9|::chaotic",
            "Median |\u27e8u, v\u27e9|::bulk",
            "Median |\u27e8u, v\u27e9|::stable",
            "rank(J \u2212 1)",
        ),
        rows=[row(o) for o in findings.outcomes],
        remark="Loss on the training data; accuracy on the same 197 images for all. "
        f"rank(J \u2212 1) counts singular values of J \u2212 1 above {MOVED}.",
    )


def overlap_table(findings: Findings) -> Table:
    names = [*findings.overlaps, "random"]
    return Table(
        caption="Overlap with the plain training's subspace of the same kind",
        columns=("Region", "k", *names),
        rows=[
            (
                header_cell(region),
                Cell(str(size)),
                *(Cell(f"{row[name]:.3f}") for name in names),
            )
            for region, size, row in compared(findings)
        ],
        remark="k is the size of the plain training's region, to the next 25; for the bulk, of its "
        f"core within {TIGHT} of 1.",
    )


def _sampled(values: Sequence[float]) -> list[tuple[int, float]]:
    step = max(len(values) // _POINTS, 1)
    return [(i + 1, values[i]) for i in sorted({*range(0, len(values), step), len(values) - 1})]


def _color(names: Sequence[str]) -> alt.Color:
    scale = alt.Scale(domain=list(names), range=[_COLORS[name] for name in names])
    return alt.Color("training:N", scale=scale, legend=None)


def _keys(names: Sequence[str]) -> list[Key]:
    return [Key(name, _COLORS[name], "line") for name in names]


def _lines(
    rows: list[dict[str, Any]],
    findings: Findings,
    *,
    y: str,
    rule: float | None = None,
    **about: Any,
) -> Figure:
    """One line per training over the ranks, on a logarithmic axis."""
    names = [o.name for o in findings.outcomes]
    size = len(findings.outcomes[0].sigma)
    scale = alt.Scale(type="log", nice=False)
    powers = [10.0**e for e in range(-7, 3)]
    low, high = (f(row["value"] for row in rows) for f in (min, max))
    # Vega's own "~g" writes 0.000001 and then 1e-7.
    said = "format(datum.value, datum.value < 0.001 ? '.0e' : '~g')"
    axis = alt.Axis(labelExpr=said, values=[p for p in powers if low * 0.99 <= p <= high])
    x = alt.X("rank:Q", title="rank", axis=_AXIS_X, scale=alt.Scale(domain=[0, size], nice=False))
    layers: list[alt.Chart] = []
    if rule is not None:
        line = alt.Chart(data([{"one": rule}])).mark_rule(stroke=MUTED, strokeDash=[4, 4])
        layers.append(line.encode(y=alt.Y("one:Q", scale=scale)))
    layers.append(
        alt
        .Chart(data(rows))
        .mark_line(strokeWidth=2)
        .encode(
            x=x,
            y=alt.Y("value:Q", title=y, scale=scale, axis=axis),
            color=_color(names),
        )
    )
    return Figure(spec=spec(alt.layer(*layers), height=300), keys=_keys(names), **about)


def _series_table(caption: str, findings: Findings, values: Any) -> Table:
    columns = [values(o) for o in findings.outcomes]
    size = len(columns[0])
    picked = sorted({*range(0, size, max(size // _ROWS, 1)), size - 1})
    return Table(
        caption=caption,
        columns=("Rank", *(o.name for o in findings.outcomes)),
        rows=[
            (header_cell(str(i + 1)), *(Cell(number(column[i], 4)) for column in columns))
            for i in picked
        ],
    )
