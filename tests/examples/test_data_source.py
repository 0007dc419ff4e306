"""A source of data of one's own is one file, `source_of_moons`, and one line."""

from __future__ import annotations

import pytest
import torch

import capacity
from capacity.recipe.config import Recipe
from capacity.tasks import build_tasks, register
from capacity.tasks.sources import REGISTRY
from examples.source_of_moons import SOURCE

MOONS = {"dataset": "moons", "scenario": "rotated", "experiences": 3, "max_angle": 180.0}


@pytest.fixture(params=[SOURCE, "examples.source_of_moons:SOURCE"], ids=["object", "text"])
def registered(request):
    register("moons", request.param)
    yield
    del REGISTRY.own["moons"]


@pytest.mark.usefixtures("registered")
def test_a_recipe_builds_its_tasks():
    stream = Recipe(name="moons", tasks=MOONS).tasks
    tasks = build_tasks(stream)
    assert tasks.name == "rotated moons"
    assert [task.name for task in tasks.tasks] == [
        "rotated 0 degrees", "rotated 90 degrees", "rotated 180 degrees",
    ]  # fmt: skip
    assert [len(task.test) for task in tasks.tasks] == [40, 40, 40]
    torch.testing.assert_close(tasks[2].train.x, -tasks[0].train.x)
    assert torch.equal(build_tasks(stream)[1].train.x, tasks[1].train.x)


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
def test_a_recipe_of_it_runs_and_its_report_says_how_to_repeat_it(tmp_path):
    recipe = Recipe(
        name="moons",
        tasks=MOONS | {"experiences": 2},
        model={"hidden": (4,)},
        training={"epochs": 1},
        measure={"transport": False, "capacity": False, "verdicts": False, "closure_points": 0},
        replicas=2,
    )
    made = capacity.run(recipe, out=tmp_path / "run", quiet=True)
    assert made.status == "finished"
    assert "dataset: moons" in (made.path / "recipe.yaml").read_text()
    assert "capacity run recipe.yaml --out again" in (made.path / "report.html").read_text()


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scenario": "split", "experiences": 2}, "'split' does not exist for moons; .*: rotated"),
        ({"samples": 5}, "samples = 5 is no option of tasks.dataset = 'moons'; accepted: test_fr"),
        ({"root": "data"}, "root = 'data' is no option of tasks.dataset = 'moons'"),
    ],
)
def test_what_it_does_not_have_is_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=message):
        build_tasks(Recipe(name="moons", tasks=MOONS | fields).tasks)


def test_without_the_line_its_name_is_not_known():
    with pytest.raises(ValueError, match="dataset = 'moons' is not known; accepted: 'digits', "):
        Recipe(name="moons", tasks=MOONS)


def test_what_is_no_source_is_refused():
    register("none", object)
    try:
        stream = Recipe(name="none", tasks={"dataset": "none"}).tasks
        with pytest.raises(ValueError, match="'none' was registered as a type; register a cap"):
            build_tasks(stream)
    finally:
        del REGISTRY.own["none"]
