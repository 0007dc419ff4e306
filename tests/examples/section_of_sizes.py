"""A section of somebody's own report: how many samples every task had."""

from __future__ import annotations

from collections.abc import Iterator

import altair as alt

from capacity.records.number_format import Cell, header_cell
from capacity.report.blocks import Block
from capacity.report.charts import INK, Figure, data, spec
from capacity.report.sections import Section
from capacity.report.tables import Table
from capacity.results.view import RunView


def sizes(view: RunView) -> Iterator[Block]:
    """Count the samples; a run without tasks has no such section."""
    if not view.tasks:
        return
    rows = [
        {"task": view.label(i), "samples": task["train_samples"]}
        for i, task in enumerate(view.tasks)
    ]
    yield f"{view.name}: {sum(row['samples'] for row in rows)} samples in all."
    chart = alt.Chart(data(rows)).mark_bar(color=INK)
    chart = chart.encode(x="samples:Q", y="task:N", tooltip=["task:N", "samples:Q"])
    yield Figure(
        id="fig-sizes",
        title="Samples of every task",
        caption="Training samples; no task is much larger than another.",
        alt="Bars of equal length, one per task, as long as the number of its training samples.",
        spec=spec(chart, height=20 * len(rows)),
        table=Table(
            caption="Training samples",
            columns=("Task", "Samples"),
            rows=[(header_cell(row["task"]), Cell(str(row["samples"]))) for row in rows],
        ),
        csv={"task": "task", "samples": "training samples"},
    )


SECTION = Section("sizes", "Samples <per task>", sizes)
