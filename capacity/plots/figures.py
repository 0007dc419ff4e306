"""The figures: what was learned and forgotten, what was forecast, what it took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capacity.plots.style import (
    COLORS,
    COLUMN,
    INK,
    MUTED,
    blank,
    legend,
    marks,
    nothing,
    styled,
    task_colors,
    task_ticks,
    view_of,
)
from capacity.records.estimate import Estimate, Status
from capacity.records.numbers import number
from capacity.results.view import RunView, forecast_mean, measured_mean, pick

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PRINTED = 12


@styled
def accuracy_matrix(run: object) -> Figure:
    """Draw the accuracy on every task after learning every task; the loss for regression.

    Read down a column: a task is learned on the outlined diagonal, and fades below it where it is
    forgotten.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The figure. A path without a run is a ValueError.
    """
    view = view_of(run)
    kind, scale = ("accuracy", 100.0) if view.classifies else ("loss", 1.0)
    mean = view.result[kind]["mean"][: view.learned]
    n = len(view.tasks)
    side = min(max(0.45 * n + 0.9, 2.2), COLUMN)
    figure, axes = blank(side + 0.6, side * max(view.learned, 2) / n + 0.5)
    shades = [[value * scale for value in row] for row in mean]
    top = 100.0 if view.classifies else max(max(row) for row in shades) or 1.0
    image = axes.imshow(shades, cmap="Blues", vmin=0.0, vmax=top, aspect="auto")
    for i, row in enumerate(shades):
        axes.add_patch(_box(i))
        for j, value in enumerate(row if n <= _PRINTED else ()):
            ink = "white" if value > 0.65 * top else INK
            text = f"{value:.0f}" if view.classifies else number(value, 2)
            axes.text(j, i, text, ha="center", va="center", color=ink, fontsize=6.5)
    axes.set_xticks(range(n), [str(j + 1) for j in range(n)])
    axes.set_yticks(range(len(mean)), [str(i + 1) for i in range(len(mean))])
    axes.set_xlabel("tested on task")
    axes.set_ylabel("after learning task")
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.9)
    bar.set_label(f"{view.scored_on} {kind}" + (", %" if view.classifies else ""))
    bar.outline.set_visible(False)
    return figure


def _box(i: int) -> object:
    from matplotlib.patches import Rectangle

    return Rectangle((i - 0.5, i - 0.5), 1, 1, fill=False, edgecolor=INK, linewidth=1)


@styled
def forecast_against_measured(run: object) -> Figure:
    """Draw forgetting forecast before each task beside what was then measured.

    Means over the earlier tasks, with their 90 % intervals: of the accuracy drop in points, or of
    the rise of the loss.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The figure. A path without a run is a ValueError.
    """
    view = view_of(run)
    target, scale = ("accuracy_drop", 100.0) if view.classifies else ("loss_increase", 1.0)
    figure, axes = blank()
    tasks = [int(t["task"]) for t in view.transitions]
    if not tasks:
        nothing(axes, "no transition")
        return figure
    columns = {
        "forecast": [forecast_mean(t, target) for t in view.transitions],
        "measured": [measured_mean(view, t, target) for t in view.transitions],
    }
    for k, (label, column) in enumerate(columns.items()):
        known = [(i + 0.16 * (k - 0.5), e) for i, e in zip(tasks, column, strict=True) if e]
        if known:
            marks(
                axes,
                [at for at, _ in known],
                [e for _, e in known],
                scale,
                COLORS[k],
                fmt="s" if k == 0 else "o",
                label=label,
            )
    axes.axhline(0, color=MUTED, linewidth=0.6)
    task_ticks(axes, view, tasks)
    axes.set_xlabel("new task")
    axes.set_ylabel(
        "accuracy lost on earlier tasks, points" if view.classifies else "rise of earlier losses"
    )
    legend(axes)
    return figure


@styled
def spectrum(run: object) -> Figure:
    """Draw the largest singular values of each task's training Jacobian, with their residuals.

    Filled marks are resolved: a singular value lies within the residual. Open ones are not.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The figure. A path without a run is a ValueError.
    """
    view = view_of(run)
    figure, axes = blank()
    spectra = {
        i: values
        for i, phase in enumerate(view.phases)
        if (values := ((phase or {}).get("transport") or {}).get("singular_values"))
    }
    for (i, values), color in zip(spectra.items(), task_colors(len(spectra)), strict=True):
        named = len(spectra) <= len(COLORS) or i in {min(spectra), max(spectra)}
        for resolved in (True, False):
            some = [(k + 1, s) for k, s in enumerate(values) if bool(s["resolved"]) is resolved]
            if some:
                axes.errorbar(
                    [k for k, _ in some],
                    [s["value"] for _, s in some],
                    yerr=[s["residual"] if resolved else 0.0 for _, s in some],
                    fmt="o",
                    markersize=3.5,
                    elinewidth=1,
                    color=color,
                    markerfacecolor=color if resolved else "white",
                    label=f"task {i + 1}" if named and some[0][0] == 1 else None,
                )
    if not spectra:
        nothing(axes, "the Jacobian was not tracked")
        return figure
    axes.set_yscale("log")
    axes.axhline(1.0, color=MUTED, linewidth=0.6)
    axes.set_xlabel("index (open: not resolved)")
    axes.set_ylabel("singular value of $J_t$")
    legend(axes)
    return figure


@styled
def capacity_against_dimension(run: object) -> Figure:
    """Draw the room that the earlier tasks left beside what each new task needed.

    The dashed line is P, the number of parameters.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The figure: R_A in directions and m_B (stable rank) per new task, on a logarithmic axis. A
        path without a run is a ValueError.
    """
    view = view_of(run)
    figure, axes = blank()
    tasks = [int(t["task"]) for t in view.transitions]
    columns = {
        "$R_A$": [pick(t, "capacity", "directions") for t in view.transitions],
        "$m_B$ (stable rank)": [pick(t, "dimension", "stable_rank") for t in view.transitions],
    }
    drawn = False
    for k, (label, column) in enumerate(columns.items()):
        known = [(i, e) for i, e in zip(tasks, column, strict=True) if _positive(e)]
        if known:
            drawn = True
            at, found = [i for i, _ in known], [e for _, e in known if e is not None]
            marks(axes, [float(i) for i in at], found, 1.0, COLORS[k], fmt="so"[k], label=label)
    if not drawn:
        nothing(axes, "neither was measured")
        return figure
    axes.set_yscale("log")
    parameters = view.result["model"]["parameters"]
    axes.axhline(parameters, color=MUTED, linewidth=0.6, linestyle="--", label="$P$")
    task_ticks(axes, view, tasks)
    axes.set_xlabel("new task")
    axes.set_ylabel("directions")
    legend(axes)
    return figure


def _positive(found: Estimate | None) -> bool:
    return found is not None and found.value is not None and found.value > 0


@styled
def thermodynamics(run: object) -> Figure:
    """Draw what learning cost against its speed limit, and the log-volume that it lost.

    Args:
        run: A run, or the path of its directory.

    Returns:
        The figure: left the inefficiency of every task (1 is the limit) and, where it stands for
        it, the ratio of the loss drop; right log|det J| of every task. A path without a run is a
        ValueError.
    """
    view = view_of(run)
    figure, (left, right) = blank(2 * COLUMN, 2.4, columns=2)
    tasks = [i for i, phase in enumerate(view.phases) if phase]
    drawn = False
    for k, (label, name) in enumerate(
        {
            "inefficiency": "inefficiency_path",
            "$T\\,\\Delta L$ over $|\\Delta\\theta|^2$": "loss_drop_ratio",
        }.items()
    ):
        found = _per_task(view, tasks, "thermo", name)
        if found:
            drawn = True
            shifted = [i + 0.16 * (k - 0.5) for i in found]
            marks(left, shifted, list(found.values()), 1.0, COLORS[k], fmt="so"[k], label=label)
    if drawn:
        left.axhline(1.0, color=MUTED, linewidth=0.6)
        left.set_yscale("log")
        left.set_ylabel("\u00d7 the speed limit")
        task_ticks(left, view, tasks)
        legend(left, columns=3)
    else:
        nothing(left, "no cost was closed")
    volumes = _per_task(view, tasks, "transport", "log_volume")
    if volumes:
        at = [float(i) for i in volumes]
        marks(right, at, list(volumes.values()), 1.0, COLORS[2])
        right.axhline(0.0, color=MUTED, linewidth=0.6)
        right.set_ylabel("$\\log|\\det J_t|$, nats")
        task_ticks(right, view, tasks)
    else:
        nothing(right, "log|det J| was not tracked or is not defined")
    return figure


def _per_task(view: RunView, tasks: list[int], section: str, name: str) -> dict[int, Estimate]:
    found = {i: pick(view.phases[i], section, name) for i in tasks}
    return {
        i: e
        for i, e in found.items()
        if e is not None and e.value is not None and e.status is not Status.OUT_OF_REGIME
    }
