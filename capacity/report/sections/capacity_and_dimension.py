"""The room that old tasks left, what new ones needed, and what was measured beside that."""

from __future__ import annotations

from collections.abc import Iterator

from capacity.report import capacity_detail
from capacity.report.blocks import Absent, Block, Section
from capacity.report.closure_curve import closure_figure
from capacity.report.prediction import capacity_figure
from capacity.report.sentences import literal_sentence
from capacity.report.tables import eps_table, room_table
from capacity.results.view import RunView


def _content(view: RunView) -> Iterator[Block | None]:
    if not view.transitions:
        yield Absent("Neither was measured.")
        return
    yield (
        "R_A counts the directions that change no old task beyond a tolerance and that training "
        "can still reach; m_B counts those in which the new task is curved."
    )
    yield literal_sentence(view)
    yield room_table(view)
    yield capacity_figure(view)
    yield capacity_detail.verdict_table(view)
    yield closure_figure(view)
    yield capacity_detail.preserving_table(view)
    yield capacity_detail.sensitivity_table(view)
    yield capacity_detail.plasticity_table(view)
    yield eps_table(view)


SECTION = Section("capacity", "Capacity and dimension", _content)
