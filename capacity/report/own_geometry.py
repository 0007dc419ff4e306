"""The cost of learning in the metric that an optimiser's own steps are steepest descent in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from capacity.records.number_format import cell, header_cell, text_cell
from capacity.report.tables import Table, TaskTable
from capacity.results.view import RunView, pick

_CURVED = (
    " The metric is curved: d² lies between what the network's outputs moved by, which is shown as "
    "d², and the square of the path's length, and the inefficiency between the two ratios."
)


def geometry_table(view: RunView) -> Table | None:
    """List every task's cost against its speed limit in that metric.

    Args:
        view: The run.

    Returns:
        The table; None where the metric is Euclid's, which other tables are in.
    """
    known: list[tuple[int, Mapping[str, Any]]] = []
    for i, phase in enumerate(view.phases):
        thermo: Mapping[str, Any] = (phase.get("thermo") if phase else None) or {}
        if (own := thermo.get("geometry")) is not None:
            known.append((i, own))
    curved = any("length_sq" in own for _, own in known)
    columns = ("distance_sq", "action", "inefficiency", "loss_drop_ratio")
    bounds = ("length_sq", "least_inefficiency") if curved else ()
    rows = [
        (
            header_cell(view.label(i)),
            text_cell(own["name"]),
            *(cell(pick(own, column)) for column in (*columns, *bounds)),
        )
        for i, own in known
    ]
    if not rows:
        return None
    return TaskTable(
        id="table-geometry",
        caption="Cost of learning in the metric of the optimiser's own steps",
        columns=(
            "Task",
            "Metric",
            "d²",
            "Action",
            "× the speed limit::inefficiency",
            "× the speed limit::T \u0394L over d²",
            *(("Length², at least d²", "× the speed limit::at least") if curved else ()),
        ),
        rows=rows,
        remark="In it the steps are steepest descent, so that learning time times loss drop is at "
        f"least the squared distance d².{_CURVED if curved else ''}",
    )


def decomposition_table(view: RunView) -> Table | None:
    """Part what every task improved a belief's expected loss by into what it was spent on.

    Args:
        view: The run.

    Returns:
        The table; None where a point learned, or the result is an earlier one.
    """
    columns = ("energy_drop", "transport", "commitment", "excess", "gibbs_fall", "gibbs_after")
    rows = []
    for i, phase in enumerate(view.phases):
        thermo: Mapping[str, Any] = (phase.get("thermo") if phase else None) or {}
        cost = thermo.get("belief")
        if cost is not None and all(column in cost for column in columns[:4]):
            rows.append((
                header_cell(view.label(i)),
                *(cell(pick(cost, column)) for column in columns),
            ))
    if not rows:
        return None
    return TaskTable(
        id="table-decomposition",
        caption="What the improvement of the expected loss was spent on",
        columns=(
            "Task",
            "Expected loss fell by",
            "Transport, d²/T",
            "Commitment",
            "Excess",
            "Nats from the Gibbs law::fell by",
            "Nats from the Gibbs law::left, at least",
        ),
        rows=rows,
        remark="The fall is the sum of the other three. Commitment is the temperature times the "
        "entropy that the belief gave up; excess is what a flow at its speed limit would have "
        "saved, and below 0 only where steps are no flow, or a strategy changed what is learned. "
        "The belief's divergence from the Gibbs law of the task at its temperature fell by the "
        "free energy spent over the temperature; what is left is at least what the draws tell.",
    )


def belief_table(view: RunView) -> Table | None:
    """List what every task cost a belief against the limit of its population of networks.

    Args:
        view: The run.

    Returns:
        The table; None where a point learned.
    """
    rows, metric, solved = list[Any](), "", ""
    for i, phase in enumerate(view.phases):
        thermo: Mapping[str, Any] = (phase.get("thermo") if phase else None) or {}
        cost = thermo.get("belief")
        if phase is None or cost is None:
            continue
        metric = cost["geometry"]
        columns = ("dissipation", "entropy_gain", "distance_sq", "inefficiency")
        errors = phase.get("calibration") or []
        if (left := thermo.get("implicit")) is not None:
            solved = (
                " Steps are implicit: on the last task listed the gradient at their ends differs "
                f"from the one they went along by {cell(pick(left, 'residual')).text} of its "
                f"length, and by {left['largest']:.2g} at most."
            )
        rows.append((
            header_cell(view.label(i)),
            *(cell(pick(cost, column)) for column in columns),
            cell(pick(thermo, "inefficiency_path")),
            text_cell(cost["verdict"]),
            cell(pick({"error": errors[-1]}, "error") if errors else None),
        ))
    if not rows:
        return None
    return TaskTable(
        id="table-belief",
        caption="Free energy that the belief spent on every task, against its speed limit",
        columns=(
            "Task",
            "Free energy spent",
            "Entropy gained, nats",
            "d²",
            "× the speed limit::population",
            "× the speed limit::path of the moments",
            "T \u0394F \u2265 d²",
            "Calibration error",
        ),
        rows=rows,
        remark="The belief is the law of a population of networks, so that free energy and "
        f"distance (in the {metric} metric) are known up to the error of the draws. The path is "
        "that of (widths, means) in Euclid's metric. Calibration error: on the task's test split, "
        f"after it was learned.{solved}",
    )
