"""What a comparison keeps of a run: ten thousand of them fit into memory, whole results do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from capacity.results.schema import Change, Phase, Result, Transition
from capacity.results.shape import chosen_old
from capacity.results.view import Record, RunView, cells_mean, old_numbers

_TARGETS = ("accuracy_drop", "loss_increase")
_COSTS = {
    "thermo": ("inefficiency_path", "learning_time", "action", "displacement_sq"),
    "transport": ("effective_rank", "dimension"),
}
_WHOLE = ("name", "status", "replicas", "final", "scores")


def summarised(view: RunView) -> RunView:
    """Leave out what no comparison shows: rows, spectra, and every cell but their means.

    Args:
        view: A run.

    Returns:
        The run in the same form, in which a transition has one old task: the mean over all.
    """
    result, lean = view.result, _lean(view)
    if not result:
        return replace(lean, result=cast(Result, {}))
    kept: dict[str, Any] = {name: part for name, part in result.items() if name in _WHOLE}
    for kind in ("accuracy", "loss"):
        if kind in result:
            scores = view.scores(kind)
            kept[kind] = {"mean": scores["mean"], "replicas": scores.get("replicas")}
    kept["recipe"] = {"measure": {"old": chosen_old(result)}}
    kept["tasks"] = [{"name": task["name"], "status": task["status"]} for task in view.tasks]
    kept["phases"] = [phase and _cost(phase) for phase in view.phases]
    kept["transitions"] = [_transition(transition) for transition in view.transitions]
    return replace(lean, result=cast(Result, kept))


def _lean(view: RunView) -> RunView:
    recipe = {name: view.recipe[name] for name in ("name", "seed") if name in view.recipe}
    return replace(view, recipe=recipe, recipe_text="", rows=(), log_volume_steps={})


def _cost(phase: Phase) -> Record:
    whole = cast(Record, phase)
    return {
        name: part and {field: part[field] for field in fields if field in part}
        for name, fields in _COSTS.items()
        for part in [whole.get(name)]
    }


def _transition(transition: Transition) -> Record:
    cell = {
        "forecast": _means([old["forecast"] for old in transition["old"]]),
        "measured": _means([old["measured"] for old in transition["old"]]),
    }
    return {"task": transition["task"], "old": [cell], "old_numbers": old_numbers(transition)}


def _means(cells: Sequence[Change | None]) -> Record | None:
    if not any(cells):
        return None
    means = {target: cells_mean(cells, target) for target in _TARGETS}
    return {target: mean and mean.to_dict() for target, mean in means.items()}
