"""A forecast on a terminal: what every old task would lose, and what would help."""

from __future__ import annotations

from collections.abc import Sequence

from capacity.forecasting.record import Forecast
from capacity.records.estimate import Status
from capacity.records.number_format import say
from capacity.records.rows import Rows

_POINTS = 100.0
_PERCENT = (-100.0, 100.0)


def table_of(made: Forecast, names: Sequence[str]) -> str:
    """Write a forecast as a table, with the strategies below it.

    Args:
        made: The forecast.
        names: Names of the old tasks.

    Returns:
        Lines.
    """
    classifies = made.average_accuracy.value is not None
    lines = [str(_old(made, names)), ""]
    reached = say(made.new_accuracy, scale=_POINTS, interval=True, bounds=(0.0, 100.0))
    lines.append(
        f"new task: accuracy {reached} %, loss {say(made.new_loss, interval=True)}"
        if classifies
        else f"new task: loss {say(made.new_loss, interval=True)}"
    )
    if made.by_strategy:
        best = Rows(
            ("strategy", "mean accuracy, %" if classifies else "mean loss", "cost, trainings"),
            [
                (
                    name,
                    say(one.average_accuracy, scale=_POINTS)
                    if classifies
                    else say(one.average_loss),
                    say(one.cost_ratio),
                )
                for name, one in made.by_strategy.items()
            ],
        )
        lines += ["", str(best)]
    lines += ["", f"It cost {say(made.cost_ratio)} of the training that it forecasts."]
    if any(cell.loss_increase.status == Status.UNCALIBRATED for cell in made.old):
        lines.append("Uncalibrated: no earlier transition speaks of one like this.")
    return "\n".join(lines)


def line_of(made: Forecast, names: Sequence[str], lost: Sequence[int]) -> str:
    """Say in one line whether a gate lets a training pass.

    Args:
        made: The forecast.
        names: Names of the old tasks.
        lost: Those whose forecast exceeds a limit.

    Returns:
        The line.
    """
    shown = lost or range(len(names))
    said = "; ".join(f"{names[k]} {_one(made, k)}" for k in shown)
    return f"stopped: {said}" if lost else f"passed: {said}"


def _old(made: Forecast, names: Sequence[str]) -> Rows:
    rows = [
        (
            name,
            say(cell.accuracy_drop, scale=_POINTS, interval=True, bounds=_PERCENT),
            say(cell.loss_increase, interval=True),
        )
        for name, cell in zip(names, made.old, strict=True)
    ]
    return Rows(("old task", "accuracy lost, points", "rise in loss"), rows)


def _one(made: Forecast, k: int) -> str:
    cell = made.old[k]
    loss = f"loss up by {say(cell.loss_increase, interval=True)}"
    if cell.accuracy_drop.value is None:
        return loss
    drop = say(cell.accuracy_drop, scale=_POINTS, interval=True, bounds=_PERCENT)
    return f"loses {drop} points, {loss}"
