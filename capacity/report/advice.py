"""The first screen: what was lost, whether that was foreseen, what to do next, what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from capacity.records.estimate import Estimate
from capacity.records.number_format import Cell, header_cell
from capacity.records.numbers import MINUS, MISSING, number, plural, span
from capacity.report.strategy_forecasts import Ranked, ranked
from capacity.report.tables import Table, TaskTable, drop_target
from capacity.results.view import Record, RunView, pick

_WITHIN = 1.0
"""Points of the best average within which strategies are one choice."""
_SHOWN = 6


def lost_sentences(view: RunView) -> str:
    """Say what was lost, and where most of it went.

    Args:
        view: The run.

    Returns:
        A few sentences.
    """
    final: Record = view.result.get("final") or {}
    if not final:
        return "No task was learned, so there is nothing to conclude about forgetting."
    kind, scale = ("accuracy", 100.0) if view.classifies else ("loss", 1.0)
    reached = _plain(pick(final, kind), scale)
    unit = " %" if view.classifies else ""
    if view.learned < 2:
        return (
            f"One task was learned, to a {view.scored_on} {kind} of {reached}{unit}; with no "
            "second task there is nothing to forget."
        )
    table = view.forgotten(kind).get("last") or []
    cells = table[view.learned - 1] if len(table) >= view.learned else []
    lost = [(j, scale * value) for j, value in _known(cells)]
    mean = _plain(pick(final, "forgetting_last"), scale)
    ends = f"The network ends with {kind} {reached}{unit} averaged over "
    ends += plural(view.learned, "task") + "."
    if not lost:
        return ends
    worst, most = max(lost, key=lambda pair: pair[1])
    least, little = min(lost, key=lambda pair: pair[1])
    points = " points of accuracy" if view.classifies else ""
    verb = "lost" if view.classifies else "rose by"
    if len(lost) == 1:
        said = f"{_capital(view.spoken(worst))} {verb} {_amount(most)}{points} since it was learned"
    else:
        what = "lost" if view.classifies else "rose in loss by"
        said = f"The {len(lost)} earlier tasks {what} {mean}{points} on average"
        said += (
            f": most {view.spoken(worst)}, {_amount(most)}; least {view.spoken(least)}, "
            f"{_amount(little)}"
            if _amount(most) != _amount(little)
            else ", each about as much"
        )
    return f"{said}. {_step(view)}{ends}"


def _step(view: RunView) -> str:
    """Name the pair of a new and an old task that cost most."""
    target, scale, _ = drop_target(view)
    steps = [
        (int(t["task"]), t["old"][k]["task"], scale * value)
        for t in view.transitions
        for k, value in _known([dict(old["measured"] or {}).get(target) for old in t["old"]])
    ]
    if len(steps) < 2:
        return ""
    new, old, most = max(steps, key=lambda step: step[2])
    if most <= 0:
        return ""
    unit = " points" if view.classifies else ""
    return (
        f"The largest single loss was {_amount(most)}{unit}, of {view.spoken(old)} while "
        f"{view.spoken(new)} was learned. "
    )


def _known(cells: Sequence[Any]) -> list[tuple[int, float]]:
    found = [(j, pick({"e": cell}, "e")) for j, cell in enumerate(cells)]
    return [(j, e.value) for j, e in found if e is not None and e.value is not None]


def _plain(found: Estimate | None, scale: float) -> str:
    return MISSING if found is None or found.value is None else _amount(found.value * scale)


def _amount(value: float) -> str:
    """Write two figures; of points and percents no more than a tenth."""
    return "0" if abs(value) < 5e-4 else number(value, 2)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def choice(view: RunView) -> list[Ranked]:
    """Find what to do: every strategy within a point of the best average, nothing included.

    Args:
        view: The run.

    Returns:
        The best first; empty where no strategy was forecast.
    """
    open_ = [one for one in ranked(view) if one.mitigates or one.plain]
    if not any(one.mitigates for one in open_):
        return []
    # A loss has no points: a tenth of the best is as near.
    near = _WITHIN if view.classifies else 0.1 * abs(open_[0].average)
    return [one for one in open_ if abs(one.average - open_[0].average) <= near]


def next_sentences(view: RunView) -> str:
    """Say what to do for the next task.

    Args:
        view: The run.

    Returns:
        A few sentences; empty where no strategy was forecast.
    """
    best = choice(view)
    if not best:
        return ""
    unit, kind = (" %", "accuracy") if view.classifies else ("", "loss")
    plain = next((one for one in ranked(view) if one.plain), None)
    names = _listed([one.label for one in best])
    within = f" (within {'a point' if view.classifies else 'a tenth'} of each other)"
    ends = span([one.average for one in best])
    said = f"{_capital(names)}{within if len(best) > 1 else ''}: forecast to end with {ends}{unit} "
    said += f"{kind} on average over the old tasks and the new one"
    if plain is None:
        return f"{said}, if the next task is like those of this run."
    if plain in best:
        return f"{said}; nothing need be done, if the next task is like those of this run."
    return f"{said}, plain training with {number(plain.average, 2)}{unit}; if the next task is " + (
        "like those of this run."
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def next_table(view: RunView) -> Table | None:
    """List what each strategy would keep and cost.

    Args:
        view: The run.

    Returns:
        The table, the best first; None where no strategy was forecast.
    """
    order = ranked(view)
    if not choice(view):
        return None
    kept = order[:_SHOWN]
    kept += [one for one in order[_SHOWN:] if one.plain]
    percent, points = (", %", ", points") if view.classifies else ("", "")
    return TaskTable(
        id="table-next",
        caption=f"Means over {plural(len(view.transitions), 'new task')}, as forecast",
        columns=(
            "Strategy",
            f"Average{percent}" if view.classifies else "Average loss",
            f"Old tasks{points}" if view.classifies else "Old losses",
            f"New task{percent}" if view.classifies else "New loss",
            "Work, \u00d7 plain",
        ),
        rows=[
            (
                header_cell(one.label),
                Cell(number(one.average, 2)),
                Cell(_signed(-one.drop if view.classifies else one.drop)),
                Cell(number(one.new, 2)),
                Cell(MISSING if one.work is None else number(one.work, 2)),
            )
            for one in kept
        ],
    )


def _signed(value: float) -> str:
    said = _amount(value)
    return said if said == "0" or said.startswith(MINUS) else f"+{said}"


def cost_sentence(view: RunView) -> str:
    """Say what learning cost, against its speed limit and in time.

    Args:
        view: The run.

    Returns:
        One or two sentences; empty where neither is known.
    """
    found = [pick(phase, "thermo", "inefficiency_path") for phase in view.phases]
    known = [e.value for e in found if e is not None and e.value is not None]
    said = (
        f"{span(known)} times the least that the speed limit allows for the distance that the "
        "parameters travelled."
        if known
        else ""
    )
    spent = (view.status.get("seconds") or {}).items()
    seconds = {k: float(s) for k, s in spent if not k.endswith("beside")}  # one clock alone
    total = sum(seconds.values())
    if not total:
        return said
    training = seconds.get("train", 0.0)
    return f"{said} The run took {_time(total)}, {_time(training)} of it training.".strip()


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{number(seconds, 2)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
