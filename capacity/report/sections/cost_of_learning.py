"""What learning cost against its speed limit."""

from __future__ import annotations

from collections.abc import Iterator

from capacity.report.blocks import Absent, Block, Section
from capacity.report.cost_over_time import cost_figure, inefficiency_figure
from capacity.report.measure_figures import thermo_figure, thermo_table
from capacity.results.view import RunView


def _content(view: RunView) -> Iterator[Block | None]:
    table = thermo_table(view)
    if table is None:
        yield Absent("No task was learned to its end, so no cost was closed.")
        return
    yield (
        "The speed limit: learning time times cost is at least the squared distance travelled. The "
        "inefficiency is by how many times a task's training exceeded that least. Every path is at "
        "1 or above, whatever it learned: that is an identity, and checks the meter."
    )
    figures = [draw(view) for draw in (thermo_figure, cost_figure, inefficiency_figure)]
    yield from figures
    yield None if any(figures) else table


SECTION = Section("thermo", "Cost of learning", _content)
