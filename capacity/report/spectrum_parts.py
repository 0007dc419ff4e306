"""The three parts of the Jacobian's spectrum: what training stretched, left alone and shrank."""

from __future__ import annotations

from dataclasses import replace

from capacity.records.estimate import Estimate, Status
from capacity.records.number_format import Cell, cell, header_cell, stacked
from capacity.records.numbers import MISSING, number, plural
from capacity.report.tables import Table, TaskTable
from capacity.results.schema import Spectrum
from capacity.results.view import Record, RunView, pick


def parts_sentence(view: RunView) -> str:
    """Say how many directions training stretched, left alone and shrank.

    Args:
        view: The run.

    Returns:
        A few sentences on all tasks together where that was measured, else on the last one; empty
        where nothing was counted.
    """
    rows = _rows(view)
    if not rows:
        return ""
    transport = rows[-1][1]
    last = max(i for i, phase in enumerate(view.phases) if (phase or {}).get("transport"))
    all_ = bool(view.result.get("composed"))
    subject = "Learning all tasks" if all_ else f"Learning {view.spoken(last)}"
    parts = transport["parts"]
    counts = {part: pick(parts, part) for part in ("chaotic", "bulk", "stable")}
    if any(found is None or found.value is None for found in counts.values()):
        return ""
    high, low = f"{parts['chaotic_above']:g}", f"{parts['stable_below']:g}"
    total = _whole(transport["dimension"])
    said = (
        f"{subject} stretches {_about(counts['chaotic'])} of {total} directions (\u03c3 > {high}), "
        f"shrinks {_about(counts['stable'])} (\u03c3 \u2264 {low}) and leaves the lengths of "
        f"{_about(counts['bulk'])} nearly as they were."
    )
    turned = pick(transport, "alignment")
    if turned is not None and turned.value is not None:
        said += (
            " Among those, a direction at the start and its image at the end have a mean cosine of "
            f"{turned.value:.3f}."
        )
    open_ = [_NAMES[part] for part, found in counts.items() if not (found and found.resolved)]
    if open_:
        said += f" Not resolved: the count of what is {' and what is '.join(open_)}."
    return said


def parts_table(view: RunView) -> Table | None:
    """List the parts, the ranks and what stayed open, per task.

    Args:
        view: The run.

    Returns:
        The table; None where nothing was counted.
    """
    rows = _rows(view)
    if not rows:
        return None
    parts = rows[0][1]["parts"]
    high, low = f"{parts['chaotic_above']:g}", f"{parts['stable_below']:g}"
    return TaskTable(
        id="table-parts",
        caption="Parts of the spectrum: how many singular values lie where (replica 0)",
        columns=(
            "Task",
            f"Singular values::stretched, \u03c3 > {high}",
            "Singular values::bulk, between",
            f"Singular values::shrunk, \u03c3 \u2264 {low}",
            f"Rank of J \u2212 1, \u03c3 > {rows[0][1]['moved_above']:g}",
            "Cosine \u27e8u, v\u27e9 in the bulk",
        ),
        rows=[
            (
                header_cell(name),
                *(_counted(pick(transport, "parts", part)) for part in _NAMES),
                _at_least(pick(transport, "moved")),
                _cosine(pick(transport, "alignment")),
            )
            for name, transport in rows
        ],
        remark="Counts with their 90 % intervals, which hold the spread over random probes and "
        "what the sweeps leave open beside a threshold.",
    )


def rank_table(view: RunView) -> Table | None:
    """List the ranks, the smallest value found and what the spectrum took, per task.

    Args:
        view: The run.

    Returns:
        The table; None where nothing was counted.
    """
    rows = _rows(view)
    if not rows:
        return None
    return TaskTable(
        id="table-ranks",
        caption="Ranks of J, and what resolving it took (replica 0)",
        columns=(
            "Task",
            "Effective rank",
            "Stable rank",
            "Smallest \u03c3 found",
            "Sweeps::done, and missing",
        ),
        rows=[
            (
                header_cell(name),
                cell(pick(transport, "effective_rank")),
                cell(pick(transport, "stable_rank")),
                _smallest(transport),
                _sweeps(transport),
            )
            for name, transport in rows
        ],
        remark="Effective rank: exp of the entropy of \u03c3² / \u03a3\u03c3²; stable rank: "
        "|J|_F² / \u03c3\u2081². A smallest value that is not resolved is an upper bound.",
    )


_NAMES = {"chaotic": "stretched", "bulk": "left alone", "stable": "shrunk"}


def _rows(view: RunView) -> list[tuple[str, Record]]:
    """Tasks whose spectrum was counted, and all together; runs of older versions have none."""
    found: list[tuple[str, Spectrum | None]] = [
        (view.label(i), transport) for i, transport in enumerate(view.transports)
    ]
    composed = view.result.get("composed")
    if composed:
        found.append((f"all: {plural(int(composed['tasks']), 'task')}", composed))
    return [(name, transport) for name, transport in found if transport is not None]


def _whole(value: float) -> str:
    return number(round(value), 6)


def _about(found: Estimate | None) -> str:
    if found is None or found.value is None:
        return MISSING
    value = _whole(found.value)
    return value if found.stderr is None else f"about {value}"


def _counted(found: Estimate | None) -> Cell:
    """Show a count with its interval, which says what its note says."""
    return stacked(cell(None if found is None else _rounded(found), interval=True))


def _rounded(found: Estimate) -> Estimate:
    if found.value is None or not found.resolved:
        return replace(found, note="") if found.value is not None else found
    return replace(found, value=float(round(found.value)), note="")


def _cosine(found: Estimate | None) -> Cell:
    """Show a mean of cosines; its note only repeats that of the count."""
    return cell(None if found is None or found.value is None else replace(found, note=""))


def _at_least(found: Estimate | None) -> Cell:
    if found is None or found.value is None or found.resolved or found.stderr is not None:
        return _counted(found)
    return Cell(f"\u2265 {_whole(found.value)}", status="not resolved")


def _smallest(transport: Record) -> Cell:
    values = transport.get("smallest") or []
    if not values:
        return Cell(MISSING)
    first = values[0]
    return Cell(number(first["value"]), status="" if first["resolved"] else "not resolved")


def _sweeps(transport: Record) -> Cell:
    if transport.get("exact"):
        return Cell("written out", numeric=False)
    missing = pick(transport, "sweeps_missing")
    if missing is None or missing.value is None:
        return Cell(str(transport["sweeps"]))
    if missing.status is Status.OK:
        return Cell(f"{transport['sweeps']} + 0")
    return Cell(f"{transport['sweeps']} + {_whole(missing.value)}", status="extrapolated")
