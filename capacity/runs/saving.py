"""Keeping the summary of a run current without rewriting all of it at every stage."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from capacity.runs.directory import RunDirectory
from capacity.runs.result import Measurements

_SHARE = 16


class Summary:
    """The files that sum up a run: `result.json` and `spectra.safetensors`.

    They grow with the stages that are done, so they are written ever more rarely: after a kill they
    lack at most a sixteenth of the stages, and the journal lacks none.

    Attributes:
        spectra: What the spectra left, by name.
    """

    def __init__(self, directory: RunDirectory, found: Measurements) -> None:
        self._directory, self._found = directory, found
        self._stages, self._written = 0, 0
        self.spectra: dict[str, Tensor] = {}

    def stage(self) -> None:
        """Say that the run goes on after a stage, and write down what is known if that is due."""
        self._stages += 1
        due = self._stages - self._written > self._stages // _SHARE
        if due:
            self._written = self._stages
        self._directory.set_status("running", files=self.files("running") if due else {})

    def files(self, status: str) -> dict[str, dict[str, Any]]:
        """Give the files as they are now.

        Args:
            status: State of the run to record.

        Returns:
            Their content by name.
        """
        spectra = {"spectra.safetensors": self.spectra} if self.spectra else {}
        return {**spectra, "result.json": self._found.result(status)}
