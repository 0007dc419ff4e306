"""What a forecast says: forgetting of every old task, what the new one reaches, at which price."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from capacity.base.checks import nonnegative_float
from capacity.networks.evaluate import Score
from capacity.records.estimate import Estimate, Status, from_samples, not_defined, with_note
from capacity.records.notebook import InNotebook
from capacity.records.plain import Plain
from capacity.tasks.scoring import words_of, words_of_all
from capacity.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Forgetting(Plain, InNotebook):
    """Forgetting of one old task: forecast, or measured; positive means forgotten.

    Attributes:
        accuracy_drop: Accuracy before the new task minus after it, in [-1, 1].
        loss_increase: Loss after the new task minus before it.
    """

    accuracy_drop: Estimate
    loss_increase: Estimate


@dataclass(frozen=True, kw_only=True)
class Forecast(Plain, InNotebook):
    """What learning a new task is forecast to do.

    Attributes:
        old: Forecast forgetting of every old task, in the order given.
        new_accuracy: Accuracy on the new task's test split after training on it.
        new_loss: Loss on the new task's test split after training on it.
        cost_ratio: Operations of the forecast for one network and data order over those of the
            training that it forecasts.
        average_accuracy: Mean accuracy over all old tasks and the new one, after learning it.
        average_loss: Mean loss over all of them.
        by_strategy: The same under other strategies, by name, the best first (`rank`).
    """

    old: tuple[Forgetting, ...]
    new_accuracy: Estimate
    new_loss: Estimate
    cost_ratio: Estimate
    average_accuracy: Estimate
    average_loss: Estimate
    by_strategy: dict[str, Forecast] = field(default_factory=dict)

    @property
    def accuracy_drop(self) -> Estimate:
        """Forecast drop of the first (or only) old task's accuracy."""
        return self.old[0].accuracy_drop

    @property
    def loss_increase(self) -> Estimate:
        """Forecast rise of the first (or only) old task's loss."""
        return self.old[0].loss_increase

    def leaders(self, within: float = 0.01) -> tuple[str, ...]:
        """Name the strategies between which the forecast does not decide.

        Args:
            within: Mean accuracy over all tasks (of tasks without accuracy, mean loss) that counts
                as no difference.

        Returns:
            The best of `by_strategy` and those no further from it, the best first; strategies that
            were forecast for less than it, in a race, are no leaders.
        """
        nonnegative_float("within", within)
        made = list(self.by_strategy.items())
        if not made:
            return ()
        classify = made[0][1].average_accuracy.value is not None

        def worth(one: Forecast) -> float:
            value = one.average_accuracy.value if classify else one.average_loss.value
            return math.inf if value is None else -value if classify else value

        best, paid = worth(made[0][1]), made[0][1].cost_ratio.value or 0.0
        return tuple(
            name
            for name, one in made
            if worth(one) - best <= within and (one.cost_ratio.value or 0.0) >= paid / 2
        )


def change(
    task: Task, before: Score, after: Score, *, status: Status, note: str = "", predict: bool
) -> Forgetting:
    """Turn scores before and after into forgetting, over replicas.

    Args:
        task: The old task.
        before: Its scores before the new task was learned.
        after: Its scores afterwards, forecast or measured.
        status: Status of the estimates.
        note: Note of the estimates.
        predict: Give intervals for one further replica instead of the mean.

    Returns:
        The forgetting.
    """
    loss = (after.loss - before.loss).tolist()
    drop = (before.accuracy - after.accuracy).tolist()
    return Forgetting(
        accuracy_drop=from_samples(drop, status=status, note=note, predict=predict)
        if task.scored
        else NO_ACCURACY,
        loss_increase=from_samples(loss, status=status, note=note, predict=predict),
    )


def with_scoring(made: Forecast, old: Sequence[Task], new: Task) -> Forecast:
    """Say with every figure whether it is one on test samples or on training samples.

    Args:
        made: The forecast, with those of other strategies.
        old: Its old tasks.
        new: The new task.

    Returns:
        The forecast, with that in the notes of its estimates.
    """
    made = with_notes(
        made,
        [words_of(task) for task in old],
        new=words_of(new),
        whole=words_of_all([*old, new]),
    )
    return replace(
        made, by_strategy={k: with_scoring(m, old, new) for k, m in made.by_strategy.items()}
    )


def with_notes(made: Forecast, old: Sequence[str], *, new: str, whole: str) -> Forecast:
    """Say something with the figures of a forecast, but those of other strategies.

    Args:
        made: The forecast.
        old: What to say with the figures of each old task.
        new: What to say with those of the new task.
        whole: What to say with averages.

    Returns:
        The forecast.
    """
    return replace(
        made,
        old=tuple(
            Forgetting(
                accuracy_drop=with_note(cell.accuracy_drop, said),
                loss_increase=with_note(cell.loss_increase, said),
            )
            for cell, said in zip(made.old, old, strict=True)
        ),
        new_accuracy=with_note(made.new_accuracy, new),
        new_loss=with_note(made.new_loss, new),
        average_accuracy=with_note(made.average_accuracy, whole),
        average_loss=with_note(made.average_loss, whole),
    )


def said_of_all(made: Forecast, said: str) -> Forecast:
    """Say the same with every figure of a forecast.

    Args:
        made: The forecast.
        said: Sentences.

    Returns:
        The forecast.
    """
    return with_notes(made, [said] * len(made.old), new=said, whole=said)


NO_ACCURACY = not_defined("Accuracy is not defined for regression; read the loss.")


def rank(forecasts: Mapping[str, Forecast]) -> dict[str, Forecast]:
    """Order strategies by what they leave: the mean accuracy over all tasks, old and new.

    The loss, averaged in the same way, decides between equals and where a task has no accuracy;
    what diverges comes last.

    Args:
        forecasts: Forecasts by name.

    Returns:
        The same, the best first.
    """

    def worth(name: str) -> tuple[float, float]:
        accuracy, loss = forecasts[name].average_accuracy, forecasts[name].average_loss
        if loss.value is None:
            return (math.inf, math.inf)
        return (-(accuracy.value or 0.0), loss.value)

    return {name: forecasts[name] for name in sorted(forecasts, key=worth)}
