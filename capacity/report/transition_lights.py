"""Traffic lights: what each transition was expected to cost, and what it did, against a threshold.

A light is a shape, a colour and a word, so that none of them is needed to read it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from capacity.records.estimate import Estimate
from capacity.records.number_format import Cell, cell, header_cell, stacked, text_cell
from capacity.records.numbers import MISSING, number
from capacity.report.strategy_forecasts import best_mitigation, foreseen
from capacity.report.tables import Table, TaskTable, drop_target
from capacity.results.schema import Transition
from capacity.results.view import RunView, forecast_mean, measured_mean, pick

FORGETS = 0.05
"""Drop of mean accuracy on the old tasks from which on a network is said to forget; the same as in
the benchmark that chose the criterion's thresholds."""


@dataclass(frozen=True)
class Light:
    """A judgement.

    Attributes:
        color: `good`, `warn`, `bad` or `off`.
        word: The same in a word or two.
    """

    color: str
    word: str


KEEPS, UNDECIDED, BAD = Light("good", "keeps"), Light("warn", "undecided"), Light("bad", "forgets")
_VERDICTS = {"room left": KEEPS, "undecided": UNDECIDED, "forgetting predicted": BAD}


def threshold(view: RunView) -> float | None:
    """Say from which drop on a network forgets.

    Args:
        view: The run.

    Returns:
        A drop of accuracy, or for regression the rise of the loss that the criterion goes by; None
        where nothing says when a loss has risen.
    """
    if view.classifies:
        return FORGETS
    found = [v["directional"] for t in view.transitions if (v := t.get("verdicts"))]
    return float(found[0]["threshold"]) if found else None


def judged(found: Estimate | None, limit: float | None) -> Light:
    """Hold a drop against the threshold.

    Args:
        found: The drop, or None.
        limit: The threshold, or None.

    Returns:
        The light: undecided where the 90 % interval holds the threshold, or the value itself is not
        resolved.
    """
    if found is None or found.value is None:
        return Light("off", "no value")
    if limit is None:
        return Light("off", "no threshold")
    if not found.resolved:
        return UNDECIDED
    low, high = found.interval or (found.value, found.value)
    light = BAD if low > limit else KEEPS if high <= limit else UNDECIDED
    unsure = found.interval is None
    return Light(light.color, f"{light.word}, spread not known") if unsure else light


def light_table(view: RunView) -> Table:
    """List one line of lights per transition.

    Args:
        view: The run.

    Returns:
        The table.
    """
    target, _, _ = drop_target(view)
    limit = threshold(view)
    strategies = any(best_mitigation(t, target) for t in view.transitions)
    criterion = any(t.get("verdicts") for t in view.transitions)
    rows = []
    for transition in view.transitions:
        forecast = forecast_mean(transition, target)
        measured = measured_mean(view, transition, target)
        row = [
            header_cell(view.label(transition["task"])),
            _lit(view, forecast, limit, "not forecast"),
            _lit(view, measured, limit, _lost(view, transition)),
            _held(view, forecast, measured),
        ]
        if criterion:
            row.append(_criterion(view, transition))
        if strategies:
            row.append(_spared(view, transition))
        rows.append(row)
    what = "Accuracy lost on the old tasks, points" if view.classifies else "Rise of the old losses"
    columns = ["New task"]
    columns += ["Forecast", "Measured", "Held?"]
    columns += ["Criterion"] if criterion else []
    columns += ["Best strategy"] if strategies else []
    return TaskTable(
        id="table-lights",
        caption=f"Does the network forget? {what}, by new task",
        columns=columns,
        rows=rows,
        remark=_remark(view, limit, criterion=criterion, strategies=strategies),
        anchors=[f"transition-{int(t['task']) + 1}" for t in view.transitions],
        stacks=True,
    )


