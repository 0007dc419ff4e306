"""Ctrl-C and kill, taken between two steps instead of in the middle of one.

A signal handler that raises does so wherever Python happens to be: inside a callback of the garbage
collector the exception is printed and lost, inside a library it leaves half a state. So the first
signal only leaves a note, and the loops that take long read it: `check` is to them what
`PyErr_CheckSignals` is to C extensions.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDS_WITH_STDIN = "CAPACITY_ENDS_WITH_STDIN"
"""Environment variable that is set where a process works for the one that holds its stdin."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_requested = False


def end_with_stdin() -> None:
    """Where this process works for another one, end as by `kill` once that is gone."""
    if os.environ.pop(ENDS_WITH_STDIN, None) is None or sys.stdin is None:
        return
    stdin = sys.stdin.fileno()

    def watch() -> None:
        while os.read(stdin, 1024):  # not through Python's buffer, whose lock would outlive us
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def check() -> None:
    """Stop here if the user asked for it.

    Raises:
        KeyboardInterrupt: If a signal came since `deferred` was entered.
    """
    if _requested:
        raise KeyboardInterrupt


@contextmanager
def deferred() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into a KeyboardInterrupt at the next `check`.

    The second raises at once. A signal whose default action was kept is left alone; so is
    everything outside the main thread, where Python delivers no signals.

    Yields:
        Nothing. At the end a signal that no `check` has seen raises KeyboardInterrupt.
    """
    global _requested
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held = {s: signal.getsignal(s) for s in _SIGNALS}
    taken = [s for s, handler in held.items() if callable(handler)]
    _requested = False
    try:
        for s in taken:
            signal.signal(s, _note)
        yield
        check()
    finally:
        for s in taken:
            signal.signal(s, held[s])
        _requested = False


def _note(_signal: int, _frame: FrameType | None) -> None:
    global _requested
    if _requested:
        raise KeyboardInterrupt
    _requested = True
    if sys.stderr.isatty():
        sys.stderr.write("\nstopping after this step; once more stops at once\n")
