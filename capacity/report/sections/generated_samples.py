"""What a generative network makes after every task: a strip of images, and what a judge takes."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator, Sequence
from math import isqrt

from capacity.records.number_format import cell, header_cell, text_cell
from capacity.records.numbers import number
from capacity.report.blocks import Block, Fold, Part, Section
from capacity.report.tables import Table
from capacity.results.schema import Generation
from capacity.results.view import RunView, pick

_DARKEST = 16
_HOW = (
    "Images start from the same noise after every task, and are drawn from replica 0. A "
    "classifier that was trained once on real digits says what each is; the Fréchet distance, in "
    "its features, is that of all images to the real ones of every class learned so far."
)


def strip(images: Sequence[Sequence[int]]) -> str:
    """Draw square images side by side, as the address of a PNG that holds them.

    Args:
        images: Shades of their pixels, from 0 (white) to 16, row by row.

    Returns:
        A data URI.
    """
    side = isqrt(len(images[0]))
    gap = bytes([255])
    rows = bytearray()
    for top in range(0, side * side, side):
        rows.append(0)  # no filter
        for image in images:
            shades = image[top : top + side]
            rows += bytes(255 - 255 * min(max(s, 0), _DARKEST) // _DARKEST for s in shades) + gap
    width = len(images) * (side + 1)
    header = struct.pack(">IIBBBBB", width, side, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows), 9)), (b"IEND", b"")]
    file = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return "data:image/png;base64," + base64.b64encode(file).decode()


def _content(view: RunView) -> Iterator[Block | None]:
    made = [(i, p["generation"]) for i, p in enumerate(view.phases) if p and "generation" in p]
    if not made:
        return
    last = pick(made[-1][1], "share_old")
    found = "What the network makes after each task"
    if last is not None and last.value is not None:
        found += f"; at the end {number(100 * last.value, 2)} % are taken for an old class"
    strips = [
        {"label": view.label(i), "source": strip(one["images"]), "count": len(one["images"])}
        for i, one in made
    ]
    yield Fold(found, [_HOW, Part("strips.html", {"strips": strips}), _table(view, made)])


def _table(view: RunView, made: Sequence[tuple[int, Generation]]) -> Table:
    rows = [
        (
            header_cell(view.label(i)),
            text_cell(f"{100 * sum(one['shares'][c] for c in one['new']):.0f} %"),
            cell(pick(one, "share_old")),
            cell(pick(one, "frechet")),
        )
        for i, one in made
    ]
    return Table(
        id="table-generated",
        caption="Generated images, as the classifier takes them",
        columns=("After", "Share of the new classes", "Share of old classes", "Fréchet distance"),
        rows=rows,
        remark="Of what forgets nothing, the share of old classes is that of the old classes among "
        "all that were learned.",
    )


SECTION = Section("generated", "Generated images", _content)
