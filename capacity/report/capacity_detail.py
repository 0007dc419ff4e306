"""Capacity in detail: every form of the criterion, how sure it is, and what it hangs on."""

from __future__ import annotations

import math

from capacity.records.number_format import Cell, cell, header_cell, text_cell
from capacity.records.numbers import MISSING, number, plural, with_error
from capacity.report.tables import Table, TaskTable, drop_target
from capacity.results.criterion_schema import FormName, Verdicts
from capacity.results.schema import Transition
from capacity.results.view import Record, RunView, measured_mean, pick

FORMS: dict[FormName, tuple[str, float, str]] = {
    "capacity": ("kept of B's kernel", 1.0, ""),
    "transport_cost": ("C", 1.0, ""),
    "directional": ("expected drop on the old tasks", 100.0, " points"),
}
"""Forms of the criterion beside the literal one: what each measures, its scale in print, a unit."""

_PREDICTED, _LEFT = "forgetting predicted", "room left"


def form_unit(view: RunView, form: FormName) -> tuple[str, float, str]:
    """Say how a form's value is told; the directional one speaks of the loss in regression.

    Args:
        view: The run.
        form: Name of the form.

    Returns:
        What it measures, its scale in print, and its unit.
    """
    if form == "directional" and not view.classifies:
        return "expected rise of the old tasks' loss", 1.0, ""
    return FORMS[form]


def capital(text: str) -> str:
    """Begin a sentence.

    Args:
        text: Its words.

    Returns:
        The words with a capital letter.
    """
    return text[:1].upper() + text[1:]


def decides_sentence(view: RunView) -> str:
    """Say in plain words which form of the criterion decides here, and what it says.

    Args:
        view: The run.

    Returns:
        A few sentences; empty where no form but the literal one was measured.
    """
    found = [v for t in view.transitions if (v := t.get("verdicts"))]
    if not found:
        return ""
    # The optimiser is the same throughout, and it alone says how the form is had.
    name = str(found[0]["decides"]).replace("_", " ")
    said = [str(v["verdict"]) for v in found]
    one = len(found) == 1
    parts = [
        word if one else f"{word} in {said.count(verdict)}"
        for verdict, word in (
            (_PREDICTED, "predicts forgetting"),
            (_LEFT, "sees room left"),
            ("undecided", "is undecided"),
        )
        if verdict in said
    ]
    of = "" if one else f" of the {plural(len(found), 'transition')},"
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"What decides instead is the {name} form:{of} it {listed}."


def verdict_table(view: RunView) -> Table | None:
    """List every form of the criterion per transition.

    Args:
        view: The run.

    Returns:
        The table; None where no form but the literal one was measured.
    """
    rows: list[tuple[Cell, ...]] = []
    source = ""
    for transition in view.transitions:
        verdicts = transition.get("verdicts")
        if not verdicts:
            continue
        source = str(verdicts["source"])
        head = header_cell(view.label(transition["task"]))
        rows.append((head, *_literal(transition.get("literal")), Cell("")))
        rows += [(head, *_form(view, transition, verdicts, form)) for form in FORMS]
    if not rows:
        return None
    measured = "; ".join(f"{form.replace('_', ' ')}: {form_unit(view, form)[0]}" for form in FORMS)
    return TaskTable(
        id="table-criterion",
        caption="Will the new task make the network forget? Every form of the criterion",
        columns=(
            "New task",
            "Form",
            "Value",
            "Predicts forgetting",
            "Margin",
            "Verdict",
            "Measured drop, points" if view.classifies else "Measured rise of the loss",
        ),
        rows=rows,
        remark="Judged on replica 0 before the new task is trained. Literal: R_A \u2212 m_B in "
        f"directions; {measured}. The margin is the distance to the threshold, positive where "
        "there is room left; undecided where the 90 % interval holds the threshold. "
        f"Thresholds: {source}.",
    )


def preserving_table(view: RunView) -> Table | None:
    """List how the preserving space was chosen, and how well it is known.

    Args:
        view: The run.

    Returns:
        The table; None where it was not recorded.
    """
    rows = []
    for transition in view.transitions:
        found = transition.get("capacity")
        convergence = found and found.get("convergence")
        if not found or not convergence:
            continue
        reach = cell(pick(convergence, "remaining"))
        rows.append((
            header_cell(view.label(transition["task"])),
            Cell(number(found["tolerance"])),
            Cell(number(found["displacement"])),
            Cell(number(found["curvature_threshold"])),
            _removed(found),
            cell(pick(found, "soft_removed")),
            cell(pick(found, "subspace_error")),
            cell(pick(convergence, "gradient")),
            Cell(reach.text, reach.status, convergence["note"] or reach.note),
            cell(pick(transition, "dimension", "negative_share"), scale=100.0),
        ))
    if not rows:
        return None
    return TaskTable(
        id="table-preserving",
        caption="The preserving space: how it was chosen, and how well it is known (replica 0)",
        columns=(
            "New task",
            "Tolerance a",
            "Displacement d",
            "Threshold 2a/d²",
            "Directions removed::hard cut",
            "Directions removed::soft",
            "Sine to the true space, at most",
            "Old tasks::|gradient|",
            "Old tasks::loss still in reach",
            "Negative share of |H_B|, %",
        ),
        rows=rows,
        remark="The default tolerance is the standard error of the old tasks' own test loss, the "
        "default displacement how far the last task moved the parameters.",
    )


