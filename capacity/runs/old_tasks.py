"""Which old tasks a run forecasts and scores: their number bounds what one further task costs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.base.random_streams import stream
from capacity.networks.evaluate import Score, evaluate
from capacity.networks.flat_model import FlatModel
from capacity.recipe.old_choice import read_choice
from capacity.tasks.task import Task


@dataclass(frozen=True)
class OldTasks:
    """The tasks that are looked at along a run: a function of the recipe and its seed alone.

    Attributes:
        written: `all`, `last k` or `sample k`, as the recipe has it.
        count: Tasks of the run.
        seed: Seed of the run.
    """

    written: str
    count: int
    seed: int

    def before(self, i: int) -> tuple[int, ...]:
        """Choose the old tasks that a forecast before a task is of.

        Args:
            i: The task.

        Returns:
            Their numbers, rising.
        """
        kind, most = read_choice(self.written)
        if kind == "all" or most >= i:
            return tuple(range(i))
        if kind == "last":
            return tuple(range(i - most, i))
        drawn = torch.randperm(i, generator=stream(self.seed, "old", i))[:most]
        return tuple(sorted(drawn.tolist()))

    def tested(self, i: int) -> tuple[int, ...]:
        """Choose the tasks that are scored while a task is learned.

        Args:
            i: The task.

        Returns:
            Their numbers, rising: its own, the old ones of its transition, and those of the next,
            whose scores are the next one's starting point; every task of the run for `all`.
        """
        if read_choice(self.written).kind == "all":
            return tuple(range(self.count))
        then = self.before(i + 1) if i + 1 < self.count else ()
        return tuple(sorted({*self.before(i), i, *then}))

    def scored(self, i: int) -> tuple[int, ...]:
        """Choose the tasks that are scored once a task is learned.

        Args:
            i: The task.

        Returns:
            Their numbers, rising: those of `tested`; after the last task all of them.
        """
        return tuple(range(self.count)) if i + 1 == self.count else self.tested(i)


def scores_of(
    model: FlatModel, theta: Tensor, tasks: Sequence[Task], chosen: Collection[int]
) -> list[Score]:
    """Score some of the tasks.

    Args:
        model: The network.
        theta: Parameters (R, P).
        tasks: The tasks.
        chosen: Numbers of those to score on their test split.

    Returns:
        A score per task, NaN where none was asked for.
    """
    none = theta.new_full((len(theta),), torch.nan, dtype=torch.float64)
    return [
        evaluate(model, theta, task, task.test) if j in chosen else Score(none, none)
        for j, task in enumerate(tasks)
    ]
