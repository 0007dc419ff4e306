"""How to run a run again: by its recipe, or by the Python call where a recipe cannot say it all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from markupsafe import Markup

from capacity.recipe.config import Measure, Recipe, Training
from capacity.report.blocks import Block, Code, Section
from capacity.results.view import Record, RunView


def _content(view: RunView) -> Iterator[Block | None]:
    if runs_from_recipe(view.recipe):
        yield (
            "In the run directory; the same recipe on the same device and versions gives the same "
            "numbers."
        )
        yield Code("capacity run recipe.yaml --out again\ncapacity report again")
    else:
        yield Markup(
            "This run's tasks or model came through the Python API: the recipe holds their "
            "fingerprint, not themselves, so <code>capacity run recipe.yaml</code> cannot repeat "
            "it. With the same objects at hand:"
        )
        yield Code(python_call(view.recipe))
    yield Markup(
        "The numbers of this page are in <code>result.json</code> and <code>metrics.jsonl</code> "
        "of the run directory, where tasks count from 0 and accuracies lie between 0 and 1."
    )


def runs_from_recipe(recipe: Record) -> bool:
    """Tell whether `capacity run recipe.yaml` can repeat a run.

    Args:
        recipe: The resolved recipe.

    Returns:
        False if its tasks or its model were handed over through the Python API.
    """
    dataset = (recipe.get("tasks") or {}).get("dataset")
    kind = (recipe.get("model") or {}).get("kind")
    return "custom" not in {dataset, kind}


def python_call(recipe: Record) -> str:
    """Write the Python call that repeats a run of somebody's own tasks or model.

    Args:
        recipe: The resolved recipe.

    Returns:
        Python source; what the recipe cannot hold is a name to fill in.
    """
    own_tasks = (recipe.get("tasks") or {}).get("dataset") == "custom"
    own_model = (recipe.get("model") or {}).get("kind") == "custom"
    # capacity.run takes a recipe whose model is not custom, or tasks; both lose what is "custom".
    lines = ["import capacity", "", "run = capacity.run("]
    if own_tasks:
        lines.append("    tasks,  # your own, as before")
    else:
        lines.append(f"    capacity.Recipe(name={recipe.get('name')!r}, tasks=capacity.TaskStream(")
        lines.append(f"        {_arguments(recipe.get('tasks') or {}, {})}")
        lines.append("    )),")
    if own_model:
        lines.append("    model=model,  # your own, as before")
    measure = recipe.get("measure") or {}
    plain = Measure()
    # Whatever a level says by itself need not be said again.
    leveled = Measure(level=measure.get("level", plain.level)).model_dump(mode="json")
    defaults = {
        "training": Training().model_dump(mode="json"),
        "measure": leveled | {"level": plain.level},
    }
    for name, section in (("training", Training), ("measure", Measure)):
        changed = _arguments(recipe.get(name) or {}, defaults[name])
        lines.append(f"    {name}=capacity.{section.__name__}({changed}),")
    for name in ("replicas", "seed", "name"):
        if name in recipe and name in Recipe.model_fields:
            lines.append(f"    {name}={recipe[name]!r},")
    return "\n".join([*lines, ")"])


def _arguments(given: Record, defaults: Record) -> str:
    changed: dict[str, Any] = {
        key: value for key, value in given.items() if key not in defaults or defaults[key] != value
    }
    return ", ".join(f"{key}={value!r}" for key, value in changed.items())


SECTION = Section("reproduce", "Reproduce", _content)