def sensitivity_table(view: RunView) -> Table | None:
    """List R_A over tolerances and scales.

    Args:
        view: The run.

    Returns:
        The table; None where it was not measured.
    """
    rows = []
    scales: list[float] = []
    for transition in view.transitions:
        found = transition.get("capacity")
        if found is None:
            continue
        for part in found.get("sensitivity") or []:
            scales = [at["eps"] for at in part["by_eps"]]
            chosen = math.isclose(part["tolerance"], found["tolerance"])
            rows.append((
                header_cell(view.label(transition["task"])),
                Cell(number(part["tolerance"]) + (" (chosen)" if chosen else "")),
                Cell(str(part["removed"]), "" if part["removed_complete"] else "at least"),
                cell(pick(part, "soft_removed")),
                *(cell(pick(at, "directions")) for at in part["by_eps"]),
            ))
    if not rows:
        return None
    return TaskTable(
        id="table-sensitivity",
        caption="What R_A hangs on: the tolerance a and the scale \u03b5",
        columns=(
            "New task",
            "Tolerance a",
            "Directions removed::hard cut",
            "Directions removed::soft",
            *(f"R_A in directions::\u03b5 = {eps:g}" for eps in scales),
        ),
        rows=rows,
        remark="The old tasks' curvature has no gap to cut at, so what is removed moves with the "
        "tolerance. R_A stays of the order of P at any choice.",
    )


def plasticity_table(view: RunView) -> Table | None:
    """List whether the network can still learn, beside the room that is left.

    Args:
        view: The run.

    Returns:
        The table; None where it was not measured.
    """
    rows = []
    for transition in view.transitions:
        found = transition.get("plasticity")
        if not found:
            continue
        rows.append((
            header_cell(view.label(transition["task"])),
            cell(pick(transition, "capacity", "directions")),
            cell(pick(transition, "verdicts", "capacity", "value")),
            cell(pick(found, "feature_rank")),
            cell(pick(found, "feature_srank")),
            cell(pick(found, "dormant"), scale=100.0),
            cell(pick(found, "gradient_rank")),
            cell(pick(found, "weight_norm")),
        ))
    if not rows:
        return None
    return TaskTable(
        id="table-plasticity",
        caption="Room and plasticity along the sequence (replica 0)",
        columns=(
            "New task",
            "Room left::R_A, directions",
            "Room left::kept of B's kernel",
            "Features::effective rank",
            "Features::values that hold 99 %",
            "Dormant units, %",
            "Gradients: effective rank",
            "|\u03b8|",
        ),
        rows=rows,
        remark="On samples of the new task, before it is trained. Features: those that enter the "
        "last layer. Dormant: mean activation at most 0.025 of that of the layer.",
    )


def _literal(literal: Record | None) -> tuple[Cell, ...]:
    name, sign = text_cell("literal"), text_cell("< 0")
    if literal is None:
        return name, Cell(MISSING), sign, Cell(MISSING), text_cell("not measured")
    margin, stderr = literal["margin"], literal.get("stderr")
    value = with_error(margin, stderr) if margin is not None and stderr else number(margin)
    verdict = text_cell(str(literal["verdict"]))
    return name, Cell(value), sign, Cell(number(margin)), verdict


def _form(
    view: RunView, transition: Transition, verdicts: Verdicts, form: FormName
) -> tuple[Cell, ...]:
    found = verdicts[form]
    decides = verdicts["decides"] == form
    _, scale, unit = form_unit(view, form)
    value, margin = pick(found, "value"), found["margin"]
    plain = cell(value, scale=scale)
    note = plain.note if value is None or value.value is None else found["note"]
    target, factor, _ = drop_target(view)
    sign = ">" if found["fires_above"] else "\u2264"
    return (
        text_cell(form.replace("_", " ") + (", decides" if decides else "")),
        Cell(plain.text + (unit if plain.text != MISSING else ""), plain.status, note),
        text_cell(f"{sign} {number(found['threshold'] * scale, 2)}{unit}"),
        Cell(MISSING if margin is None else number(margin * scale, 2)),
        text_cell(str(found["verdict"]), note=" ".join(verdicts["warnings"]) if decides else ""),
        cell(measured_mean(view, transition, target), scale=factor) if decides else Cell(""),
    )


def _removed(found: Record) -> Cell:
    removed, between = found["removed"], found.get("removed_range")
    status = "" if found["removed_complete"] else "at least"
    if between is None or between[0] == between[1]:
        return Cell(str(removed), status)
    note = "Where the cut falls in no gap: the count lies in this range."
    return Cell(f"{removed} ({between[0]} to {between[1]})", status, note)
