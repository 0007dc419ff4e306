"""Progress: a bar on a terminal, plain lines in a log, nothing when asked for silence."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, TextIO

from tqdm import tqdm

from capacity.base.console import Lenient
from capacity.base.printable import visible
from capacity.records.numbers import spell

_BAR = "{desc} {percentage:3.0f}%|{bar:20}| {postfix}"
_TICK = 1.0
"""Seconds after which a bar shows the time again, whatever happens."""


class Progress:
    """Shows what a run is doing, and how long the rest will take.

    The time left is what stages of the same kind took when they came last.

    Attributes:
        terminal: Whether bars are drawn.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._stream = Lenient(stream if stream is not None else sys.stderr)
        self._quiet = quiet
        self._bar: tqdm[Any] | None = None
        self._ticking: threading.Timer | None = None
        self._ahead: list[str] = []
        self._took: dict[str, float] = {}
        self._kind, self._units, self._done = "", 1, 0
        self._begun = self._started = time.monotonic()
        self._text = ""
        self.terminal = not quiet and self._stream.isatty()

    def plan(self, kinds: Sequence[str]) -> None:
        """Say what is ahead.

        Args:
            kinds: Kinds of all stages, in any order, as `start` names them.
        """
        self._ahead = list(kinds)
        self._begun = time.monotonic()

    def passed(self, kind: str) -> None:
        """Say that a stage was done before this process began.

        Args:
            kind: Its kind.
        """
        if kind in self._ahead:
            self._ahead.remove(kind)

    def line(self, text: str, *, trouble: bool = False) -> None:
        """Print one line that stays.

        Args:
            text: The line.
            trouble: Whether it must be read; that is said where progress is not shown, too.
        """
        if self._quiet and not trouble:
            return
        text = visible(text)
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def start(self, label: str, total: int, kind: str = "") -> None:
        """Begin a stretch of work.

        Args:
            label: What it is.
            total: How many units it has.
            kind: Kind of stage, one of those planned; empty for one that nobody planned.
        """
        self.close()
        self.passed(kind)
        self._kind, self._units, self._done = kind, max(total, 1), 0
        self._started, self._text = time.monotonic(), ""
        if self.terminal:
            self._bar = tqdm(total=1.0, desc=label, file=self._stream, leave=False, bar_format=_BAR)
            self._tick()
        else:
            left = self._left()
            self.line(f"{label} ..." if left is None else f"{label} ... about {spell(left)} left")

    def advance(self, text: str = "") -> None:
        """Finish one unit.

        Args:
            text: Shown beside the bar; logs leave it out.
        """
        self._done += 1
        self._text = text
        self._draw()

    def close(self) -> None:
        """End the stretch of work, done or not."""
        if self._kind:
            self._took[self._kind] = time.monotonic() - self._started
            self._kind = ""
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _left(self) -> float | None:
        """Seconds that are left; None while a kind of stage is ahead that never ended yet."""
        kinds = [*self._ahead, self._kind] if self._kind else self._ahead
        if not kinds or any(kind not in self._took for kind in kinds):
            return None
        rest = sum(self._took[kind] for kind in self._ahead)
        if not self._kind:
            return rest
        return rest + max(self._took[self._kind] - (time.monotonic() - self._started), 0.0)

    def _draw(self) -> None:
        bar = self._bar
        if bar is None:
            return
        spent, left = time.monotonic() - self._begun, self._left()
        # Nobody knows the whole before every kind of stage was seen once: then, of this one.
        bar.n = self._done / self._units if left is None else spent / max(spent + left, 1e-9)
        said = [spell(spent), *([] if left is None else [f"about {spell(left)} left"])]
        bar.set_postfix_str(", ".join([*said, *([self._text] if self._text else [])]))

    def _tick(self) -> None:
        self._draw()
        if self._bar is not None:
            self._ticking = threading.Timer(_TICK, self._tick)
            self._ticking.daemon = True
            self._ticking.start()
