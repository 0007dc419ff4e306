"""Stages of a run that a process beside it measures while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from capacity.base.beside import Beside, seconds_of

Made = tuple[Any, dict[str, Tensor]]
"""A stage's record, and its tensors."""


class Aside:
    """Measures stages in a process beside.

    Args:
        wanted: Whether there is a place beside; without, every stage is measured where it is asked
            for.
        spent: Told what was measured beside, and the seconds that it took.
    """

    def __init__(self, wanted: bool, spent: Callable[[str, float], None]) -> None:
        self.wanted, self._spent = wanted, spent
        self._going: dict[str, Beside[tuple[Made, float]]] = {}

    def begin(self, stage: str, work: Callable[[], Made], here: Callable[[], Made]) -> None:
        """Begin a stage beside.

        Args:
            stage: Its name in the journal.
            work: Measures it from everything as it is now.
            here: Measures the same where the run has gone on, if the process is killed.
        """
        self._going[stage] = Beside(lambda: seconds_of(work), lambda: seconds_of(here))

    def __contains__(self, stage: str) -> bool:
        return stage in self._going

    def done(self, stage: str) -> bool:
        """Say whether a stage that was begun has an answer, for which `result` need not wait.

        Args:
            stage: Its name in the journal.

        Returns:
            Whether it has.
        """
        return self._going[stage].done()

    def result(self, stage: str, kind: str) -> Made:
        """Wait for a stage that was begun.

        Args:
            stage: Its name in the journal.
            kind: Under which its time is noted.

        Returns:
            What it measured.
        """
        made, seconds = self._going[stage].result()
        del self._going[stage]
        self._spent(f"{kind} beside", seconds)
        return made

    def stop(self) -> None:
        """End what goes on beside."""
        for going in self._going.values():
            going.stop()
        self._going.clear()
