"""What every page shares around its content: templates, script libraries, symbols, colours."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from altair.utils.schemapi import debug_mode
from jinja2 import (
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    PackageLoader,
    StrictUndefined,
    pass_context,
)
from jinja2.runtime import Context
from markupsafe import Markup, escape

from capacity.base.printable import visible
from capacity.records.numbers import number, plural
from capacity.report.blocks import KINDS, Part, Section, Subject, figures_in
from capacity.report.charts import Figure, javascript, script_json
from capacity.report.glossary import linked

_SYMBOL = re.compile(r"\b([A-Za-z])_([A-Za-z0-9])\b|\|([A-Za-z0-9\u2212\u0394\u03b8 ]+)\|_F²")
_OWN_COLORS = 8


def page(
    template: str,
    figures: Sequence[Figure],
    colors: int = 0,
    *,
    folder: Path | None = None,
    scripts: bool = True,
    **content: object,
) -> str:
    """Make a page that needs no network and no other file.

    Its Content-Security-Policy names every script and style sheet by its hash: nothing else runs.

    Args:
        template: Name of the template; it extends `shell.html`.
        figures: Every figure of the page.
        colors: How many tasks or variants the charts colour.
        folder: Where the template lies, and beside it a style sheet of the same name, if the page
            has one of its own; None takes the report's templates.
        scripts: Whether its figures answer the pointer; without, the page holds no script.
        **content: What the template shows.

    Returns:
        HTML.
    """
    # A `style` attribute has no hash: every colour of a key is a class.
    keys = dict.fromkeys(key.color for figure in figures for key in figure.keys)
    swatches = {color: f"swatch-{k}" for k, color in enumerate(keys)}
    style = _part("style.css") + _part("swatches.css", colors=_colors(colors), swatches=swatches)
    own = None if folder is None else (folder / template).with_suffix(".css")
    if own is not None and own.is_file():
        style += Markup(visible(own.read_text(encoding="utf-8")))
    script = _part("page.js") if scripts else Markup()
    bundle, *hashes = _bundle() if scripts and figures else [""]
    if scripts:
        hashes.insert(0, _hash(script))
    made = _environment(folder).get_template(template)
    return visible(
        made.render(
            style=style,
            style_hash=Markup(_hash(style)),
            script=script,
            script_hashes=Markup(" ".join(hashes) or "'none'"),
            swatches=swatches,
            specs=Markup(script_json({figure.id: figure.script() for figure in figures})),
            bundle=Markup(bundle),
            **content,
        )
    )


def sections_page(
    sections: Sequence[Section[Subject]], subject: Subject, colors: int = 0, **content: Any
) -> str:
    """Make a page out of sections.

    Args:
        sections: Its sections in their order; one that has nothing to show is left out.
        subject: What it is about.
        colors: How many tasks or variants the charts colour.
        **content: What stands around the sections: `title`, `name`, `state` (a class and a text),
            `lines` below the name, `warnings` and `footer`.

    Returns:
        HTML.
    """
    shown, figures, pictures = [], [], {}
    # Charts are drawn in another process: while it draws a section's, the next one is computed.
    pen = ThreadPoolExecutor(1)
    try:
        for section in sections:
            with debug_mode(False):  # Altair's check of every part of a chart: the tests do that
                blocks = section.blocks(subject)
            if blocks:
                shown.append((section.anchor, section.title, blocks))
            for figure in figures_in(blocks):
                figures.append(figure)
                for narrow in (False, True):
                    pictures[figure.id, narrow] = pen.submit(figure.svg, narrow=narrow)
        # The templates tell here which terms they met: the glossary at the end explains those.
        return page(
            "sections.html", figures, colors,
            sections=shown, met={}, pictures=pictures, **content,
        )  # fmt: skip
    finally:
        pen.shutdown(cancel_futures=True)


def _is(kind: type) -> Callable[[object], bool]:
    return lambda block: isinstance(block, kind)


def _filled(part: Part) -> Markup:
    """Fill the template of a part of a section."""
    return Markup(_environment(part.folder).get_template(part.template).render(part.content))


def _part(name: str, **content: object) -> Markup:
    """Fill a template whose text stands in an element of its own, as it will stand there."""
    return Markup(visible(_environment().get_template(name).render(**content)))


def _hash(text: str) -> str:
    """Name a script or style sheet in a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _bundle() -> tuple[str, str]:
    """Pack the libraries, and give the hash of what the page unpacks."""
    # Two thirds of a short report would be this library, were it not packed.
    script = javascript()
    return base64.b64encode(gzip.compress(script.encode(), 9, mtime=0)).decode(), _hash(script)


@cache
def _environment(folder: Path | None = None) -> Environment:
    own = [] if folder is None else [FileSystemLoader(folder)]
    environment = Environment(
        loader=ChoiceLoader([*own, PackageLoader("capacity.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["symbols"] = symbols
    environment.filters["terms"] = _terms
    environment.filters["number"] = number
    environment.filters["slug"] = slug
    environment.globals["plural"] = plural
    environment.globals["filled"] = _filled
    for name, kind in KINDS.items():
        environment.tests[name] = _is(kind)
    environment.globals["drawn"] = _drawn
    return environment


def symbols(text: str) -> Markup:
    """Set the theory's symbols as such: `R_A` with an index, `|J|_F²` with its own.

    Args:
        text: Plain text.

    Returns:
        Escaped HTML.
    """
    return Markup(_set(str(escape(text))))


def _set(escaped: str) -> str:
    def index(match: re.Match[str]) -> str:
        if match[3]:
            return f"|{match[3]}|<sub>F</sub>²"
        return f"<i>{match[1]}</i><sub>{match[2]}</sub>"

    return _SYMBOL.sub(index, escaped)


@pass_context
def _drawn(context: Context, figure: Figure, narrow: bool) -> Markup:
    """Give a figure's static picture, which may be on its way."""
    ordered = (context.get("pictures") or {}).get((figure.id, narrow))
    return Markup(figure.svg(narrow=narrow) if ordered is None else ordered.result())


@pass_context
def _terms(context: Context, text: str) -> Markup:
    """Set symbols and link terms to the glossary, where the page has one."""
    met = context.get("met")
    return symbols(text) if met is None else linked(escape(text), met, _set)


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
