"""The spectrum of the training Jacobian, its parts and its log-volume."""

from __future__ import annotations

from collections.abc import Iterator

from capacity.records.numbers import number, span
from capacity.report.blocks import Absent, Block, Fold, Section
from capacity.report.measure_figures import spectrum_figure, transport_table, volume_figure
from capacity.report.spectra import composed_figure
from capacity.report.spectrum_parts import parts_sentence, parts_table, rank_table
from capacity.results.view import RunView, pick

_LEAD = (
    "J is the derivative of a task's final parameters with respect to those it started from: above "
    "1 it amplifies a difference, below 1 it forgets it."
)


def _content(view: RunView) -> Iterator[Block | None]:
    table = transport_table(view)
    if table is None:
        yield Absent("The Jacobian was not tracked, or no task was learned.")
        return
    transports = [t for t in view.transports if t is not None]
    found = [pick(t, "effective_rank") for t in transports]
    ranks = [e.value for e in found if e is not None and e.value is not None]
    rank = f"; effective rank {span(ranks)}" if ranks else ""
    yield Fold(
        f"What training does to a small difference{rank}",
        [_LEAD, parts_sentence(view), composed_figure(view), parts_table(view), rank_table(view)],
    )
    top = [t["singular_values"][0]["value"] for t in transports if t["singular_values"]]
    if top:
        yield Fold(f"The largest singular value is {span(top)}", [spectrum_figure(view)])
    volumes = [pick(t, "log_volume_total") for t in transports]
    known = [e.value for e in volumes if e is not None and e.value is not None]
    volume = f"log|det J| ends at {number(known[-1], 2)} nats" if known else "log|det J|"
    yield Fold(f"Volume: {volume}", [table, volume_figure(view)])


SECTION = Section("transport", "Training Jacobian", _content)
