"""A run directory that is read, checked and parsed once, whoever asks for its parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from capacity.results.manifest import Listed
from capacity.results.reader import RunReader


class Snapshot(RunReader):
    """Reads every file at most once: for readers of many runs, who check all and then use it.

    What it hands out is shared between those who ask: none of it may be changed. A file that is not
    there yet is looked for again, as the run may be at work.

    Attributes:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._kept: dict[str, Any] = {}

    def _once(self, name: str, read: Callable[[], Any]) -> Any:
        found = self._kept.get(name)
        if found is None and (found := read()) is not None:
            self._kept[name] = found
        return found

    def _listed(self) -> Listed:
        listed: Listed = self._once("listed", super()._listed)
        return listed

    def _content(self, name: str, remedy: str = "") -> bytes | None:
        read = super()._content
        content: bytes | None = self._once(f"bytes of {name}", lambda: read(name, remedy))
        return content

    def fields(self) -> dict[str, Any]:
        """Read the recipe as plain data (see `RunReader.fields`)."""
        fields: dict[str, Any] = self._once("fields", super().fields)
        return fields

    def status(self) -> dict[str, Any]:
        """Read the status (see `RunReader.status`)."""
        status: dict[str, Any] = self._once("status", super().status)
        return status

    def result(self) -> dict[str, Any]:
        """Read the summary (see `RunReader.result`)."""
        result: dict[str, Any] = self._once("result", super().result)
        return result

    def environment(self) -> dict[str, Any]:
        """Read what may differ between machines (see `RunReader.environment`)."""
        environment: dict[str, Any] = self._once("environment", super().environment)
        return environment

    def metrics(self) -> list[dict[str, Any]]:
        """Read the rows written while training (see `RunReader.metrics`)."""
        rows: list[dict[str, Any]] = self._once("metrics", super().metrics)
        return rows
