"""Work in a process beside this one, begun as a copy of it: what it needs is there already."""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, NoReturn, TypeVar

from capacity.base.interruption import check

T = TypeVar("T")

_PATIENCE = 0.2
"""Seconds between two looks at whether the user asked to stop."""


def possible() -> bool:
    """Say whether there is a core for another process, and a system that copies one safely.

    Returns:
        Whether `Beside` may be used.
    """
    return sys.platform == "linux" and len(os.sched_getaffinity(0)) > 1


class Beside(Generic[T]):
    """A function that is evaluated beside; it sees everything as it is now, and changes nothing.

    The copy has this process's memory and one thread: nothing that runs here on several threads, or
    on an accelerator, may go on in it. It ends with the process that began it.

    Args:
        work: The function; what it returns, or raises, is pickled.
        here: The same function where things have moved on, for when its process is killed; None
            takes `work`.
    """

    def __init__(self, work: Callable[[], T], here: Callable[[], T] | None = None) -> None:
        self._here = here or work
        self._answer, answer = os.pipe()
        alive, self._alive = os.pipe()
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):  # what waits would be written twice
                stream.flush()
        self._pid = os.fork()
        if not self._pid:
            os.close(self._alive)
            _serve(work, answer, alive)
        os.close(answer)
        os.close(alive)

    def result(self) -> T:
        """Wait for what the function returned; where its process was killed, evaluate it here.

        Returns:
            It; what it raised is raised here. Ctrl-C stops the waiting, and the process.
        """
        parts: list[bytes] = []
        try:
            while True:
                check()
                if select.select([self._answer], [], [], _PATIENCE)[0]:
                    part = os.read(self._answer, 1 << 20)
                    if not part:
                        break
                    parts.append(part)
        finally:
            self.stop()
        try:
            worked, made = pickle.loads(b"".join(parts))
        except (EOFError, pickle.UnpicklingError):  # it was killed, for its memory maybe
            return self._here()
        if not worked:
            raise made
        return made

    def done(self) -> bool:
        """Say whether there is an answer, or its beginning.

        Returns:
            Whether `result` would not wait for the function.
        """
        return bool(select.select([self._answer], [], [], 0.0)[0])

    def stop(self) -> None:
        """End the process; one that has ended already is only forgotten."""
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            os.close(self._answer)
            os.close(self._alive)
            self._pid = 0


def seconds_of(work: Callable[[], T]) -> tuple[T, float]:
    """Evaluate a function, and say how long it took.

    Args:
        work: The function.

    Returns:
        What it returned, and seconds.
    """
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def _serve(work: Callable[[], object], answer: int, alive: int) -> NoReturn:
    """Be the process beside: nothing of what the copied one would do at its end is done here."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to both of us
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        threading.Thread(target=_end_after, args=(alive,), daemon=True).start()
        made: tuple[bool, object]
        try:
            made = True, work()
        except BaseException as error:
            made = False, error
        with open(answer, "wb") as stream:
            stream.write(pickle.dumps(made))
    finally:
        os._exit(0)


def _end_after(alive: int) -> None:
    os.read(alive, 1)  # returns once nobody holds the other end
    os._exit(1)
