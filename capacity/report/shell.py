"""What every page shares around its content: templates, script libraries, symbols, colours."""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Sequence
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from capacity.report.charts import Figure, javascript, script_json
from capacity.report.format import number, plural
from capacity.text import visible

_SYMBOL = re.compile(r"\b([A-Za-z])_([A-Za-z0-9])\b|\|([A-Za-z0-9\u2212\u0394\u03b8 ]+)\|_F²")
_OWN_COLORS = 8


def page(template: str, figures: Sequence[Figure], colors: int, **content: object) -> str:
    """Make a page that needs no network and no other file.

    Args:
        template: Name of the template; it extends `shell.html`.
        figures: Every figure of the page.
        colors: How many tasks or variants the charts colour.
        **content: What the template shows.

    Returns:
        HTML.
    """
    made = _environment().get_template(template)
    return visible(
        made.render(
            colors=_colors(colors),
            specs=Markup(script_json({figure.id: figure.script() for figure in figures})),
            bundle=Markup(_bundle()) if figures else "",
            **content,
        )
    )


@cache
def _bundle() -> str:
    # Two thirds of a short report would be this library, were it not packed.
    return base64.b64encode(gzip.compress(javascript().encode(), 9, mtime=0)).decode()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("capacity.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["symbols"] = symbols
    environment.filters["number"] = number
    environment.filters["slug"] = slug
    environment.globals["plural"] = plural
    environment.globals["drawn"] = lambda figure, narrow: Markup(figure.svg(narrow=narrow))
    return environment


def symbols(text: str) -> Markup:
    """Set the theory's symbols as such: `R_A` with an index, `|J|_F²` with its own.

    Args:
        text: Plain text.

    Returns:
        Escaped HTML.
    """

    def index(match: re.Match[str]) -> str:
        if match[3]:
            return f"|{match[3]}|<sub>F</sub>²"
        return f"<i>{match[1]}</i><sub>{match[2]}</sub>"

    return Markup(_SYMBOL.sub(index, str(escape(text))))


def slug(text: str) -> str:
    """Turn a text into part of a file's name.

    Args:
        text: Plain text.

    Returns:
        Lower-case letters, digits and dashes; `report` where nothing is left.
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "report"


def _colors(count: int) -> list[tuple[int, str]]:
    """Give everything a colour: its own while there are few, a place on a ramp beyond that."""
    if count <= _OWN_COLORS:
        return [(i, f"var(--own-{i})") for i in range(count)]
    shares = [round(100 * i / (count - 1)) for i in range(count)]
    return [
        (i, f"color-mix(in oklch, var(--ramp-1) {share}%, var(--ramp-0))")
        for i, share in enumerate(shares)
    ]
