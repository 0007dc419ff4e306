"""Which old tasks are looked at before and after each new one, as a recipe writes it."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, cast

_WRITTEN = re.compile(r"(?P<kind>all)|(?P<of>last|sample) (?P<count>[1-9]\d{0,5})")


class OldChoice(NamedTuple):
    """Which of the tasks learned so far a measurement looks at.

    Attributes:
        kind: All of them, the latest, or a sample drawn anew before every task.
        most: How many; 0 for all of them.
    """

    kind: Literal["all", "last", "sample"]
    most: int

    @property
    def said(self) -> str:
        """What a reader has to know of it; empty where every old task is looked at."""
        if self.kind == "all":
            return ""
        which = (
            "the latest old task alone" if self.most == 1 else f"the latest {self.most} old tasks"
        )
        if self.kind == "sample":
            which = f"{self.most} of the old tasks, drawn anew before each,"
        ends = "was" if self.most == 1 else "were"
        return (
            f"Before and after every task {which} {ends} forecast and scored (measure.old = "
            f"{self.kind} {self.most}), and all tasks at the end; means are over those."
        )


def read_choice(written: str) -> OldChoice:
    """Read `all`, `last k` or `sample k`.

    Args:
        written: The text.

    Returns:
        What it says.

    Raises:
        ValueError: If it is none of them.
    """
    found = _WRITTEN.fullmatch(written)
    if found is None:
        raise ValueError(
            f"old = {written!r}; write 'all', 'last 5' (the latest five) or 'sample 5' (five drawn "
            "anew before every task), with a whole number from 1 to 999999"
        )
    if found["kind"]:
        return OldChoice("all", 0)
    return OldChoice(cast(Literal["last", "sample"], found["of"]), int(found["count"]))


def checked_choice(written: str) -> str:
    """Check what a recipe says of its old tasks.

    Args:
        written: The text.

    Returns:
        The same text.
    """
    read_choice(written)
    return written
