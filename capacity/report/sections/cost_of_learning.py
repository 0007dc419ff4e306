"""What learning cost against its speed limit."""

from __future__ import annotations

from collections.abc import Iterator

from capacity.records.numbers import span
from capacity.report.blocks import Absent, Block, Fold, Section
from capacity.report.cost_over_time import cost_figure, inefficiency_figure
from capacity.report.measure_figures import thermo_figure, thermo_table
from capacity.report.own_geometry import belief_table, decomposition_table, geometry_table
from capacity.results.view import RunView, pick

_LEAD = (
    "The speed limit: learning time times cost is at least the squared distance travelled. The "
    "inefficiency is by how many times a task's training exceeded that least."
)


def _content(view: RunView) -> Iterator[Block | None]:
    table = thermo_table(view)
    if table is None:
        yield Absent("No task was learned to its end, so no cost was closed.")
        return
    found = [pick(phase, "thermo", "inefficiency_path") for phase in view.phases]
    known = [e.value for e in found if e is not None and e.value is not None]
    said = f"Inefficiency {span(known)}, task by task" if known else "The cost, task by task"
    yield Fold(said, [_LEAD, thermo_figure(view) or table, geometry_table(view)])
    if (population := belief_table(view)) is not None:
        verdicts = sorted({str(row[6].text) for row in population.rows})
        yield Fold(
            f"Population of networks: T ΔF ≥ d² {' or '.join(verdicts)}",
            [population, decomposition_table(view)],
        )
    yield Fold(
        "Cost and distance along the training, epoch by epoch",
        [cost_figure(view), inefficiency_figure(view)],
    )


SECTION = Section("thermo", "Cost of learning", _content)
