"""The bundled recipes: each loads, and each that needs no download builds what it says."""

from __future__ import annotations

import pytest
import torch

from capacity.networks.models import build_model
from capacity.recipe.config import TaskStream, load, recipe_folder, recipe_names
from capacity.tasks import build_tasks

NAMES = [
    "diffusion-digits",
    "mixed-digits",
    "permuted-digits",
    "permuted-mnist",
    "rotated-digits",
    "rotated-mnist",
    "split-cifar10",
    "split-cifar100",
    "split-digits",
    "split-digits-til",
    "split-mnist",
    "text-topics",
    "tiny-digits",
    "vit-digits",
]
DIGITS = [name for name in NAMES if "digits" in name and name != "diffusion-digits"]
TWOS = [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
ALL = [tuple(range(10))] * 5
CLASSES = {
    "mixed-digits": [tuple(range(10))] * 3 + [(5, 6, 7, 8, 9)] + [tuple(range(10))] * 2,
    "permuted-digits": ALL,
    "rotated-digits": ALL,
    "split-digits": TWOS,
    "split-digits-til": TWOS,
    "tiny-digits": [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9)],
    "vit-digits": [tuple(range(10))] * 3 + [(5, 6, 7, 8, 9)],
}
LEARNED = {"mixed-digits": 0.75, "vit-digits": 0.75}  # noisy pixels, and short trainings


def test_the_folder_holds_these_recipes():
    assert recipe_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_loads_and_says_what_it_is(name):
    recipe = load(name)
    assert recipe.name == name
    assert recipe.description.endswith(".")
    header, *rest = (recipe_folder() / f"{name}.yaml").read_text().splitlines()
    assert header.startswith("# ")
    assert not any(line.startswith("#") for line in rest)
    assert (recipe.model.kind == "cnn") == ("cifar" in name)


@pytest.mark.slow
@pytest.mark.parametrize("name", DIGITS)
def test_every_digits_recipe_builds(name):
    recipe = load(name)
    tasks = build_tasks(recipe.tasks)
    assert tasks.input_shape == (64,)
    assert tasks.n_outputs == 10
    assert [task.classes for task in tasks.tasks] == CLASSES[name]
    for task in tasks.tasks:
        assert task.train.x.dtype == task.test.x.dtype == torch.float32
        assert task.train.y.dtype == torch.int64
        assert 0 <= float(task.train.x.min()) < float(task.train.x.max()) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", DIGITS)
def test_every_digits_task_is_learned(name):
    """The rates and epochs of the recipes are chosen so that there is something to forget."""
    recipe = load(name)
    tasks, training = build_tasks(recipe.tasks), recipe.training
    model = build_model(recipe.model, tasks.input_shape, tasks.n_outputs, recipe.seed)
    kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[training.optimizer]
    optimizer = kind(model.parameters(), lr=training.lr)
    for task in tasks.tasks:
        for _ in range(training.epochs):
            for index in torch.randperm(len(task.train)).split(training.batch_size):
                optimizer.zero_grad()
                task.loss_of(model(task.train.x[index]), task.train.y[index]).backward()
                optimizer.step()
        reached = float(task.accuracy_of(model(task.train.x), task.train.y))
        assert reached >= LEARNED.get(name, 0.95), f"{task.name}: {reached:.3f}"


def test_custom_tasks_come_through_python():
    with pytest.raises(ValueError, match=r"tasks\.dataset = 'custom'.*Python API"):
        build_tasks(TaskStream(dataset="custom"))


@pytest.mark.parametrize("scenario", ["permuted", "rotated"])
def test_heads_go_with_split_only(scenario):
    with pytest.raises(ValueError, match=f"split.*{scenario}"):
        TaskStream(scenario=scenario, heads=True)
