"""What was kept and lost of every task, in numbers."""

from __future__ import annotations

from capacity.report.blocks import Absent, Section
from capacity.report.forgetting import forgetting_tables
from capacity.results.view import RunView

_NONE = Absent("Fewer than two tasks were learned, so nothing could be forgotten.")

SECTION: Section[RunView] = Section(
    "forgetting", "Forgetting tables", lambda view: forgetting_tables(view) or [_NONE]
)
