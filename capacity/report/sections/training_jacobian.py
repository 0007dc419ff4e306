"""The spectrum of the training Jacobian, its parts and its log-volume."""

from __future__ import annotations

from collections.abc import Iterator

from capacity.report.blocks import Absent, Block, Section
from capacity.report.measure_figures import spectrum_figure, transport_table, volume_figure
from capacity.report.spectra import composed_figure
from capacity.report.spectrum_parts import parts_sentence, parts_table, rank_table
from capacity.results.view import RunView


def _content(view: RunView) -> Iterator[Block | None]:
    table = transport_table(view)
    if table is None:
        yield Absent("The Jacobian was not tracked, or no task was learned.")
        return
    yield (
        "J is the derivative of a task's final parameters with respect to those it started from. "
        "Singular values above 1 are amplified differences, below 1 forgotten ones."
    )
    parts = parts_table(view)
    if parts is not None:
        yield parts_sentence(view)
        yield composed_figure(view)
        yield parts
        yield rank_table(view)
    yield table
    yield spectrum_figure(view)
    yield volume_figure(view)


SECTION = Section("transport", "Training Jacobian", _content)
