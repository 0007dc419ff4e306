"""What stands before the report: a damaged run is refused before anything slow is imported."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from capacity.report.renderer import RenderingError
from capacity.runs.directory import RunDirectory

_SELDOM = 20
"""Times the time that a page took between two of them: they take a twentieth of a run."""


def write_report(run_dir: str | Path, output: str | Path | None = None) -> Path:
    """Check every file of a run against its digest, and write its report.

    Args:
        run_dir: The run directory.
        output: The HTML file; None writes `report.html` into the run directory.

    Returns:
        Path of the report.

    Raises:
        ValueError: If there is no run, a file of it is damaged, or the report cannot be written.
    """
    directory = RunDirectory.open(run_dir)
    target = directory.path / "report.html" if output is None else Path(output)
    if target.is_dir():
        raise ValueError(f"output = {str(target)!r} is a directory; name an .html file")
    directory.check()
    from capacity.report.page import render  # torch and altair take seconds to import

    try:
        return render(directory.path, target)
    except OSError as error:
        raise ValueError(
            f"output = {str(target)!r} cannot be written ({error.strerror}); name another file"
        ) from None


class ReportSoFar:
    """Writes the report of a run that goes on: after its first task, and then seldom.

    Args:
        directory: The run directory.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._took, self._ended = 0.0, -float("inf")

    def __call__(self) -> bool:
        """Write it, if that is due.

        Returns:
            Whether there is a first report now.
        """
        first, now = self._ended < 0, time.monotonic()
        if now - self._ended < _SELDOM * self._took:
            return False
        # A page that cannot be made now does not end the run; the one at its end says why.
        with suppress(ValueError, RenderingError), self._directory.timed("report"):
            write_report(self._directory.path)
        self._ended = time.monotonic()
        self._took = self._ended - now
        return first and (self._directory.path / "report.html").is_file()
