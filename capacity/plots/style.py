"""How the figures look, and where their numbers come from."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capacity.base.distribution import install
from capacity.records.estimate import Estimate
from capacity.results.view import RunView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5d3a9b", "#000000")
"""Okabe and Ito's palette, and one violet: told apart by every kind of colour vision."""
INK, MUTED = "#1c2024", "#5c646d"
COLUMN = 3.4
"""Width of one column of a paper, inches."""

_STYLE: dict[str, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
}


def styled(draw: Callable[[object], Figure]) -> Callable[[object], Figure]:
    """Let a function draw in our style, whatever style its user has set.

    Args:
        draw: Draws a figure of a run.

    Returns:
        The same function in our style; without matplotlib it is a ValueError that names the extra.
    """

    @wraps(draw)
    def drawn(run: object) -> Figure:
        try:
            import matplotlib as mpl
        except ImportError:
            raise ValueError(
                f"figures need matplotlib; install it with: {install('plots')}"
            ) from None
        with mpl.rc_context():
            mpl.rcdefaults()
            for name, value in _STYLE.items():
                mpl.rcParams[name] = value  # type: ignore[index]
            return draw(run)

    return drawn


def view_of(run: object) -> RunView:
    """Read the run behind a figure.

    Args:
        run: A `Run`, or the path of a run directory.

    Returns:
        Its content.

    Raises:
        ValueError: If it is neither, or holds no result yet.
    """
    from capacity.results.gather import read_checked

    path = getattr(run, "path", run)
    if not isinstance(path, str | Path):
        raise ValueError(f"run is a {type(run).__name__}; pass a run, or the path of its directory")
    view = read_checked(Path(path))
    if not view.learned:
        raise ValueError(
            f"run = {str(path)!r} learned no task ({view.state}), so there is nothing to draw"
        )
    return view


def blank(width: float = COLUMN, height: float = 2.4, columns: int = 1) -> tuple[Figure, Any]:
    """Make an empty figure in our style.

    Args:
        width: Inches.
        height: Inches.
        columns: Axes side by side.

    Returns:
        The figure and its axes: one, or an array.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns)


def marks(
    axes: Axes, x: list[float], found: list[Estimate], scale: float, color: str, **style: Any
) -> None:
    """Draw estimates as dots with their 90 % intervals; those without a value are left out.

    Args:
        axes: Where.
        x: Where each stands.
        found: The estimates.
        scale: Factor from the result to print.
        color: Of the marks.
        **style: Passed to matplotlib's errorbar.
    """
    known = [(at, e) for at, e in zip(x, found, strict=True) if e.value is not None]
    values = [(e.value or 0.0) * scale for _, e in known]
    ends = [e.interval or (e.value or 0.0, e.value or 0.0) for _, e in known]
    below = [max(v - low * scale, 0.0) for v, (low, _) in zip(values, ends, strict=True)]
    above = [max(high * scale - v, 0.0) for v, (_, high) in zip(values, ends, strict=True)]
    options: dict[str, Any] = {"fmt": "o", "markersize": 4, "elinewidth": 1, "color": color} | style
    axes.errorbar([at for at, _ in known], values, yerr=[below, above], **options)


def nothing(axes: Axes, why: str) -> None:
    """Say that there is nothing to draw.

    Args:
        axes: Where.
        why: A few words.
    """
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color=MUTED)
    axes.set_xticks([])
    axes.set_yticks([])


def task_colors(count: int) -> list[str]:
    """Give every task a colour: its own while there are few, a place on a ramp beyond that.

    Args:
        count: How many tasks.

    Returns:
        Colours.
    """
    if count <= len(COLORS):
        return list(COLORS[:count])
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    ramp = colormaps["cividis"]
    return [to_hex(ramp(i / (count - 1))) for i in range(count)]


def legend(axes: Axes, columns: int = 0) -> None:
    """Put the key above the axes, where it hides nothing.

    Args:
        axes: Whose key.
        columns: Entries side by side; 0 takes as many as the figure's width has room for.
    """
    room = columns or max(round(3 * axes.figure.get_figwidth() / COLUMN), 2)  # type: ignore[union-attr]
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=room, columnspacing=1.2)


def task_ticks(axes: Axes, view: RunView, tasks: list[int]) -> None:
    """Number the tasks below an axis, from 1.

    Args:
        axes: Where.
        view: The run.
        tasks: The tasks, by index.
    """
    stride = max(-(-len(tasks) // 12), 1)
    axes.set_xticks(tasks[::stride], [str(i + 1) for i in tasks[::stride]])
    axes.set_xlim(min(tasks) - 0.5, max(tasks) + 0.5)
    axes.set_xlabel("task" if len(view.tasks) > 1 else "")
