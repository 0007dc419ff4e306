"""Every task's score after every task."""

from __future__ import annotations

from capacity.report.blocks import Absent, Section
from capacity.report.learning import matrix_figure
from capacity.results.view import RunView

SECTION: Section[RunView] = Section(
    "accuracy",
    "After every task",
    lambda view: [matrix_figure(view) or Absent("No task was learned.")],
)
