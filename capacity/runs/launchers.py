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


class NotNowError(RuntimeError):
    """Nothing can be started at the moment; the same start may go well later."""


class Launcher(Protocol):
    """Starts commands."""

    def take_over(self, label: str, tell: Callable[[str], None]) -> Launched | None:
        """Find a command that an earlier process started, and that still works or waits.

        Args:
            label: What it does.
            tell: As in `start`.

        Returns:
            The command; None where there is none.

        Raises:
            NotNowError: If that cannot be known now.
        """

    def start(self, label: str, command: Sequence[str], tell: Callable[[str], None]) -> Launched:
        """Start a command.

        Args:
            label: What it does; two commands of one label are never wanted at the same time.
            command: Program and arguments.
            tell: Called with every line that it says, where lines come one by one.

        Returns:
            The command at work.

        Raises:
            ValueError: If it cannot be started.
            NotNowError: If it cannot be started now.
        """


class LocalProcesses:
    """Processes of this machine; they end when the one that started them does.

    Args:
        slots: How many work at a time, and share the processors.
    """

    def __init__(self, slots: int) -> None:
        self._threads = max((os.cpu_count() or 1) // slots, 1)

    def take_over(self, label: str, tell: Callable[[str], None]) -> Launched | None:  # noqa: ARG002
        """Give none: processes end with the one that started them (see `Launcher`)."""
        return None

    def start(self, label: str, command: Sequence[str], tell: Callable[[str], None]) -> Launched:
        """Start a command (see `Launcher`)."""
        return _Process(label, command, tell, self._threads)


class _Process:
    """A process of this machine."""

    def __init__(
        self, label: str, command: Sequence[str], tell: Callable[[str], None], threads: int
    ) -> None:
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
        said = (self._process.stderr, tell)
        self._reader = threading.Thread(name=label, target=self._read, args=said)
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
