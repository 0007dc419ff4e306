"""What a tracker gets of a run: plain floats by name and step, parameters, figures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capacity.records.estimate import Status
from capacity.results.gather import read_checked
from capacity.results.recipe_differences import flat
from capacity.results.schema import Transition
from capacity.results.view import RunView, forecast_mean, measured_mean, pick

if TYPE_CHECKING:
    from capacity.plots import Drawing


@dataclass(frozen=True, kw_only=True)
class Content:
    """A run in the terms of a tracker.

    Attributes:
        name: Name of the run.
        path: Its directory.
        state: finished, diverged, interrupted, failed or running.
        parameters: The recipe's fields by dotted name, as text.
        series: Values along the training: by optimiser step, then by name.
        tasks: Values per task: by task, counted from 1, then by name.
        summary: Values of the whole run.
        figures: Figures by name.
    """

    name: str
    path: Path
    state: str
    parameters: dict[str, str]
    series: dict[int, dict[str, float]]
    tasks: dict[int, dict[str, float]]
    summary: dict[str, float]
    figures: dict[str, Drawing]


def content(path: Path, view: RunView | None = None) -> Content:
    """Read a run for a tracker.

    Args:
        path: The run directory.
        view: What was read of it; None reads it.

    Returns:
        What there is. Trackers know no missing value: what has none is left out.
    """
    view = view or read_checked(path)
    return Content(
        name=view.name,
        path=path,
        state=view.state,
        parameters={
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in flat(view.recipe).items()
        },
        series=_series(view),
        tasks=_tasks(view),
        summary=_summary(view),
        figures=_figures(path, view),
    )


def _series(view: RunView) -> dict[int, dict[str, float]]:
    made: dict[int, dict[str, float]] = {}
    for row in view.rows:
        # The last row of a task and the first of the next share a step: the later one counts.
        at = made.setdefault(int(row["step"]), {})
        named = {"train/loss": row.get("train_loss"), "train/lr": row.get("lr")}
        for kind in ("accuracy", "loss"):
            for j, value in enumerate(row.get(f"test_{kind}") or []):
                scored_on = view.tasks[j].get("scored_on") or "test"
                named[f"{scored_on}_{kind}/task_{j + 1}"] = value
        at |= _numbers(named)
    return made


def _tasks(view: RunView) -> dict[int, dict[str, float]]:
    made = {i + 1: dict(_phase(phase)) for i, phase in enumerate(view.phases) if phase}
    for transition in view.transitions:
        at = made.setdefault(int(transition["task"]) + 1, {})
        at |= dict(_transition(view, transition))
    return {i: values for i, values in sorted(made.items()) if values}


def _phase(phase: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name in ("inefficiency_path", "loss_drop_ratio", "loss_drop", "displacement_sq"):
        yield from _estimate(f"task/{name}", phase, "thermo", name)
    for name in ("log_volume", "stable_rank", "effective_rank"):
        yield from _estimate(f"task/{name}", phase, "transport", name)


def _transition(view: RunView, transition: Transition) -> Iterator[tuple[str, float]]:
    for target in ("accuracy_drop", "loss_increase"):
        both = {
            "forecast": forecast_mean(transition, target),
            "measured": measured_mean(view, transition, target),
        }
        for side, found in both.items():
            if found is not None and found.value is not None:
                yield f"task/{target}_{side}", float(found.value)
    yield from _estimate("task/capacity_directions", transition, "capacity", "directions")
    yield from _estimate("task/dimension_stable_rank", transition, "dimension", "stable_rank")


def _summary(view: RunView) -> dict[str, float]:
    made: dict[str, float] = {}
    for name in view.result.get("final") or {}:
        made |= dict(_estimate(f"final/{name}", view.result["final"], name))
    for target in ("accuracy_drop", "loss_increase"):
        score: Any = dict(view.forecast_scores).get(target)
        for name in ("spearman", "r2", "mean_error"):
            made |= dict(_estimate(f"forecast/{target}_{name}", score, name))
    seconds = view.status.get("seconds") or {}
    return made | _numbers({f"seconds/{stage}": value for stage, value in seconds.items()})


def _estimate(
    name: str, record: Mapping[str, Any] | None, *path: str
) -> Iterator[tuple[str, float]]:
    found = pick(record, *path)
    # A tracker shows no status: what must not be read as its name says stays here.
    if found is not None and found.value is not None and found.status is not Status.OUT_OF_REGIME:
        yield name, float(found.value)
        if found.stderr is not None:
            yield f"{name}_stderr", float(found.stderr)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    known = {name: float(v) for name, v in values.items() if isinstance(v, int | float)}
    return {name: value for name, value in known.items() if math.isfinite(value)}


def _figures(path: Path, view: RunView) -> dict[str, Drawing]:
    if not view.learned:
        return {}
    from capacity.plots import FIGURES
    from capacity.plots.drawing import NothingToDrawError

    drawn = {}
    for name, draw in FIGURES.items():
        with suppress(NothingToDrawError):
            drawn[name] = draw(path)
    return drawn
