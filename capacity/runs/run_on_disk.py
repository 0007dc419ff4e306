"""A run that was written to disk: its numbers, tables, figures and report."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from capacity.records.estimate import Estimate
from capacity.records.html_table import table as html_table
from capacity.records.rows import Rows
from capacity.results.frames import table_of
from capacity.runs.directory import RunDirectory
from capacity.runs.report_door import write_report

if TYPE_CHECKING:
    from capacity.plots.drawing import Drawing


@dataclass(frozen=True)
class Run:
    """A run that was written to disk. Every number it gives is read from its directory.

    Attributes:
        path: The run directory.
    """

    path: Path

    @cached_property
    def result(self) -> dict[str, Any]:
        """The whole summary, `result.json` (documented in `result_schema.md`)."""
        return RunDirectory.open(self.path).result()

    @property
    def status(self) -> str:
        """finished, diverged, interrupted, failed or running."""
        return str(self.result.get("status", "running"))

    @property
    def forecasts(self) -> list[dict[str, Any]]:
        """What was forecast: a record per new task, with entries per old task and per strategy."""
        return [
            {
                "task": t["task"],
                "old": [{"task": cell["task"], **cell["forecast"]} for cell in t["old"]],
                "new": t["new"]["forecast"],
                "cost_ratio": t["cost_ratio"],
                "by_strategy": t.get("by_strategy", []),
            }
            for t in self.result.get("transitions", [])
            if t["new"]["forecast"] is not None
        ]

    @property
    def measured(self) -> list[dict[str, Any]]:
        """What then happened, in the form of `forecasts`."""
        return [
            {
                "task": t["task"],
                "old": [{"task": cell["task"], **cell["measured"]} for cell in t["old"]],
                "new": t["new"]["measured"],
            }
            for t in self.result.get("transitions", [])
            if t["new"]["measured"] is not None
        ]

    @property
    def spectra(self) -> dict[str, Tensor]:
        """Singular values, residuals and log-volumes of J_t per task, by name."""
        return RunDirectory.open(self.path).spectra()

    @property
    def costs(self) -> list[dict[str, Any]]:
        """What learning cost against its speed limit: a record per task that was learned."""
        return [
            {"task": i, **phase["thermo"]}
            for i, phase in enumerate(self.result.get("phases", []))
            if phase and phase.get("thermo")
        ]

    def table(self, name: str) -> Rows:
        """Read a table of the run.

        Args:
            name: `transitions` (a row per new and old task: forecast, measured, and what was
                measured before), `forecasts` and `measured` (its two sides), `strategies`,
                `tasks`, `costs`, `spectra`, `metrics` or `runs`.

        Returns:
            Its rows: `.rows` are tuples, iterating gives dictionaries. An unknown name is a
            ValueError.
        """
        return table_of(self.path, name)

    def frame(self, name: str) -> Any:
        """Read a table of the run as a pandas frame.

        Args:
            name: As `table` takes it.

        Returns:
            A `pandas.DataFrame`. Without pandas, which `pip install pandas` brings, and for an
            unknown name, it is a ValueError.

        Example:
            >>> import capacity
            >>> made = capacity.open_run("runs/mine")  # doctest: +SKIP
            >>> made.frame("transitions")["accuracy_drop_measured"].mean()  # doctest: +SKIP
        """
        return self.table(name).to_pandas()

    def figure(self, name: str) -> Drawing:
        """Draw a figure of the report.

        Args:
            name: As `forecast`, `accuracy`, `curves`, `strategies`; `capacity.plots.NAMES` has
                all. What the run did not measure, and an unknown name, are a ValueError.

        Returns:
            The drawing: `.save("forecast.pdf")` writes PDF, SVG or PNG, `.altair` is the chart.

        Example:
            >>> import capacity
            >>> made = capacity.open_run("runs/mine")  # doctest: +SKIP
            >>> made.figure("forecast").save("forecast.pdf")  # doctest: +SKIP
        """
        from capacity.plots import figure  # altair takes a second to import

        return figure(self, name)

    def report(self, output: str | Path | None = None) -> Path:
        """Write the report anew; damaged files, and an unwritable target, are a ValueError.

        Args:
            output: The HTML file; None writes `report.html` into the run directory.

        Returns:
            Path of the report.
        """
        return write_report(self.path, output)

    def _repr_html_(self) -> str:
        final = self.result.get("final") or {}
        rows = [
            (name.replace("_", " "), *Estimate.from_dict(record).row())
            for name, record in final.items()
        ]
        title = f"{self.result.get('name', self.path.name)}: {self.status}"
        return html_table(title, [*rows, ("directory", str(self.path))])


def open_run(path: str | Path) -> Run:
    """Open a run that was written before.

    Args:
        path: The run directory.

    Returns:
        The run. A path that holds none is a ValueError.
    """
    return Run(RunDirectory.open(path).path)
