"""Where a run of many is carried out: in a process of this machine, or as a job of a cluster."""

from __future__ import annotations

import os
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import IO, Protocol

from capacity.base.interruption import ENDS_WITH_STDIN

_KEPT_LINES = 20


class Launched(Protocol):
    """A command at work."""

    def poll(self) -> int | None:
        """Say how it ended: an exit code, negative for a signal; None while it works."""

    def lines(self) -> Sequence[str]:
        """Give the last lines that it said."""

    def stop(self) -> None:
        """Ask it to end, and leave what is there."""

    def kill(self) -> None:
        """End it, and let go of what it held."""


class Launcher(Protocol):
    """Starts commands."""

    def start(self, command: Sequence[str], tell: Callable[[str], None]) -> Launched:
        """Start a command.

        Args:
            command: Program and arguments.
            tell: Called with every line that it says, where lines come one by one.

        Returns:
            The command at work.
        """


class LocalProcesses:
    """Processes of this machine; they end when the one that started them does.

    Args:
        slots: How many work at a time, and share the processors.
    """

    def __init__(self, slots: int) -> None:
        self._threads = max((os.cpu_count() or 1) // slots, 1)

    def start(self, command: Sequence[str], tell: Callable[[str], None]) -> Launched:
        """Start a command (see `Launcher`)."""
        return _Process(command, tell, self._threads)


class _Process:
    """A process of this machine."""

    def __init__(self, command: Sequence[str], tell: Callable[[str], None], threads: int) -> None:
        self._process = subprocess.Popen(
            command,
            env={"OMP_NUM_THREADS": str(threads), **os.environ, ENDS_WITH_STDIN: "1"},
            # We write nothing to it: it closes when we end, however that is.
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            # Ctrl-C on a terminal goes to the whole group; we pass it on, once, in our own time.
            start_new_session=True,
        )
        assert self._process.stderr is not None
        self._said: deque[str] = deque(maxlen=_KEPT_LINES)
        self._reader = threading.Thread(target=self._read, args=(self._process.stderr, tell))
        self._reader.start()

    def poll(self) -> int | None:
        code = self._process.poll()
        if code is not None:
            self._let_go()
        return code

    def lines(self) -> Sequence[str]:
        return self._said

    def stop(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._let_go()

    def _let_go(self) -> None:
        """Close what the process, which has ended, left open."""
        self._reader.join()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _read(self, stream: IO[str], tell: Callable[[str], None]) -> None:
        with stream:
            for line in stream:
                text = line.rstrip()
                if text:
                    self._said.append(text)
                    tell(text)
