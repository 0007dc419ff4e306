"""What runs forecast and then measured, for the next forecast of the same project."""

from __future__ import annotations

from collections.abc import Iterator

from capacity.forecasting.history import History, Past
from capacity.forecasting.quantities import half_width
from capacity.records.estimate import Estimate
from capacity.records.forecast_kind import physics_of, plain_strategy
from capacity.results.gather import paths_of, read_checked, run_directories
from capacity.results.view import Record, RunView, pick

_OLD = {"drop": "accuracy_drop", "rise": "loss_increase"}
_NEW = {"new_accuracy": "accuracy", "new_loss": "loss"}


def history(*runs: object) -> History:
    """Read what runs forecast and then measured, to calibrate the next forecast.

    Args:
        *runs: Paths of run directories, folders of run directories, `Run`s, or lists of these.
            Runs need not have ended: a transition counts as soon as its task is learned.

    Returns:
        The history, for `capacity.forecast(history=...)`.

    Raises:
        ValueError: If a path holds no run, or no forecast was measured yet.

    Example:
        >>> import capacity
        >>> past = capacity.history("runs")  # doctest: +SKIP
        >>> capacity.forecast(model, old=a, new=b, history=past)  # doctest: +SKIP
    """
    paths = run_directories(paths_of(runs))
    past = tuple(each for path in paths for each in _past(str(path), read_checked(path)))
    if not past:
        raise ValueError(
            f"history: none of {len(paths)} runs has a transition that was forecast and then "
            "measured; pass runs of two tasks or more with measure.forecast on"
        )
    return History(past)


def _past(path: str, view: RunView) -> Iterator[Past]:
    size = int((view.result.get("model") or {}).get("parameters") or 0)
    strategy = plain_strategy((view.recipe.get("training") or {}).get("strategy") or {})
    for k, transition in enumerate(view.transitions):
        price = pick(transition, "cost_ratio")
        if price is None:
            continue
        for name, said, seen in _pairs(transition):
            if said is None or said.value is None or seen is None or seen.value is None:
                continue
            half = half_width(said)
            if half is None:
                continue
            yield Past(
                transition=f"{path} {k}",
                quantity=name,
                said=said.value,
                half=half,
                measured=seen.value,
                physics=physics_of(price.note),
                strategy=strategy,
                parameters=size,
            )


def _pairs(transition: Record) -> Iterator[tuple[str, Estimate | None, Estimate | None]]:
    for old in transition.get("old") or ():
        for name, key in _OLD.items():
            yield name, pick(old, "forecast", key), pick(old, "measured", key)
    new = transition.get("new") or {}
    for name, key in _NEW.items():
        yield name, pick(new, "forecast", key), pick(new, "measured", key)
