"""The forecast beside what anybody would have guessed: that everything is lost, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from capacity.records.estimate import Estimate
from capacity.records.number_format import Cell, header_cell, text_cell
from capacity.records.numbers import MISSING, fixed, number, plural
from capacity.report.tables import Table, TaskTable, drop_target
from capacity.report.transition_lights import held, threshold
from capacity.results.view import Record, RunView, pick

_KNEW = 0.5
"""Share of the best guess's error up to which a forecast is said to have known better."""
_FINE = 1.0
"""Mean error in points up to which a guess is as good as one could wish."""


@dataclass(frozen=True, kw_only=True)
class Foretold:
    """One way to say beforehand what is lost, held against what was; numbers in print units.

    Attributes:
        name: What it is.
        error: Mean distance from what was measured; None for what only orders the pairs.
        right: In how many pairs it said rightly whether the old task is forgotten or kept.
        rank: Rank correlation with what was measured; None where it is not defined.
    """

    name: str
    error: float | None
    right: int | None
    rank: float | None


@dataclass(frozen=True, kw_only=True)
class Met:
    """A pair of a new and an old task that was forecast and measured; numbers in print units.

    Attributes:
        new: Index of the new task.
        old: Index of the old one.
        forecast: The forecast.
        measured: What came of it.
        everything: What would be lost if everything were; None where that is not defined.
    """

    new: int
    old: int
    forecast: Estimate
    measured: Estimate
    everything: float | None


def pairs(view: RunView) -> list[Met]:
    """List the pairs that were both forecast and measured.

    Args:
        view: The run.

    Returns:
        The pairs in order.
    """
    target, _, _ = drop_target(view)
    scores = view.scores("accuracy")["mean"] if view.classifies else None
    found = []
    for transition in view.transitions:
        i = int(transition["task"])
        for cell in transition["old"]:
            forecast, measured = pick(cell["forecast"], target), pick(cell["measured"], target)
            if forecast is None or measured is None or None in {forecast.value, measured.value}:
                continue
            j = int(cell["task"])
            before = scores[i - 1][j] if scores else None
            found.append(Met(new=i, old=j, forecast=forecast, measured=measured, everything=before))
    return found


def foretold(view: RunView) -> list[Foretold]:
    """Hold the forecast and the guesses against what was measured.

    Args:
        view: The run.

    Returns:
        The forecast, the guesses that apply, the new task's loss beforehand; nothing without a
        pair.
    """
    target, scale, _ = drop_target(view)
    met = pairs(view)
    if not met:
        return []
    scores: Record = view.result.get("scores") or {}
    rank = pick(scores, target, "spearman")
    before = pick((scores.get("controls") or {}).get("new_task_loss"), target)
    said: dict[str, list[float | None]] = {
        "forecast": [pair.forecast.value for pair in met],
        "everything is lost": [pair.everything for pair in met],
        "nothing is lost": [0.0 for _ in met],
    }
    made = [
        Foretold(
            name=name,
            error=scale * fmean(abs(value - _measured(p)) for value, p in known),
            right=_right(view, known),
            rank=rank.value if rank is not None and name == "forecast" else None,
        )
        for name, values in said.items()
        if len(known := [(v, p) for v, p in zip(values, met, strict=True) if v is not None])
        == len(met)
    ]
    if before is not None and before.value is not None:
        name = "the loss beforehand"
        made.append(Foretold(name=name, error=None, right=None, rank=before.value))
    return made


def _measured(pair: Met) -> float:
    return pair.measured.value or 0.0


def _right(view: RunView, known: Sequence[tuple[float, Met]]) -> int | None:
    limit = threshold(view)
    if limit is None:
        return None
    return sum((value > limit) == (_measured(pair) > limit) for value, pair in known)


def foresight_table(view: RunView) -> Table | None:
    """List the forecast beside the guesses.

    Args:
        view: The run.

    Returns:
        The table; None without a pair.
    """
    made = foretold(view)
    if not made:
        return None
    count = len(pairs(view))
    unit = ", points" if view.classifies else ""
    return TaskTable(
        id="table-foresight",
        caption="What was said beforehand",
        columns=("Said beforehand", f"Off by{unit}", "Forgets or not: right", "Order (rank)"),
        rows=[
            (
                header_cell(one.name),
                Cell(MISSING if one.error is None else amount(one.error)),
                text_cell(MISSING if one.right is None else f"{one.right} of {count}"),
                Cell(MISSING if one.rank is None else fixed(one.rank, 2)),
            )
            for one in made
        ],
    )


def foresight_sentence(view: RunView) -> str:
    """Say whether what was lost had been foreseen, and whether a guess had done as well.

    Args:
        view: The run.

    Returns:
        A few sentences.
    """
    made = foretold(view)
    if not made:
        return "No pair of a new and an old task was both forecast and measured."
    met = pairs(view)
    unit = " points" if view.classifies else ""
    error = made[0].error or 0.0
    guesses = [one for one in made[1:] if one.error is not None]
    best = min(guesses, key=lambda one: one.error or 0.0)
    least = best.error or 0.0
    inside = [held(pair.forecast, pair.measured) for pair in met]
    hits = (
        f"; {inside.count(True)} of {plural(len(met), 'pair')} came out inside the 90 % interval"
        if None not in inside
        else ""
    )
    opening, end = "Only partly", f"the best guess, that {best.name}, by {amount(least)}"
    if error <= _KNEW * least:
        opening = "Yes"
    elif error >= least:
        opening, end = "Not better than by guessing", f"{end}"
    if view.classifies and least <= _FINE and error <= _FINE:
        opening = "Yes, but anybody could have guessed it"
    # A rehearsal costs a training: whoever reads how good it was should know.
    how = " (rehearsals: copies trained in full)" if view.physics == ("rehearsed",) else ""
    off = f"{amount(error)}{unit} on average{hits}"
    return f"{opening}: the forecasts{how} were off by {off}; {end}."


def amount(value: float) -> str:
    """Write how far something is off: two figures, and no more than a tenth.

    Args:
        value: The distance, not negative.

    Returns:
        As `12`, `1.2`, or `less than 0.1`.
    """
    if 0 < value < 0.095:
        return "less than 0.1"
    return number(value, 2)
