"""The room that old tasks left, what new ones needed, and what was measured beside that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from capacity.records.estimate import Estimate
from capacity.records.numbers import number, plural, span
from capacity.report import capacity_detail
from capacity.report.blocks import Absent, Block, Fold, Section
from capacity.report.closure_curve import closure_figure, closures_of
from capacity.report.full_cost import full_sentence
from capacity.report.prediction import capacity_figure
from capacity.report.sentences import literal_sentence
from capacity.report.tables import eps_table, room_table
from capacity.results.schema import Transition
from capacity.results.view import RunView, pick


def _content(view: RunView) -> Iterator[Block | None]:
    measured = [t for t in view.transitions if t.get("capacity") or t.get("dimension")]
    if not measured:
        yield Absent(full_sentence(view))
        return
    yield literal_sentence(view)
    room = [pick(t, "capacity", "directions") for t in measured]
    need = [pick(t, "dimension", "stable_rank") for t in measured]
    parameters = number(view.result["model"]["parameters"], 6)
    yield Fold(
        f"Room R_A {_span(room)} of {parameters} directions, need m_B {_span(need)}",
        [capacity_figure(view) or room_table(view)],
    )
    yield _free(measured)
    yield Fold(_decided(view), [capacity_detail.verdict_table(view)])
    closed = [c[v["decides"]]["closes"] for _, v, c in closures_of(view)]
    yield Fold(
        f"While a task is learned, the room for the next one closes in {closed.count(True)} of "
        f"{plural(len(closed), 'training')}",
        [closure_figure(view)],
    )
    removed = [float(c["removed"]) for t in measured if (c := t.get("capacity"))]
    if removed:
        yield Fold(
            f"The old tasks hold {span(removed)} directions; what that count and R_A hang on",
            [
                capacity_detail.preserving_table(view),
                capacity_detail.sensitivity_table(view),
                eps_table(view),
            ],
        )
    dormant = [pick(t, "plasticity", "dormant") for t in measured]
    ranks = [pick(t, "plasticity", "feature_rank") for t in measured]
    yield Fold(
        f"Can it still learn? Dormant units {_span(dormant, 100.0)} %, effective rank of the "
        f"features {_span(ranks)}",
        [capacity_detail.plasticity_table(view)],
    )


def _free(measured: Sequence[Transition]) -> str:
    """Say how much of R_A is symmetry."""
    counted = [n for t in measured if (c := t.get("capacity")) and (n := c.get("rescalings"))]
    if not counted:
        return ""
    return (
        f"Of the directions in R_A, at least {span([float(n) for n in counted])} are rescalings of "
        "hidden units, a weight in against a weight out, which change nothing: room on paper only."
    )


def _span(found: list[Estimate | None], scale: float = 1.0) -> str:
    known = [scale * e.value for e in found if e is not None and e.value is not None]
    return span(known) if known else "not defined"


def _decided(view: RunView) -> str:
    said = [str(v["verdict"]) for t in view.transitions if (v := t.get("verdicts"))]
    fires = said.count("forgetting predicted")
    return f"Every form of the criterion: forgetting predicted in {fires} of {len(said)}"


SECTION = Section("capacity", "Capacity and dimension", _content)
