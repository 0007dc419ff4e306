"""What a page consists of: sections, and in each of them blocks, one below the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from capacity.report.charts import Figure
from capacity.report.tables import Table

_ANCHOR = re.compile(r"[a-z][a-z0-9-]*")


@dataclass(frozen=True)
class Heading:
    """A heading inside a section.

    Attributes:
        text: What it says.
        anchor: Its id in the page.
    """

    text: str
    anchor: str


@dataclass(frozen=True)
class Absent:
    """Says what is not there, and why.

    Attributes:
        text: A sentence.
    """

    text: str


@dataclass(frozen=True)
class Code:
    """Text for a computer, as it is.

    Attributes:
        text: Its lines.
    """

    text: str


@dataclass(frozen=True)
class Pair:
    """Figures side by side, where the page is wide enough.

    Attributes:
        figures: The figures; those that are None are left out.
    """

    figures: Sequence[Figure | None]

    @property
    def drawn(self) -> list[Figure]:
        """Those that are there."""
        return [figure for figure in self.figures if figure is not None]


@dataclass(frozen=True)
class Part:
    """What needs HTML of its own.

    Attributes:
        template: Name of a Jinja template; what it prints is escaped.
        content: What it shows.
        folder: Where it lies; None for the report's own templates.
    """

    template: str
    content: Mapping[str, object] = field(default_factory=dict)
    folder: Path | None = None


@dataclass(frozen=True)
class Line:
    """One line of a list.

    Attributes:
        label: What it is about.
        text: A sentence.
        anchor: Of the section that says more; empty for none.
    """

    label: str
    text: str
    anchor: str = ""


@dataclass(frozen=True)
class Lines:
    """A list, one line each.

    Attributes:
        lines: The lines.
    """

    lines: Sequence[Line]


@dataclass(frozen=True)
class Answer:
    """A question of the reader, and what the page answers.

    Attributes:
        question: In a few words.
        anchor: Its id in the page.
        blocks: The answer; what is None or empty is left out.
    """

    question: str
    anchor: str
    blocks: Sequence[Block | None]


@dataclass(frozen=True)
class Fold:
    """What opens on demand, below one line that says what is to be found there.

    Attributes:
        finding: The line.
        blocks: What it opens; what is None or empty is left out, and a fold without a block, too.
        anchor: Its id in the page; empty for none. A link to it, or to anything inside, opens it.
    """

    finding: str
    blocks: Sequence[Block | None]
    anchor: str = ""


Block: TypeAlias = (
    str | Heading | Absent | Code | Table | Figure | Pair | Part | Lines | Answer | Fold
)
"""A part of a section; a text is a paragraph."""
KINDS = {
    kind.__name__.lower(): kind
    for kind in (Heading, Absent, Code, Table, Figure, Pair, Part, Lines, Answer, Fold)
}
"""Blocks that are no paragraph, by the name under which the template knows them."""
Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Section(Generic[Subject]):
    """A section of a page.

    Attributes:
        anchor: Its id in the page: small letters, digits, dashes.
        title: Its heading, and its entry in the table of contents.
        content: Gives its blocks for what the page is about: a run, or a comparison. None and empty
            texts are left out; without a block the section does not apply, and is not in the page.
    """

    anchor: str
    title: str
    content: Callable[[Subject], Iterable[Block | None]]

    def __post_init__(self) -> None:
        if not _ANCHOR.fullmatch(self.anchor):
            raise ValueError(
                f"anchor = {self.anchor!r} is no id; give small letters, digits and dashes, as "
                "'my-section'"
            )

    def blocks(self, subject: Subject) -> list[Block]:
        """Give what the section shows; something that no page shows is a ValueError.

        Args:
            subject: What the page is about.

        Returns:
            Its blocks.
        """
        return self._shown(self.content(subject))

    def _shown(self, blocks: Iterable[Block | None]) -> list[Block]:
        given: list[Block] = []
        for block in blocks:
            if not isinstance(block, (str, type(None), *KINDS.values())):
                raise ValueError(
                    f"section {self.anchor!r} gives a {type(block).__name__}; accepted: str, "
                    f"{', '.join(kind.__name__ for kind in KINDS.values())}"
                )
            if isinstance(block, Answer | Fold):
                block = replace(block, blocks=self._shown(block.blocks))
            if block and not (
                (isinstance(block, Pair) and not block.drawn)
                or (isinstance(block, Lines) and not block.lines)
                or (isinstance(block, Answer | Fold) and not block.blocks)
            ):
                given.append(block)
        return given


class Sections(list[Section[Subject]]):
    """The sections of a page in their order."""

    def register(self, section: Section[Subject], *, before: str | None = None) -> None:
        """Add a section to the pages that this process makes from now on.

        Args:
            section: The section.
            before: Anchor of the section that it stands before; None puts it at the end.

        Raises:
            ValueError: If its anchor is taken, or there is no such section to stand before.
        """
        anchors = [known.anchor for known in self]
        if section.anchor in anchors:
            raise ValueError(f"anchor = {section.anchor!r} is taken by another section; rename it")
        if before is not None and before not in anchors:
            raise ValueError(f"before = {before!r} is no section; accepted: {', '.join(anchors)}")
        self.insert(len(self) if before is None else anchors.index(before), section)


def figures_in(blocks: Iterable[Block | None]) -> list[Figure]:
    """Find the figures among the blocks of a section.

    Args:
        blocks: The blocks.

    Returns:
        The figures in their order.
    """
    found: list[Figure] = []
    for block in blocks:
        if isinstance(block, Figure):
            found.append(block)
        elif isinstance(block, Pair):
            found += block.drawn
        elif isinstance(block, Answer | Fold):
            found += figures_in(block.blocks)
    return found
