"""Tables of a comparison: one row per variant, per field that differs, per run."""

from __future__ import annotations

import os
from pathlib import Path

from capacity.base.printable import visible
from capacity.comparison import compared_measures
from capacity.comparison.compared_measures import Quantity
from capacity.records.number_format import Cell, cell, header_cell, text_cell
from capacity.records.numbers import plural
from capacity.report.tables import Table
from capacity.results.gather import Entry, Gathered, Variant
from capacity.results.recipe_differences import spoken


def summary_table(gathered: Gathered) -> Table:
    """List what every variant ended with.

    Args:
        gathered: The runs.

    Returns:
        The table.
    """
    shown = compared_measures.quantities(gathered)
    rows = [
        (
            header_cell(variant.label),
            text_cell(runs_said(variant)),
            *(_of_variant(variant, quantity) for quantity in shown),
        )
        for variant in gathered.variants
    ]
    several = any(len(variant.counted) > 1 for variant in gathered.variants)
    single = any(len(variant.counted) == 1 for variant in gathered.variants)
    spread = []
    if several:
        spread.append("Mean \u00b1 standard error over seeds.")
    if single:
        spread.append("Where one run is counted: \u00b1 standard error over its replicas.")
    return Table(
        caption="What every variant ended with",
        columns=("Variant", "Runs counted", *(quantity.head for quantity in shown)),
        rows=rows,
        remark=" ".join([*spread, "Only finished runs are counted."]),
        stacks=True,
    )


def _of_variant(variant: Variant, quantity: Quantity) -> Cell:
    found = compared_measures.of_variant(variant, quantity)
    return cell(found, scale=quantity.scale, bounds=quantity.bounds)


def runs_said(variant: Variant) -> str:
    """Count the runs of a variant, those left out named by their state.

    Args:
        variant: The variant.

    Returns:
        As `3 of 4 (1 diverged)`.
    """
    counted, total = len(variant.counted), len(variant.entries)
    if counted == total:
        return str(total)
    states = [entry_state(entry) for entry in variant.entries if not entry.counted]
    said = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{counted} of {total} ({said})"


def entry_state(entry: Entry) -> str:
    """Name the state of a run, in a few words.

    Args:
        entry: The run.

    Returns:
        finished, diverged, interrupted, failed, unfinished or repeated.
    """
    if entry.twin is not None:
        return "repeated"
    return {"running": "unfinished"}.get(entry.view.state, entry.view.state)


def difference_table(gathered: Gathered) -> Table | None:
    """List the fields in which the recipes differ.

    Args:
        gathered: The runs.

    Returns:
        The table; None where all runs have one recipe.
    """
    if not gathered.differences:
        return None
    return Table(
        caption="Fields of the recipe that differ",
        columns=("Field", *(variant.label for variant in gathered.variants)),
        rows=[
            (header_cell(f), *(text_cell(spoken(v.values[f])) for v in gathered.variants))
            for f in gathered.differences
        ],
        remark="All other fields are the same in all runs, apart from name, description and seed.",
    )


def run_table(gathered: Gathered) -> Table:
    """List every run with its state.

    Args:
        gathered: The runs.

    Returns:
        The table.
    """
    shown = compared_measures.quantities(gathered)[:2]
    rows = [
        (
            header_cell(variant.label),
            Cell(str(entry.seed)),
            _state(entry),
            Cell(f"{entry.view.learned} of {len(entry.view.tasks)}" if entry.view.tasks else "0"),
            *(_of_entry(entry, quantity) for quantity in shown),
            text_cell(place(entry.path)),
        )
        for variant in gathered.variants
        for entry in variant.entries
    ]
    return Table(
        caption="Runs with their state",
        columns=(
            "Variant",
            "Seed",
            "State",
            "Tasks learned",
            *(quantity.head for quantity in shown),
            "Directory",
        ),
        rows=rows,
        remark="A run that did not finish shows what it had reached; it enters no mean. "
        "\u00b1: standard error over the replicas of the run.",
    )


def _state(entry: Entry) -> Cell:
    state = entry_state(entry)
    if state == "finished":
        return text_cell(state)
    note = f"Same recipe and seed as {place(entry.twin)}, which is counted." if entry.twin else ""
    note = note or str(entry.view.status.get("message") or "").strip()
    return Cell("", status=state, note=note, numeric=False)


def _of_entry(entry: Entry, quantity: Quantity) -> Cell:
    missing = "" if entry.view.result else "nothing measured"
    return cell(
        quantity.read(entry.view), scale=quantity.scale, bounds=quantity.bounds, missing=missing
    )


def place(path: Path) -> str:
    """Show a path from here where it lies below: no page needs the rest of a machine's tree."""
    shown = os.path.relpath(path)
    return shown if not shown.startswith("..") else path.name


def task_table(gathered: Gathered) -> Table | None:
    """List what every variant kept and lost of each task.

    Args:
        gathered: The runs.

    Returns:
        The table; None where the runs learn different tasks, or none finished.
    """
    if not gathered.counted or not gathered.same_tasks:
        return None
    kind, scale = ("accuracy", 100.0) if gathered.classifies else ("loss", 1.0)
    names = gathered.counted[0].view
    rows = []
    for variant in gathered.variants:
        if variant.counted:
            found = [task_estimate(variant, kind, j) for j in range(len(names.tasks))]
            rows.append((header_cell(variant.label), *(cell(e, scale=scale) for e in found)))
    unit = ", %" if gathered.classifies else ""
    return Table(
        caption=f"{gathered.scored_on.capitalize()} {kind} on every task at the end{unit}",
        columns=("Variant", *(names.label(j) for j in range(len(names.tasks)))),
        rows=rows,
    )


def task_estimate(variant: Variant, kind: str, j: int) -> compared_measures.Estimate | None:
    """Average the final score on one task over the runs of a variant.

    Args:
        variant: The variant.
        kind: `accuracy` or `loss`.
        j: The task.

    Returns:
        Mean over seeds, or over replicas where one run is counted; None without one.
    """
    runs = []
    for entry in variant.counted:
        replicas = entry.view.scores(kind).get("replicas") or []
        last = [matrix[entry.view.learned - 1][j] for matrix in replicas]
        runs.append([value for value in last if value is not None])
    runs = [values for values in runs if values]
    if not runs:
        return None
    if len(runs) == 1:
        return compared_measures.from_samples(runs[0])
    return compared_measures.from_samples([sum(values) / len(values) for values in runs])


def terminal(gathered: Gathered) -> str:
    """Write the comparison for a terminal.

    Args:
        gathered: The runs.

    Returns:
        Lines: the summary as columns, what differs, runs that are not counted.
    """
    shown = compared_measures.quantities(gathered)
    heads = [f"{q.short}, %" if q.unit == "%" else q.short for q in shown]
    rows = [["variant", "runs", *heads]]
    for row in summary_table(gathered).rows:
        rows.append([f"{c.text} {c.status}".strip() for c in row])
    lines = _columns(rows)
    if gathered.differences:
        fields = [
            [field, *(spoken(variant.values[field]) for variant in gathered.variants)]
            for field in gathered.differences
        ]
        heads = ["what differs", *(variant.label for variant in gathered.variants)]
        lines += ["", *_columns([heads, *fields])]
    out = [
        f"  {place(entry.path)}: {entry_state(entry)}"
        for entry in gathered.entries
        if not entry.counted
    ]
    if out:
        lines += ["", f"not counted: {plural(len(out), 'run')}", *out]
    return visible("\n".join(lines))


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join(f"{t:<{w}}" for t, w in zip(row, widths, strict=True)) for row in rows]
    return [line.rstrip() for line in lines]
