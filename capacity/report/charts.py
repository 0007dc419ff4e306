"""What every chart shares: colours, Vega-Lite configuration, the static picture, the figure record.

Colours are CSS variables all the way into the SVG, so one picture serves light, dark and print.
Keys (legends) are HTML beside the chart: they wrap on a narrow screen and take the keyboard.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt

from capacity.base.printable import visible_record
from capacity.report import renderer
from capacity.report.pictures import compact
from capacity.report.tables import Table

WIDE, HALF, NARROW = 940, 450, 340
"""Widths of the static pictures, px: full column, half column, telephone."""

INK, MUTED, RULE, SURFACE = "var(--ink)", "var(--muted)", "var(--rule)", "var(--surface)"
FORECAST, MEASURED = "var(--forecast)", "var(--measured)"

CONFIG: dict[str, Any] = {
    # The figure around the chart carries the description; one per mark would only be noise.
    "aria": False,
    "background": None,
    # The page's own font, so that what is measured is what is shown.
    "font": 'system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "Noto Sans", '
    '"Liberation Sans", sans-serif',
    "view": {"stroke": None},
    "axis": {
        "domainColor": RULE,
        "tickColor": RULE,
        "gridColor": RULE,
        "gridOpacity": 0.6,
        "labelColor": MUTED,
        "titleColor": MUTED,
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titlePadding": 8,
        "labelPadding": 6,
        "tickSize": 4,
        "labelLimit": 190,
    },
    "axisX": {"grid": False},
    "axisY": {"domain": False, "ticks": False},
    "text": {"fill": INK, "fontSize": 12},
    "rule": {"stroke": INK},
    "legend": {"disable": True},
}

HOVER = "hover"
"""Name of a layer that only answers the pointer."""

_LONG_SCALE = 24
_WORTH = 8
"""Rows from which on packing them pays."""


@dataclass(frozen=True)
class Key:
    """One entry of the key beside a chart.

    Attributes:
        label: What it stands for.
        color: A CSS colour.
        shape: `line`, `dot`, `ring`, `bar`, `band`, `diamond`, `square`, `outline`, `tick`
            or `dash`.
        focus: Value of the chart's `focus` parameter that shows this entry alone; None for none.
    """

    label: str
    color: str
    shape: str = "dot"
    focus: str | None = None


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A chart with everything around it.

    Attributes:
        id: Anchor in the page.
        title: What is shown, in words.
        caption: What to see in it.
        alt: The same for somebody who cannot see it.
        spec: A Vega-Lite specification without a width.
        keys: The key.
        table: The data.
        half: Whether it takes half of the column.
        csv: Column heads of the download by field of the data; empty takes every field as it is.
    """

    id: str
    title: str
    caption: str
    alt: str
    spec: dict[str, Any]
    table: Table
    keys: Sequence[Key] = field(default=())
    half: bool = False
    csv: Mapping[str, str] = field(default_factory=dict)

    def script(self) -> dict[str, Any]:
        """Give what the page's script needs to draw the figure and to hand out its data.

        Returns:
            Specification and heads of the download.
        """
        return {"spec": _packed(self.spec), "csv": dict(self.csv)}

    def svg(self, *, narrow: bool) -> str:
        """Draw the figure without a browser.

        Args:
            narrow: Draw it for a telephone.

        Returns:
            An `<svg>` element whose ids are unique in the page.
        """
        width = NARROW if narrow else HALF if self.half else WIDE
        return compact(self.drawn(width), f"{self.id}-{'narrow' if narrow else 'wide'}")

    def drawn(self, width: int) -> str:
        """Draw the figure as Vega does.

        Args:
            width: Of the picture, px.

        Returns:
            An `<svg>` element.
        """
        # What only answers the pointer has no place in a picture.
        layers = [part for part in self.spec["layer"] if part.get("name") != HOVER]
        return renderer.draw({**self.spec, "layer": layers, "width": width})


def _packed(part: Any) -> Any:
    """Write rows as columns, and texts that repeat once: most bytes of a long run are its rows."""
    if isinstance(part, dict):
        return {key: _packed(value) for key, value in part.items()}
    if not isinstance(part, list):
        return part
    if len(part) < _WORTH or not all(isinstance(row, dict) for row in part):
        return [_packed(value) for value in part]
    names = list(part[0])
    if any(list(row) != names for row in part):
        return part
    columns = {}
    for name in names:
        column = [row[name] for row in part]
        words = list(dict.fromkeys(v for v in column if isinstance(v, str)))
        if words and 2 * len(words) < len(column) and all(isinstance(v, str) for v in column):
            place = {word: k for k, word in enumerate(words)}
            columns[name] = {"words": words, "at": [place[value] for value in column]}
        else:
            columns[name] = {"plain": column}
    return {"packed": columns}


def task_color(i: int) -> str:
    """Name a task's colour.

    Args:
        i: Index of the task.

    Returns:
        A CSS colour; the page defines the variables.
    """
    return f"var(--task-{i})"


def task_keys(labels: Sequence[str], shape: str = "line") -> list[Key]:
    """Make the key of a chart that colours by task.

    Args:
        labels: Labels of the tasks.
        shape: Shape of the swatches.

    Returns:
        One entry per task, each of which can be focused.
    """
    return [Key(label, task_color(i), shape, label) for i, label in enumerate(labels)]


