"""What stands before the report: a damaged run is refused before anything slow is imported."""

from __future__ import annotations

from pathlib import Path

from capacity.runs.directory import RunDirectory


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
