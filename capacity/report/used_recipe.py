"""The part of a resolved recipe that the run used: no option of what it did without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import yaml

from capacity.results.view import Record

_BUILT_IN = {
    "sgd",
    "momentum",
    "adam",
    "adamw",
    "rmsprop",
    "sgld",
    "underdamped",
    "mirror",
    "natural",
}


def _is(section: str, field: str, *values: str) -> Callable[[Record], bool]:
    return lambda recipe: recipe[section].get(field) in values


def _not(section: str, field: str, *values: str) -> Callable[[Record], bool]:
    return lambda recipe: recipe[section].get(field) not in values


def _stepped(*names: str) -> Callable[[Record], bool]:
    """Tell whether an optimizer is one of these, or one of somebody's own, which may read all."""
    return _not("training", "optimizer", *(_BUILT_IN - set(names)))


_USED: dict[str, Callable[[Record], bool]] = {
    "tasks.max_angle": _is("tasks", "scenario", "rotated"),
    "tasks.test_fraction": _is("tasks", "dataset", "digits"),
    **{
        f"tasks.{field}": _not("tasks", "dataset", "custom")
        for field in ("scenario", "experiences", "heads", "seed")
    },
    **{f"model.{field}": _not("model", "kind", "custom") for field in ("hidden", "activation")},
    "training.final": _is("training", "schedule", "cosine", "linear", "polynomial"),
    "training.schedule_per": _not("training", "schedule", "constant"),
    "training.accumulate": lambda recipe: recipe["training"].get("accumulate") != 1,
    "training.momentum": _stepped("momentum"),
    "training.betas": _stepped("adam", "adamw"),
    "training.alpha": _stepped("rmsprop"),
    "training.eps": _stepped("adam", "adamw", "rmsprop"),
}
"""Fields of what a run may do without, by dotted name, and what tells whether it did."""
_ALWAYS = {"measure.forecast", "tasks.seed"}
_WITH = {
    "transport": (
        "tangents",
        "log_volume_probes",
        "log_volume_nodes",
        "log_volume_columns",
        "top_values",
        "sweeps",
        "moved_sweeps",
        "composed_spectrum",
    ),
    "capacity": (
        "capacity_probes",
        "capacity_nodes",
        "capacity_precision",
        "eps",
        "sensitivity_eps",
        "tolerance",
        "displacement",
        "curvature_samples",
    ),
    "forecast": ("forecast_budget", "strategies"),
}
"""Fields of `measure` that go with another one of its fields."""


def used_recipe(recipe: Record) -> str:
    """Write what a run used of its recipe.

    Args:
        recipe: The resolved recipe.

    Returns:
        YAML, without what is null or empty, and without options of what the run did without.
    """
    kept: dict[str, Any] = {}
    for name, value in recipe.items():
        part = value
        if isinstance(value, Mapping):
            part = {k: v for k, v in value.items() if _used(recipe, f"{name}.{k}", v)}
        if part not in (None, "", {}, []):
            kept[name] = part
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)


def _used(recipe: Record, name: str, value: object) -> bool:
    section, _, field = name.partition(".")
    # An option that is off, or 0, was not used; only forecasts are on unless they are put off.
    if (value in (None, [], {}) or value is False or value == 0) and name not in _ALWAYS:
        return False
    if section == "measure":
        with_ = next((key for key, fields in _WITH.items() if field in fields), None)
        return with_ is None or recipe["measure"].get(with_) is not False
    return _USED.get(name, lambda _: True)(recipe)
