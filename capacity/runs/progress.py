"""Progress: a bar on a terminal, plain lines in a log, nothing when asked for silence."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from tqdm import tqdm

from capacity.base.console import Lenient
from capacity.base.printable import visible


class Progress:
    """Shows what a run is doing.

    Attributes:
        terminal: Whether bars are drawn.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._stream = Lenient(stream if stream is not None else sys.stderr)
        self._quiet = quiet
        self._bar: tqdm[Any] | None = None
        self._label = ""
        self.terminal = not quiet and self._stream.isatty()

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

    def start(self, label: str, total: int) -> None:
        """Begin a stretch of work.

        Args:
            label: What it is.
            total: How many units it has.
        """
        self.close()
        self._label = label
        if self.terminal:
            self._bar = tqdm(total=total, desc=label, file=self._stream, leave=False, unit="epoch")
        else:
            self.line(f"{label} ...")

    def advance(self, text: str = "") -> None:
        """Finish one unit.

        Args:
            text: Shown beside the bar; logs leave it out.
        """
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update()

    def close(self) -> None:
        """End the stretch of work, done or not."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
