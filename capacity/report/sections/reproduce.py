"""How to run a run again, by its recipe or by the Python call; what was used, and where it ran."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from capacity.recipe.config import Measure, Recipe, Training
from capacity.records.numbers import number
from capacity.report.blocks import Block, Code, Fold, Part, Section
from capacity.report.used_recipe import used_recipe
from capacity.results.view import Record, RunView

_AGAIN = "capacity run recipe.yaml --out again\ncapacity report again"
_SAME = (
    "In the run directory; the same recipe on the same device and versions gives the same numbers."
)
_FILES = Markup(
    "The numbers of this page are in <code>result.json</code> and <code>metrics.jsonl</code> of "
    "the run directory, where tasks count from 0 and accuracies lie between 0 and 1."
)
_CALL = Markup(
    "This run's tasks or model came through the Python API: the recipe holds their fingerprint, "
    "not themselves, so <code>capacity run recipe.yaml</code> cannot repeat it. With the same "
    "objects at hand:"
)


def _content(view: RunView) -> Iterator[Block | None]:
    repeats = runs_from_recipe(view.recipe)
    yield Fold(
        "Run it again: " + ("capacity run recipe.yaml" if repeats else "from Python"),
        [
            _SAME if repeats else _CALL,
            Code(_AGAIN if repeats else python_call(view.recipe)),
            _FILES,
        ],
    )
    fields = "The recipe as it was used; recipe.yaml has every field, defaults included"
    yield Fold(fields, [Code(used_recipe(view.recipe))], "configuration")
    yield Fold(
        f"Where it ran: {_place(view.env)}" if view.env else "Where it ran: not recorded",
        [Part("environment.html", {"rows": _environment(view)})],
        "environment",
    )


def _place(env: Record) -> str:
    return f"Python {env.get('python', 'not recorded')}, {env.get('device_name') or 'cpu'}"


def _environment(view: RunView) -> list[tuple[str, object]]:
    rows = [(name.replace("_", " "), _entries(value)) for name, value in view.env.items()]
    if view.status.get("started"):
        rows += [
            ("started", view.status["started"]),
            ("last update", view.status.get("updated")),
        ]
    seconds = view.status.get("seconds") or {}
    if seconds:
        rows.append(("seconds", _entries({stage: number(s) for stage, s in seconds.items()})))
    return rows


def _entries(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    return ", ".join(f"{name} {entry}" for name, entry in value.items())


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


SECTION = Section("reproduce", "This run", _content)