def _remark(view: RunView, limit: float | None, *, criterion: bool, strategies: bool) -> str:
    if limit is None:
        return "A loss has no scale of its own, and no criterion was asked: no light is lit."
    _, scale, _ = drop_target(view)
    unit = " points" if view.classifies else ""
    said = (
        f"Threshold: {number(limit * scale, 2)}{unit} on average over the old tasks. \u25b2 "
        "forgets: the whole 90 % interval lies above it; \u25cf keeps: it lies below; \u25c6 "
        "undecided: it holds the threshold; \u25cb nothing to judge."
    )
    if criterion:
        said += " The criterion has a threshold of its own."
    if strategies:
        kind = "accuracy" if view.classifies else "loss"
        said += f" Beside a strategy: the {kind} averaged over all tasks that it would end with."
    return said


def _lost(view: RunView, transition: Transition) -> str:
    state = str(view.tasks[transition["task"]]["status"])
    return "not measured" if state == "learned" else state.replace("_", " ")


def _lit(view: RunView, found: Estimate | None, limit: float | None, missing: str) -> Cell:
    _, scale, bounds = drop_target(view)
    if found is None:
        return Cell(missing, numeric=False, light="off")
    light = judged(found, limit)
    plain = stacked(cell(found, scale=scale, interval=True, bounds=bounds))
    return replace(
        plain, note="", numeric=False, light=light.color, small=_joined(plain.small, light.word)
    )


def _joined(interval: str, word: str) -> str:
    return f"{word}; {interval}" if interval else word


def _criterion(view: RunView, transition: Transition) -> Cell:
    verdicts = transition.get("verdicts")
    if not verdicts:
        return Cell("not measured", numeric=False, light="off")
    form = verdicts["decides"]
    found = verdicts[form]
    _, factor, _ = drop_target(view)
    scale = factor if form == "directional" else 1.0
    value = cell(pick(found, "value"), scale=scale)
    light = _VERDICTS.get(str(found["verdict"]), Light("off", str(found["verdict"])))
    limit = number(found["threshold"] * scale, 2)
    return Cell(
        value.text,
        value.status,
        numeric=False,
        light=light.color,
        small=f"{light.word}; threshold {limit}",
    )


def held(forecast: Estimate, measured: Estimate) -> bool | None:
    """Say whether what was measured lies inside the forecast's interval.

    Args:
        forecast: The forecast; it has a value.
        measured: What came of it; it has one, too.

    Returns:
        None where the forecast has no interval.
    """
    return None if forecast.interval is None else not _off(forecast.interval, measured.value or 0.0)


def _off(interval: tuple[float, float], value: float) -> float:
    """Tell how far a value lies above an interval (positive) or below it."""
    low, high = interval
    # Rounding in the last bits is no miss.
    slack = 1e-9 * max(1.0, abs(low), abs(high))
    if low - slack <= value <= high + slack:
        return 0.0
    return value - high if value > high else value - low


def _held(view: RunView, forecast: Estimate | None, measured: Estimate | None) -> Cell:
    """Say whether the forecast held, and else by how much what came lies off its interval."""
    if forecast is None or measured is None or forecast.value is None or measured.value is None:
        return text_cell(MISSING)
    if forecast.interval is None:
        return text_cell("no interval")
    _, scale, _ = drop_target(view)
    off = _off(forecast.interval, measured.value)
    if not off:
        return text_cell("yes")
    return text_cell(f"no: {number(abs(off) * scale, 2)} {'above' if off > 0 else 'below'}")


def _spared(view: RunView, transition: Transition) -> Cell:
    """Name the strategy that was forecast to end best, with what it would end with."""
    target, scale, _ = drop_target(view)
    best = best_mitigation(transition, target)
    if best is None:
        return text_cell(MISSING)
    average = best.average.value if best.average else None
    plain = next((s.average for s in foreseen(transition, target) if s.plain and s.average), None)
    unit = " %" if view.classifies else ""
    said = "" if average is None else f": {number(average * scale, 2)}{unit}"
    beside = ""
    if plain is not None and plain.value is not None:
        beside = f"plain training: {number(plain.value * scale, 2)}{unit}"
    return Cell(f"{best.label}{said}", numeric=False, small=beside)
