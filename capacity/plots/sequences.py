"""Figures along a run: learning and forgetting, the cost of it, and how room closes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capacity.plots.style import (
    COLORS,
    COLUMN,
    MUTED,
    blank,
    legend,
    nothing,
    styled,
    task_colors,
    view_of,
)
from capacity.report.capacity_detail import form_unit
from capacity.results.view import RunView, pick

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def learning_curves(run: object) -> Figure:
    """Draw the test score of every task over the whole sequence, a line per task.

    Bands are one standard error over replicas. Dotted lines are where a task begins.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The figure. A path without a run is a ValueError.
    """
    view = view_of(run)
    kind, scale = ("accuracy", 100.0) if view.classifies else ("loss", 1.0)
    figure, axes = blank(2 * COLUMN)
    n = len(view.tasks)
    for j, color in enumerate(task_colors(n)):
        known = [
            (row["step"], row[f"test_{kind}"][j], (row.get(f"test_{kind}_stderr") or [None] * n)[j])
            for row in view.rows
            if j < len(row.get(f"test_{kind}") or []) and row[f"test_{kind}"][j] is not None
        ]
        named = n <= len(COLORS) or j in {0, n - 1}
        _line(axes, known, scale, color, label=f"task {j + 1}" if named else None)
    _begins(axes, view)
    axes.set_ylabel(f"{view.scored_on} {kind}" + (", %" if view.classifies else ""))
    legend(axes)
    return figure


@styled
def cost_along(run: object) -> Figure:
    """Draw what learning cost against the distance it covered, epoch by epoch.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The figure: left T times the entropy production (by action and by loss drop) above the two
        bounds of W2^2; right the inefficiency so far, 1 being the speed limit. A path without a
        run is a ValueError.
    """
    view = view_of(run)
    figure, (left, right) = blank(2 * COLUMN, 2.4, columns=2)
    costs = {
        "$T\\,\\Sigma$, action": ("action", COLORS[1], "-"),
        "$T\\,\\Delta L$": ("loss_drop", COLORS[4], "--"),
        "$W_2^2$ at most": ("displacement_sq", COLORS[0], "-"),
        "$W_2^2$ at least": ("w2_lower", COLORS[0], ":"),
    }
    ratios = {
        "inefficiency": ("inefficiency_path", COLORS[1], "-"),
        "$T\\,\\Delta L$ over $|\\Delta\\theta|^2$": ("loss_drop_ratio", COLORS[4], "--"),
    }
    for axes, kinds, label in (
        (left, costs, "$T\\,\\Sigma$ and $W_2^2$"),
        (right, ratios, "\u00d7 the speed limit"),
    ):
        drawn = [
            _per_task(axes, view, name, color, style, said)
            for said, (name, color, style) in kinds.items()
        ]
        if not any(drawn):
            nothing(axes, "the run recorded no cost along the way")
            continue
        axes.set_yscale("log")
        _begins(axes, view)
        axes.set_ylabel(label)
        legend(axes, columns=2)
    if right.lines:
        right.axhline(1.0, color=MUTED, linewidth=0.6)
    return figure


@styled
def closure_curves(run: object) -> Figure:
    """Draw how, while a task is learned, the next one comes to make the network forget.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The figure: what the form that decides says of the next task against the learning time of
        the one before, with its threshold (dashed). A path without a run is a ValueError.
    """
    view = view_of(run)
    figure, axes = blank()
    found = [t for t in view.transitions if t.get("closures") and t.get("verdicts")]
    if not found:
        nothing(axes, "closure was not measured")
        return figure
    form = str(found[0]["verdicts"]["decides"])
    name, scale, unit = form_unit(view, form)
    colors = task_colors(len(view.tasks))
    for transition in found:
        curve, i = transition["closures"][form], int(transition["task"])
        side = "need" if curve["fires_above"] else "capacity"
        points = [(point["time"], pick(point, side)) for point in curve["points"]]
        # Bands of many curves would hide them.
        known = [
            (at, e.value, e.stderr if len(found) <= len(COLORS) else None)
            for at, e in points
            if e and e.value is not None
        ]
        named = len(found) <= len(COLORS) or transition in (found[0], found[-1])
        label = f"task {i + 1}" if named else None
        _line(axes, known, scale, colors[i], label=label, marker="o")
    limit = float(found[0]["closures"][form]["threshold"]) * scale
    axes.axhline(limit, color=MUTED, linewidth=0.8, linestyle="--", label="threshold")
    axes.set_xlabel("learning time of the task before")
    axes.set_ylabel(f"{name}{',' if unit else ''}{unit}")
    legend(axes)
    return figure


def _line(
    axes: Axes,
    known: list[tuple[float, float, float | None]],
    scale: float,
    color: str,
    **style: Any,
) -> None:
    """Draw values with a band of one standard error."""
    if not known:
        return
    x = [at for at, _, _ in known]
    y = [value * scale for _, value, _ in known]
    axes.plot(x, y, color=color, markersize=3, **style)
    errors = [(error or 0.0) * scale for _, _, error in known]
    if any(errors):
        low = [v - e for v, e in zip(y, errors, strict=True)]
        high = [v + e for v, e in zip(y, errors, strict=True)]
        axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)


def _per_task(axes: Axes, view: RunView, name: str, color: str, style: str, label: str) -> bool:
    """Draw a quantity that starts anew with every task; costs are multiplied with learning time."""
    timed, drawn = name in {"action", "loss_drop"}, False
    for i in range(len(view.tasks)):
        rows = [row for row in view.rows if int(row["task"]) == i]
        begun = rows[0]["learning_time"] if rows else 0.0
        points = [
            (row["step"], row[name] * (row["learning_time"] - begun if timed else 1.0))
            for row in rows
            if row.get(name) is not None
        ]
        points = [(step, value) for step, value in points if value > 0]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, color=color, linestyle=style, label=None if drawn else label)
            drawn = True
    return drawn


def _begins(axes: Axes, view: RunView) -> None:
    for i in range(1, len(view.tasks)):
        step = next((row["step"] for row in view.rows if int(row["task"]) == i), None)
        if step is not None:
            axes.axvline(step, color=MUTED, linewidth=0.6, linestyle=":")
    axes.set_xlabel("training step")
