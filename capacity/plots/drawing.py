"""A figure of the report as a picture of its own: colours resolved, its key above it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

import altair as alt

from capacity.base.files import write_atomically
from capacity.base.printable import visible
from capacity.report import charts, renderer
from capacity.report.charts import Figure, Key
from capacity.results.gather import read_checked
from capacity.results.view import RunView

FORMATS = (".pdf", ".svg", ".png")
_STYLE = Path(charts.__file__).with_name("templates") / "style.css"
_OWN_COLORS = 8
_ROW, _SWATCH, _LETTER, _GAP = 18, 20, 6.5, 16
"""Of the key, px: height of a row, width of a swatch, of a letter and of what parts entries."""
_SHAPES = {
    "line": '<path d="M0,0H14" stroke="{c}" stroke-width="2.5"/>',
    "dash": '<path d="M0,0H14" stroke="{c}" stroke-width="2" stroke-dasharray="4,3"/>',
    "band": '<rect y="-4" width="14" height="8" fill="{c}" fill-opacity="0.32"/>',
    "bar": '<rect y="-4" width="14" height="8" fill="{c}"/>',
    "dot": '<circle cx="7" r="4.5" fill="{c}"/>',
    "ring": '<circle cx="7" r="4" fill="none" stroke="{c}" stroke-width="2"/>',
    "square": '<rect x="3" y="-4" width="8" height="8" fill="{c}"/>',
    "outline": '<rect x="3" y="-4" width="8" height="8" fill="none" stroke="{c}"'
    ' stroke-dasharray="2,1.5"/>',
    "diamond": '<path d="M7,-5L12,0L7,5L2,0Z" fill="{c}"/>',
    "tick": '<rect x="6" y="-5.5" width="2.5" height="11" fill="{c}"/>',
}


@dataclass(frozen=True)
class Drawing:
    """A figure of a run.

    Attributes:
        figure: The same as the report has it: title, caption, specification and data.
        tasks: How many tasks its colours tell apart.
    """

    figure: Figure
    tasks: int

    def svg(self, width: int = charts.HALF) -> str:
        """Draw it.

        Args:
            width: Of the picture, px; letters are 12 px, so 450 suits a column of a paper.

        Returns:
            SVG on white, in the light colours of the report.
        """
        drawn = self.figure.drawn(width)
        height = float(re.findall(r'<svg [^>]*?\bheight="([\d.]+)"', drawn)[0])
        key, top = _key(self.figure.keys, width)
        placed = drawn.replace("<svg ", f'<svg y="{top}" ', 1)
        whole = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top + height:g}">'
            f'<rect width="100%" height="100%" fill="white"/>{key}'
            f"{placed}</svg>"
        )
        return re.sub(r"var\(--([\w-]+)\)", lambda name: _color(name[1], self.tasks), whole)

    @property
    def altair(self) -> alt.LayerChart:
        """The same as an Altair chart, light, to change or to combine; its key is not in it."""
        spec = {"width": charts.HALF, **self.figure.spec}
        spec["config"] = {key: value for key, value in spec["config"].items() if value is not None}
        text = re.sub(
            r"var\(--([\w-]+)\)", lambda name: _color(name[1], self.tasks), json.dumps(spec)
        )
        return alt.LayerChart.from_dict(json.loads(text))

    def save(self, path: str | Path, width: int = charts.HALF) -> Path:
        """Write it to a file.

        Args:
            path: The file; its ending says the format: .pdf, .svg or .png.
            width: Of the picture, px; a PNG has three times as many, for print.

        Returns:
            Its path.

        Raises:
            ValueError: If the ending is none of these, or the file cannot be written.
        """
        path = Path(path)
        kind = path.suffix.lower()
        if kind not in FORMATS:
            raise ValueError(
                f"path = {str(path)!r} has no known ending; accepted: .pdf, .svg, .png"
            )
        svg = self.svg(width)
        content = svg.encode() if kind == ".svg" else renderer.convert(svg, kind[1:])
        try:
            write_atomically(path, content)
        except OSError as error:
            raise ValueError(
                f"path = {str(path)!r} cannot be written ({error.strerror}); name another file"
            ) from None
        return path

    def _repr_svg_(self) -> str:
        return self.svg()


def drawing_of(run: object, draw: Callable[[RunView], Figure | None]) -> Drawing:
    """Draw a figure of the report for a run.

    Args:
        run: A `Run`, or the path of a run directory.
        draw: Makes the figure, or None where the run has no data for it.

    Returns:
        The drawing.

    Raises:
        ValueError: If it is no run, or one that learned nothing.
        NothingToDrawError: If the run has no data for the figure.
    """
    path = getattr(run, "path", run)
    if not isinstance(path, str | Path):
        raise ValueError(f"run is a {type(run).__name__}; pass a run, or the path of its directory")
    view = read_checked(Path(path))
    if not view.learned:
        raise ValueError(
            f"run = {str(path)!r} learned no task ({view.state}), so there is nothing to draw"
        )
    figure = draw(view)
    if figure is None:
        raise NothingToDrawError(
            f"run = {str(path)!r} did not measure what this figure shows; its report says what it "
            "measured, and a recipe's `measure` asks for more"
        )
    return Drawing(figure, len(view.tasks))


class NothingToDrawError(ValueError):
    """A run has no data for a figure."""


def _key(keys: Sequence[Key], width: int) -> tuple[str, int]:
    """Lay the key out above a picture: SVG, and how much room it takes."""
    x, y, parts = 4.0, _ROW / 2, []
    for key in keys:
        wide = _SWATCH + _LETTER * len(key.label) + _GAP
        if x > 4 and x + wide > width:
            x, y = 4.0, y + _ROW
        parts.append(
            f'<g transform="translate({x:g},{y:g})">{_SHAPES[key.shape].format(c=key.color)}'
            f'<text x="{_SWATCH}" y="4" fill="{charts.INK}">{escape(visible(key.label))}</text></g>'
        )
        x += wide
    font = escape(charts.CONFIG["font"])
    return f'<g font-family="{font}" font-size="12">{"".join(parts)}</g>', (
        round(y + _ROW / 2) if parts else 0
    )


@cache
def _light() -> dict[str, str]:
    """The light colours of the page, which stand first in its style sheet."""
    light = _STYLE.read_text(encoding="utf-8").split("}")[0]
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", light))


def _color(name: str, tasks: int) -> str:
    """Give a colour of the page as a number, as a picture needs it."""
    if not name.startswith("task-"):
        return _light()[name]
    i = int(name.removeprefix("task-"))
    if tasks <= _OWN_COLORS:
        return _light()[f"own-{i}"]
    low, high = (bytes.fromhex(_light()[f"ramp-{end}"][1:]) for end in (0, 1))
    share = i / (tasks - 1)
    mixed = (round(a + share * (b - a)) for a, b in zip(low, high, strict=True))
    return "#" + bytes(mixed).hex()
