"""What is needed to forecast one task of a recipe: the network that has learned those before it."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch

from capacity.base.checks import one_of, positive_int
from capacity.forecasting.forecast import forecast
from capacity.networks.belief import believed
from capacity.networks.flat_model import FlatModel
from capacity.networks.models import build_model
from capacity.recipe.config import Recipe
from capacity.strategies.mitigation import Mitigation
from capacity.strategies.terms import Source
from capacity.tasks.build import build_tasks
from capacity.tasks.streamed import in_order
from capacity.training.data_order import DataOrder


def before_task(
    recipe: Recipe,
    number: int | None = None,
    *,
    device: torch.device,
    on_task: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Learn the tasks of a recipe up to one, as its first replica does, and measure nothing.

    Args:
        recipe: The recipe.
        number: The task to forecast, from 2; None takes the last one.
        device: Where to train.
        on_task: Called with what is learned next.

    Returns:
        The arguments of `forecast`: model, old, new, training and strategies.

    Raises:
        ValueError: If there is no such task, or a training diverged.
    """
    sequence = build_tasks(recipe.tasks)
    count = len(sequence)
    number = count if number is None else positive_int("task", number, minimum=2)
    if not 2 <= number <= count:
        raise ValueError(
            f"task = {number}, and the recipe has {count}; pass one from 2 to {count}, which has "
            "a task before it"
        )
    point = build_model(recipe.model, sequence.input_shape, sequence.n_outputs, recipe.seed)
    classifies = all(task.classifies for task in sequence.tasks)
    module = believed(point, recipe.training, classifies=classifies)
    model = FlatModel(module).to(device)
    theta = model.initial()[None]
    mitigation = Mitigation(recipe.training.strategy, model, Source(recipe.seed, ("strategy",)))
    old = sequence.tasks[: number - 1]
    for i, task in enumerate(old):
        on_task(f"task {i + 1}/{number} ({task.name}): learned, to forecast the last")
        order = DataOrder.planned(
            recipe.training,
            len(task.train),
            replicas=1,
            seed=recipe.seed,
            path=("order", i),
            in_order=in_order(task.train.x),
        )
        phase = mitigation.learn(theta, task.to(device), recipe.training, order)
        if phase.diverged is not None:
            raise ValueError(
                f"training diverged on task {i + 1} ({task.name}) at step {phase.diverged.step}; "
                "a smaller training.lr usually helps"
            )
        theta = phase.theta
    learned = {**model.unflatten(theta[0]), **model.statistics()}
    module.load_state_dict({k: t.detach().cpu() for k, t in learned.items()}, strict=False)
    return {
        "model": module,
        "old": list(old),
        "new": sequence.tasks[number - 1],
        "training": recipe.training,
        "strategies": list(recipe.measure.strategies),
        "seed": recipe.seed,
    }


def arguments_from(named: str) -> dict[str, Any]:
    """Call a function of the user's, which gives the arguments of `forecast`.

    Args:
        named: It, as `module:function`; modules are looked for in the current folder, too.

    Returns:
        What it returned, a mapping with `model` (a network, or a `transformers.Trainer`) and `old`.

    Raises:
        ValueError: If there is no such function, or it returns something else.
    """
    module, colon, function = named.partition(":")
    if not colon or not module or not function:
        raise ValueError(f"--trainer {named!r} names no function; write it as module:function")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        made = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise ValueError(f"--trainer {named!r}: {error}") from None
        raise ValueError(f"--trainer {named!r}: there is no module {module!r} here") from None
    except AttributeError:
        raise ValueError(f"--trainer {named!r}: {module} has no {function!r}") from None
    given = made()
    if not isinstance(given, Mapping) or not {"model", "old"} <= set(given):
        raise ValueError(
            f"--trainer {named!r} returned a {type(given).__name__}; return the arguments of "
            "capacity.forecast, as {'model': trainer, 'old': {'wiki': data}}"
        )
    accepted = inspect.signature(forecast).parameters
    for name in given:
        one_of(f"--trainer {named!r} returned an argument that", name, accepted)
    return dict(given)
