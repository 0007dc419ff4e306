"""Figures of `score.py`: forecast against measured, and how often intervals cover."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from score_calibration import LEVELS, inside, usable
from score_cells import FORECAST

from capacity.forecasting.shipped import shipped

mpl.rcParams["svg.fonttype"] = "none"
mpl.rcParams["svg.hashsalt"] = "score"
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5d3a9b", "#000000")
"""Okabe and Ito's palette, and one violet: told apart by every kind of colour vision."""
INK, MUTED = "#1c2024", "#5c646d"
_LEVELS = tuple(np.linspace(0.1, 0.9, 9)) + LEVELS[-1:]


def scatter(cells: Sequence[dict], path: Path) -> None:
    """Draw what was forecast against what was measured, with the other data order as the ceiling.

    Args:
        cells: The cells.
        path: Where to write the SVG.
    """
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    for axes, quantity, label in zip(
        figure.subplots(1, 2), ("drop", "rise"), ("drop of accuracy", "rise of loss"), strict=True
    ):
        some = usable(cells, quantity)
        spread = np.array([[c[quantity], c[f"{quantity}_again"]] for c in some])
        axes.scatter(*spread.T, s=4, c="0.8", linewidths=0, label="same, other data order")
        families = sorted({c["family"] for c in some})
        for color, family in zip((*COLORS, MUTED), families, strict=False):
            own = [c for c in some if c["family"] == family]
            points = [(c[quantity], c["said"][FORECAST][quantity]) for c in own]
            axes.scatter(*np.array(points).T, s=12, color=color, linewidths=0, label=family)
        ends = [spread.min(), spread.max()]
        axes.plot(ends, ends, color=INK, linewidth=0.6)
        axes.set(xlabel=f"measured {label}", ylabel="forecast for 5 % of the training")
        if quantity == "rise":
            axes.set(xscale="symlog", yscale="symlog")
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False,
        fontsize=7,
    )  # fmt: skip
    _save(figure, path)


def calibration(cells: Sequence[dict], path: Path) -> None:
    """Draw measured against nominal coverage of the calibrated intervals.

    Args:
        cells: The cells.
        path: Where to write the SVG.
    """
    if shipped() is None:
        return
    figure = Figure(figsize=(3.6, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.6)
    names = {
        "drop": "drop of accuracy", "rise": "rise of loss", "new_accuracy": "accuracy on B",
        "new_loss": "loss on B",
    }  # fmt: skip
    for color, (name, label) in zip(COLORS, names.items(), strict=False):
        some = usable(cells, name)
        shares = [float(inside(some, name, level).mean()) for level in _LEVELS]
        axes.plot(_LEVELS, shares, color=color, marker="o", markersize=3, label=label)
    axes.set(xlabel="nominal coverage", ylabel="share of cells covered", xlim=(0, 1), ylim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
