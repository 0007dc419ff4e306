"""The house: imports go from higher rooms to lower ones, and no file stands in a circle."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "capacity"
ROOMS = (
    "base", "closed_forms", "records", "recipe", "krylov", "tasks", "networks", "optimizers",
    "products", "training", "strategies", "jacobian", "forecasting", "criterion", "thermo",
    "predictors", "results", "report", "comparison", "plots", "runs", "exporters", "integrations",
    "arguments", "cli",
)  # fmt: skip
"""From the ground up."""


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    named = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """What a file imports of the package: at its head, in functions, and for types alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "capacity":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in known else node.module)
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.split(".")[0] == "capacity"}
    return found


def room(module: str) -> str:
    """The room of a module; the front door itself stands outside."""
    return module.split(".")[1] if "." in module else ""


def arrows_up(graph: dict[str, set[str]]) -> list[str]:
    """Imports of a higher room by a lower one."""
    return sorted(
        f"{module} imports {target}"
        for module, targets in graph.items()
        for target in targets
        if room(module)
        and (not room(target) or ROOMS.index(room(target)) > ROOMS.index(room(module)))
    )


def test_every_folder_is_a_room():
    assert {room(name) for name in modules()} - {""} == set(ROOMS)


@pytest.mark.slow
def test_imports_go_down():
    known = modules()
    assert arrows_up({name: imports(path, known) for name, path in known.items()}) == []


@pytest.mark.slow
def test_no_file_stands_in_a_circle():
    known = modules()
    graph = {name: imports(path, known) for name, path in known.items()}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_an_arrow_up_is_seen():
    graph = {"capacity.base.checks": {"capacity.runs.run"}, "capacity.cli": {"capacity.base.text"}}
    assert arrows_up(graph) == ["capacity.base.checks imports capacity.runs.run"]
    assert arrows_up({"capacity.krylov.lanczos": {"capacity"}}) != []


def test_the_architecture_names_what_there_is():
    text = (ROOT / "architecture.md").read_text()
    drawn = text[text.index("```") : text.rindex("```")]
    assert [name for name in ROOMS if name not in drawn] == []
    named = set(re.findall(r"`([a-z_]+/[a-z_/]*(?:\.(?:py|md))?)`", text)) - {"tests/test_rooms.py"}
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []
