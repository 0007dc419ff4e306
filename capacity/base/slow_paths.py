"""Slow paths that were taken on the way to a record: the same numbers, for more time.

A network without a batching rule is run by a loop, one that cannot be traced is differentiated call
by call. Where that happens lies deep; who waits for it reads records. So what takes a slow path
leaves a line, and what makes a record collects them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar

_LONGEST = 200
_found: ContextVar[list[str] | None] = ContextVar("slow paths", default=None)
Given = ParamSpec("Given")
Record = TypeVar("Record")


def took(path: str, why: object) -> None:
    """Leave a line for whoever collects them.

    Args:
        path: What was done in place of the quick way, a sentence without its end.
        why: The reason, as an exception; its first line is taken.
    """
    found = _found.get()
    if found is None:
        return
    reason = next(iter(str(why).strip().splitlines()), "").strip()
    reason = reason if len(reason) <= _LONGEST else f"{reason[: _LONGEST - 1]}\u2026"
    line = f"{path}, slower and with the same numbers: {reason}".rstrip(".: ") + "."
    if line not in found:
        found.append(line)


@contextmanager
def slow_paths() -> Iterator[list[str]]:
    """Collect the slow paths that are taken within, for an outer collection, too.

    Yields:
        A list that fills with lines, each once.
    """
    found: list[str] = []
    outer = _found.get()
    token = _found.set(found)
    try:
        yield found
    finally:
        _found.reset(token)
        if outer is not None:
            outer += [line for line in found if line not in outer]


def noting(
    add: Callable[[Record, str], Record],
) -> Callable[[Callable[Given, Record]], Callable[Given, Record]]:
    """Let a function say in its record which slow paths it took.

    Args:
        add: Gives a record with some sentences more in its notes.

    Returns:
        A decorator; a function that took none gives its record as it is.
    """

    def decorate(function: Callable[Given, Record]) -> Callable[Given, Record]:
        @wraps(function)
        def noted(*args: Given.args, **kwargs: Given.kwargs) -> Record:
            with slow_paths() as found:
                made = function(*args, **kwargs)
            return add(made, " ".join(found)) if found else made

        return noted

    return decorate
