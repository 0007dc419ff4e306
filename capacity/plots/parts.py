"""Figures of the whole spectrum in its three parts, and of strategies as they were forecast."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capacity.plots.style import (
    COLORS,
    COLUMN,
    INK,
    MUTED,
    blank,
    legend,
    nothing,
    styled,
    task_colors,
    view_of,
)
from capacity.report.spectra import density_classes, density_source
from capacity.report.strategy_forecasts import foreseen, ranked
from capacity.report.tables import drop_target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEAST = 0.3


@styled
def composed_spectrum(run: object) -> Figure:
    """Draw how many singular values of J lie where: shrunk, left alone, stretched.

    Of all tasks together where that was measured, else of the last one. Hollow bars are not
    resolved.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The figure. A path without a run is a ValueError.
    """
    view = view_of(run)
    figure, axes = blank()
    found = density_source(view)
    rows = [] if found is None else [r for r in density_classes(found[1]) if r["count"] >= _LEAST]
    if found is None or not rows:
        nothing(axes, "the spectrum was not counted")
        return figure
    colors = {"shrunk": COLORS[0], "left alone": MUTED, "stretched": COLORS[1]}
    named: set[str] = set()
    for row in rows:
        part, color = row["part"], colors[row["part"]]
        axes.bar(
            row["from"],
            row["count"] - _LEAST,
            width=row["to"] - row["from"],
            bottom=_LEAST,
            align="edge",
            facecolor=color if row["resolved"] else "white",
            edgecolor="white" if row["resolved"] else color,
            linestyle="-" if row["resolved"] else "--",
            linewidth=0.8,
        )
        if part not in named:
            axes.bar(1, 0, color=color, label=part)
            named.add(part)
        if row["spread"]:
            axes.plot([row["middle"]] * 2, [row["low"], row["high"]], color=INK, linewidth=0.9)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(_LEAST, None)
    axes.axvline(1.0, color=MUTED, linewidth=0.6, linestyle=":")
    axes.set_xlabel(f"singular value of $J$ of {found[0]}\n(hollow: not resolved)")
    axes.set_ylabel("singular values in the class")
    legend(axes)
    return figure


@styled
def strategies_ranked(run: object) -> Figure:
    """Draw what every strategy was forecast to cost, the best average on top.

    A dot per new task, a bar at the mean over them.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The figure. A path without a run is a ValueError.
    """
    view = view_of(run)
    order = ranked(view)
    height = max(0.28 * len(order) + 0.8, 1.6)
    figure, axes = blank(COLUMN, height)
    if not order:
        nothing(axes, "no strategy was forecast")
        return figure
    target, scale, _ = drop_target(view)
    place = {label: len(order) - 1 - k for k, (label, _, _) in enumerate(order)}
    colors = task_colors(len(view.tasks))
    few = len(view.transitions) <= len(COLORS)
    for transition in view.transitions:
        i = int(transition["task"])
        dots = [
            (place[found.label], (found.drop.value or 0.0) * scale)
            for found in foreseen(transition, target)
        ]
        if dots:
            label = f"task {i + 1}" if few else None
            axes.plot(
                [x for _, x in dots], [y for y, _ in dots], "o", markersize=4, color=colors[i],
                label=label,
            )  # fmt: skip
    axes.plot([mean for _, mean, _ in order], [place[label] for label, _, _ in order], "|",
              color=INK, markersize=11, markeredgewidth=1.6, label="mean")  # fmt: skip
    axes.axvline(0, color=MUTED, linewidth=0.6)
    axes.set_yticks(list(place.values()), list(place))
    axes.set_xlabel(
        "forecast drop on earlier tasks, points" if view.classifies else "forecast rise of losses"
    )
    legend(axes, columns=2)
    return figure
