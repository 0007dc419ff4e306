"""Streams that may be gone: what cannot be shown is no reason to end a run."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any, TextIO


class Lenient:
    """Writes to a stream for as long as it takes anything, and then nowhere.

    Its reader may leave, its disk may be full, it may be closed or absent, and its encoding may
    lack a character.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text.

        Args:
            text: What to write.

        Returns:
            Its length, whether or not anybody reads it.
        """
        if self._stream is not None:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                coding = self._stream.encoding or "ascii"
                self.write(text.encode(coding, "backslashreplace").decode(coding))
            except (OSError, ValueError):  # a closed one raises the latter
                self._leave()
        return len(text)

    def flush(self) -> None:
        """Send on what was written."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._leave()

    def isatty(self) -> bool:
        """Say whether somebody watches.

        Returns:
            Whether it is a terminal.
        """
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:
            return False

    def _leave(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            nowhere(stream)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._stream, name)


def nowhere(stream: TextIO) -> None:
    """Let a standard stream that failed lead nowhere, or Python fails on it once more at its end.

    Args:
        stream: The stream.
    """
    if stream in {sys.__stdout__, sys.__stderr__}:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
