"""Why a forecast was far off: rules on what was recorded, the first that holds gives the cause."""

from __future__ import annotations

from collections.abc import Sequence

from score_cells import ENGINE, FORECAST, SIMULATION
from score_predict import BUDGET

_SHORT = 300
"""Steps of a training that leave fewer than a dozen to a twentieth of its samples."""
_WEAK = 0.6
"""Accuracy on the old tasks below which they were hardly known."""
_UNLEARNED = 0.1
"""Error of the new task's accuracy that says that its learning was misjudged."""


def error(cell: dict) -> float:
    """Forecast minus measured drop, correction included.

    Args:
        cell: The cell.

    Returns:
        The error.
    """
    return cell["said"][FORECAST]["drop"] - cell["drop"]


def cause(cell: dict) -> str:
    """Name the likeliest cause of a cell's error.

    Args:
        cell: A cell of which the engine said something.

    Returns:
        The cause with its numbers.
    """
    said, off = cell["said"][ENGINE], abs(error(cell))
    chance = abs(cell["drop"] - cell["drop_again"])
    exact = cell["said"].get(SIMULATION, {}).get("drop")
    learned = said["new_accuracy"] - cell["new_accuracy"]
    if said["asked"] > BUDGET:
        return f"the smallest forecast takes {100 * said['cost']:.0f} % of so small a training"
    if chance >= off / 2:
        return f"chance: another data order changes the drop by {100 * chance:.0f} points"
    if abs(learned) >= _UNLEARNED:
        verb = "too little" if learned < 0 else "too much"
        return (
            f"B is learned {verb} in the forecast: {100 * said['new_accuracy']:.0f} % for "
            f"{100 * cell['new_accuracy']:.0f} %"
        )
    if cell["old_accuracy"] < _WEAK:
        return f"A was hardly known: {100 * cell['old_accuracy']:.0f} %"
    if said["drop_half"] is not None and said["drop_half"] >= off:
        return (
            f"within its own interval, +-{100 * said['drop_half']:.0f} points (test samples read, "
            "last steps)"
        )
    if exact is not None and abs(exact - cell["drop"]) <= off / 2:
        return (
            "compression: the linearised simulation is off by "
            f"{100 * (exact - cell['drop']):+.0f} points"
        )
    if cell["steps"] < _SHORT:
        return f"short training: {cell['steps']} steps in all"
    if exact is not None:
        return (
            "the linearised simulation errs, too, by "
            f"{100 * (exact - cell['drop']):+.0f} points: the network changes on the way"
        )
    return "not explained by what was recorded"


def worst(cells: Sequence[dict], count: int = 10) -> list[str]:
    """List the cells with the largest errors of the drop.

    Args:
        cells: The cells.
        count: How many.

    Returns:
        Lines.
    """
    have = [cell for cell in cells if FORECAST in cell["said"]]
    lines = []
    for cell in sorted(have, key=lambda c: -abs(error(c)))[:count]:
        name = (
            f"{cell['stream']} ({cell['transition']})"
            if cell["family"] == "sequence"
            else (cell["stream"])
        )
        plan = f"{cell['network']}, {cell['optimizer']}, {cell['epochs']} epochs"
        lines.append(
            f"  {cell['said'][FORECAST]['drop']:+.3f} for {cell['drop']:+.3f}  {name}; {plan}: "
            f"{cause(cell)}"
        )
    return lines
