"""The sections of a report: one file each, one line each.

A section of one's own stands in a file like these, and is added by one line:

    capacity.report.sections.register(SECTION)

or, in a package of one's own, by an entry point `mine = "package:SECTION"` in the group
`capacity.report.sections`, for every report that is written where the package is installed.
"""

from capacity.base.registry import register_installed
from capacity.report.blocks import Absent as Absent
from capacity.report.blocks import Answer as Answer
from capacity.report.blocks import Code as Code
from capacity.report.blocks import Fold as Fold
from capacity.report.blocks import Heading as Heading
from capacity.report.blocks import Line as Line
from capacity.report.blocks import Lines as Lines
from capacity.report.blocks import Pair as Pair
from capacity.report.blocks import Part as Part
from capacity.report.blocks import Section as Section
from capacity.report.blocks import Sections
from capacity.report.sections import (
    capacity_and_dimension,
    cost_of_learning,
    forecast_and_measured,
    generated_samples,
    learning_and_forgetting,
    method_notes,
    reproduce,
    strategies_forecast,
    training_jacobian,
    verdict,
)
from capacity.results.view import RunView

SECTIONS: Sections[RunView] = Sections([
    verdict.SECTION,
    learning_and_forgetting.SECTION,
    generated_samples.SECTION,
    forecast_and_measured.SECTION,
    strategies_forecast.SECTION,
    capacity_and_dimension.SECTION,
    training_jacobian.SECTION,
    cost_of_learning.SECTION,
    reproduce.SECTION,
    method_notes.SECTION,
])
"""The report, in the order of the page."""
register = SECTIONS.register
"""Adds a section to every report that this process writes from now on."""


def _register_installed(section: Section[RunView]) -> None:
    if section not in SECTIONS:  # its module may have registered it
        register(section, before=reproduce.SECTION.anchor)


register_installed("capacity.report.sections", _register_installed)
