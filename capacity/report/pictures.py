"""Static pictures: what Vega draws without a browser, in fewer bytes and with ids of its own."""

from __future__ import annotations

import re

_GEOMETRY = re.compile(r'\b(?:d|transform|x|y|x1|x2|y1|y2|width|height)="[^"]*"')
_TAIL = re.compile(r"(\d\.\d)\d+")
_WHOLE = re.compile(r"(\d)\.0(?!\d)")
_OPACITY = re.compile(r'(opacity="0\.\d{3})\d+"')
# A picture is hidden from screen readers as a whole (the figure speaks), and answers no pointer.
_IDLE = re.compile(
    r' (?:opacity="1"|aria-hidden="true"|pointer-events="none"|role="graphics-[a-z]+"'
    r'|aria-roledescription="[^"]*"|[xy]2="0")'
)
_DOT = re.compile(
    r'<path transform="translate\(([^,"]+),([^)"]+)\)" '
    r'd="M([\d.]+),0A\3,\3,0,1,1,-\3,0A\3,\3,0,1,1,\3,0"'
)
_LEAVES = re.compile(
    r'(<g class="mark-(?:rule|symbol|rect|line|area|text) [^>]*)>((?:<[^g/][^>]*/>)+)'
)
_INHERITED = re.compile(
    r' ((?:fill|stroke|stroke-width|stroke-opacity|fill-opacity|stroke-dasharray)="[^"]*")'
)


def compact(drawn: str, name: str) -> str:
    """Write a picture shorter: a tenth of a pixel is enough, and what marks share is said once.

    Args:
        drawn: An `<svg>` element as Vega writes it.
        name: Prefix of its ids, unique in the page.

    Returns:
        The same picture.
    """
    drawn = _GEOMETRY.sub(lambda found: _WHOLE.sub(r"\1", _TAIL.sub(r"\1", found[0])), drawn)
    drawn = _OPACITY.sub(r'\1"', _IDLE.sub("", drawn))
    drawn = _DOT.sub(r'<circle cx="\1" cy="\2" r="\3"', drawn)
    drawn = _LEAVES.sub(_hoisted, drawn)
    # Every picture counts its clip paths from 0; in one page they must not meet.
    # They also count on from picture to picture, but the same run gives the same page.
    for k, old in enumerate(dict.fromkeys(re.findall(r'\bid="([\w-]+)"', drawn))):
        drawn = drawn.replace(f'id="{old}"', f'id="{name}-{k}"')
        drawn = drawn.replace(f"url(#{old})", f"url(#{name}-{k})")
    return drawn.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def _hoisted(found: re.Match[str]) -> str:
    """Move to a group what all of its marks have in common and would inherit."""
    group, marks = found[1], re.findall(r"<[^>]*/>", found[2])
    shared = set(_INHERITED.findall(marks[0]))
    for mark in marks[1:]:
        shared &= set(_INHERITED.findall(mark))
    names = {one.partition("=")[0] for one in shared}
    if len(marks) < 2 or any(f" {name}=" in group for name in names):
        return found[0]
    for one in shared:
        marks = [mark.replace(f" {one}", "", 1) for mark in marks]
    return " ".join([group, *sorted(shared)]) + ">" + "".join(marks)
