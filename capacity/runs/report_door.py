"""What stands before the report: a damaged run is refused before anything slow is imported."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from capacity.base.beside import Beside, seconds_of
from capacity.report import renderer
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
        self._going: Beside[tuple[None, float]] | None = None

    def __call__(self, *, beside: bool = False) -> bool:
        """Write it, or begin to, if that is due.

        Args:
            beside: Whether a process beside writes it; `arrived` waits for it, and comes before the
                run writes anything that a page shows.

        Returns:
            Whether there is a first report now.
        """
        first, now = self._ended < 0, time.monotonic()
        if self._going is not None or now - self._ended < _SELDOM * self._took:
            return False
        if beside:
            self._going = Beside(lambda: seconds_of(self._write))
            return False
        with self._directory.timed("report"):
            self._write()
        return self._noted(first, time.monotonic() - now)

    def ahead(self) -> None:
        """Load what draws a page, while there is something to wait for."""
        if self._ended > 0 or self._going is not None:  # else no page is wanted
            renderer.ahead()
            import capacity.report.page as _page  # noqa: F401

    def arrived(self) -> bool:
        """Wait for a page that is written beside.

        Returns:
            Whether it is the first.
        """
        if self._going is None:
            return False
        _, seconds = self._going.result()
        self._going = None
        self._directory.spent("report beside", seconds)
        return self._noted(self._ended < 0, seconds)

    def stop(self) -> None:
        """End what goes on beside."""
        if self._going is not None:
            self._going.stop()
            self._going = None

    def _write(self) -> None:
        # A page that cannot be made now does not end the run; the one at its end says why.
        with suppress(ValueError, RenderingError):
            write_report(self._directory.path)

    def _noted(self, first: bool, took: float) -> bool:
        self._took, self._ended = took, time.monotonic()
        return first and (self._directory.path / "report.html").is_file()
