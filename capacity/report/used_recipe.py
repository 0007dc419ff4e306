"""The part of a resolved recipe that the run used: no option of what it did without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import yaml

from capacity.results.view import Record

_MOMENTS = ("adam", "adamw")
_USED: dict[str, Callable[[Record], bool]] = {
    "tasks.max_angle": lambda r: r["tasks"].get("scenario") == "rotated",
    "tasks.test_fraction": lambda r: r["tasks"].get("dataset") == "digits",
    "tasks.scenario": lambda r: r["tasks"].get("dataset") != "custom",
    "tasks.experiences": lambda r: r["tasks"].get("dataset") != "custom",
    "tasks.heads": lambda r: r["tasks"].get("dataset") != "custom",
    "tasks.seed": lambda r: r["tasks"].get("dataset") != "custom",
    "model.hidden": lambda r: r["model"].get("kind") != "custom",
    "model.activation": lambda r: r["model"].get("kind") != "custom",
    "training.momentum": lambda r: r["training"].get("optimizer") == "momentum",
    "training.nesterov": lambda r: r["training"].get("optimizer") == "momentum",
    "training.betas": lambda r: r["training"].get("optimizer") in _MOMENTS,
    "training.alpha": lambda r: r["training"].get("optimizer") == "rmsprop",
    "training.eps": lambda r: r["training"].get("optimizer") in {*_MOMENTS, "rmsprop"},
}
"""Fields of what a run may do without, by dotted name, and what tells whether it did."""
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
    if value is None or value == [] or value == {}:
        return False
    section, _, field = name.partition(".")
    if section == "measure":
        with_ = next((key for key, fields in _WITH.items() if field in fields), None)
        return with_ is None or recipe["measure"].get(with_) is not False
    return _USED.get(name, lambda _: True)(recipe)
