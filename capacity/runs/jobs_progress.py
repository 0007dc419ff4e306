"""One view of many processes: bars on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import threading
from typing import Any, TextIO

from tqdm import tqdm

from capacity.base.console import Lenient
from capacity.base.printable import visible


class JobsProgress:
    """Shows how far some runs are.

    A terminal gets one bar for all and one for each at work; a log gets the lines of every process
    with its label in front.

    Args:
        total: Number of runs.
        unit: What one of them is called.
        quiet: Show nothing.
        stream: Where to; None takes standard error.
    """

    def __init__(
        self, total: int, *, unit: str = "run", quiet: bool = False, stream: TextIO | None = None
    ) -> None:
        self._total, self._unit, self._quiet = total, unit, quiet
        self._stream = Lenient(stream if stream is not None else sys.stderr)
        self._terminal = not quiet and self._stream.isatty()
        self._lock = threading.RLock()
        self._bars: dict[int, tqdm[Any]] = {}
        self._all: tqdm[Any] | None = None

    def line(self, text: str) -> None:
        """Print a line that stays.

        Args:
            text: The line.
        """
        if self._quiet:
            return
        text = visible(text)
        with self._lock:
            if self._all is not None:
                self._all.write(text, file=self._stream)
            else:
                print(text, file=self._stream, flush=True)

    def ended(self, count: int) -> None:
        """Say how many have ended.

        Args:
            count: Of all.
        """
        if not self._terminal:
            return
        with self._lock:
            if self._all is None:
                self._all = tqdm(
                    total=self._total,
                    desc=f"{self._unit}s",
                    unit=self._unit,
                    file=self._stream,
                    leave=False,
                )
            self._all.update(count - self._all.n)

    def started(self, label: str, slot: int, steps: int) -> None:
        """Say that a run is at work.

        Args:
            label: Its label.
            slot: Its place among those at work.
            steps: Rows of metrics that it will have.
        """
        if not self._terminal:
            self.line(f"{label}: started")
            return
        with self._lock:
            self._bars[slot] = tqdm(
                total=steps,
                desc=f"  {label}",
                unit="epoch",
                file=self._stream,
                leave=False,
                position=slot + 1,
            )

    def reached(self, slot: int, steps: int) -> None:
        """Say how far a run is.

        Args:
            slot: Its place among those at work.
            steps: Rows of metrics so far.
        """
        with self._lock:
            bar = self._bars.get(slot)
            if bar is not None and steps > bar.n:
                bar.update(min(steps, int(bar.total or 0)) - bar.n)

    def told(self, label: str, slot: int, text: str) -> None:
        """Pass on what the process of a run says.

        Args:
            label: Its label.
            slot: Its place among those at work.
            text: One line.
        """
        if not self._terminal:
            self.line(f"{label}: {text}")
            return
        with self._lock:
            bar = self._bars.get(slot)
            if bar is not None:
                bar.set_postfix_str(visible(text).removesuffix(" ...")[:40])

    def finished(self, label: str, slot: int, said: str) -> None:
        """Say how a run ended.

        Args:
            label: Its label.
            slot: The place that is free now.
            said: Its state, or what went wrong.
        """
        with self._lock:
            bar = self._bars.pop(slot, None)
            if bar is not None:
                bar.close()
        self.line(f"{label}: {said}")

    def close(self) -> None:
        """Leave the terminal as it was."""
        with self._lock:
            for bar in self._bars.values():
                bar.close()
            self._bars = {}
            if self._all is not None:
                self._all.close()
                self._all = None