def task_scale(labels: Sequence[str]) -> alt.Scale:
    """Map labels of tasks to their colours.

    Args:
        labels: Labels of the tasks.

    Returns:
        A scale without a legend.
    """
    colors = [task_color(i) for i in range(len(labels))]
    return alt.Scale(domain=list(labels), range=colors)


class _Rows(alt.Data):
    """Inline data that Altair, which copies a chart at every change, leaves where they are."""

    def __deepcopy__(self, memo: object) -> _Rows:
        return self

    def to_dict(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {"values": self["values"]}


def data(rows: Sequence[dict[str, Any]]) -> alt.Data:
    """Hand rows to Altair as they are.

    Args:
        rows: Plain dictionaries.

    Returns:
        Inline data.
    """
    return _Rows(values=[{name: _short(value) for name, value in row.items()} for row in rows])


def _short(value: object) -> object:
    """Drop digits that no screen shows; they are most of the bytes of a long run."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def focus() -> alt.Parameter:
    """Make the parameter that the key sets: the label to show alone, or null.

    Returns:
        The parameter.
    """
    return alt.param(name="focus", value=None)


def dimmed(name: str, full: float = 1.0) -> Any:
    """Fade what is not in focus.

    Args:
        name: Field that holds the label.
        full: Opacity otherwise.

    Returns:
        An opacity channel.
    """
    chosen = f"focus == null || datum['{name}'] == focus"
    # As `alt.condition`, whose dictionary Altair would take long to find the class of.
    return alt.OpacityValue(full * 0.12, condition={"test": chosen, "value": full})


def spec(chart: alt.Chart | alt.LayerChart, *, height: int) -> dict[str, Any]:
    """Finish a chart: our configuration, nobody's theme, width left to whoever draws it.

    Args:
        chart: The chart.
        height: Height of the plotting area, px.

    Returns:
        The specification.
    """
    # Altair's check of a chart takes a third of the time of a page: the tests do that. The theme
    # that a user may have enabled must not reach the report.
    layers = chart if isinstance(chart, alt.LayerChart) else alt.layer(chart)
    with alt.theme.enable("none"):
        made: dict[str, Any] = visible_record(
            layers.properties(height=height).to_dict(validate=False)
        )
    # The version in $schema is Altair's; the library that draws comes from vl-convert.
    made.pop("$schema", None)
    _share_data(made)
    _drop_unseen(made)
    made["config"] = CONFIG
    made["autosize"] = {"type": "fit-x", "contains": "padding"}
    made["padding"] = {"left": 2, "right": 8, "top": 8, "bottom": 2}
    return made


def _drop_unseen(made: dict[str, Any]) -> None:
    """Leave the labels that no row has out of long scales, which every layer repeats."""
    rows = [*made.get("datasets", {}).values(), (made.get("data") or {}).get("values") or []]
    seen = {value for part in rows for row in part for value in row.values()}
    for layer in made.get("layer", []):
        for channel in layer.get("encoding", {}).values():
            scale = (channel.get("scale") if isinstance(channel, dict) else None) or {}
            domain, colors = scale.get("domain"), scale.get("range")
            if isinstance(domain, list) and isinstance(colors, list) and len(domain) > _LONG_SCALE:
                pairs = [(a, b) for a, b in zip(domain, colors, strict=True) if a in seen]
                scale["domain"], scale["range"] = [a for a, _ in pairs], [b for _, b in pairs]


def _share_data(made: dict[str, Any]) -> None:
    """Give layers that draw the same rows one copy of them."""
    named: dict[str, str] = {}
    found: dict[str, Any] = {}
    texts: dict[int, str] = {}
    for layer in made.get("layer", []):
        values = (layer.get("data") or {}).get("values")
        if values is None:
            continue
        key = texts.get(id(values)) or json.dumps(values, sort_keys=True)
        texts[id(values)] = key
        name = named.setdefault(key, f"rows{len(named)}")
        found[name] = values
        layer["data"] = {"name": name}
    if found:
        made["datasets"] = found


def log_ticks(low: float, high: float) -> list[float]:
    """Choose the ticks of a logarithmic axis: 1, 2, 5 over few decades, powers of ten over many.

    Args:
        low: Lower end of the axis, positive.
        high: Upper end.

    Returns:
        The ticks inside.
    """
    ticks = [float(f"{m}e{e}") for e in range(-12, 13) for m in (1, 2, 5)]
    inside = [tick for tick in ticks if low <= tick <= high]
    return inside if len(inside) <= 8 else [tick for tick in inside if f"{tick:e}"[0] == "1"]


def javascript() -> str:
    """Give the libraries that make the charts interactive.

    Returns:
        JavaScript that may stand inside a `<script>` element.
    """
    bundle = renderer.bundle()
    # Inside strings, where these stand, the backslash changes nothing for JavaScript.
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def script_json(value: object) -> str:
    """Write JSON that may stand inside a `<script>` element.

    Args:
        value: Plain types.

    Returns:
        JSON without `<`, `>` or `&`.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
