"""What one knob of a training does to old and new tasks, before any of it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from capacity.base.checks import nearest, nonnegative_float
from capacity.forecasting.forecast import forecast
from capacity.forecasting.record import Forecast
from capacity.forecasting.trainer_door import planned
from capacity.recipe.config import Training
from capacity.records.estimate import Estimate
from capacity.records.rows import Rows
from capacity.tasks.loaders import with_loader_batches
from capacity.tasks.task import Task
from capacity.tasks.tensors import as_task, old_tasks_of
from capacity.tasks.trainers import is_trainer

_SHARE = "share"
"""A memory's size as a share of the old tasks' training samples; 0 remembers nothing."""
_COLUMNS = (
    "knob", "at", "old", "accuracy_drop", "loss_increase", "new_accuracy", "new_loss", "cost_ratio"
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Forecasts along a knob, all with the same random numbers.

    Attributes:
        knob: What was turned, as `lr`, `epochs`, `replay.share` or `ewc.strength`.
        values: Where it stood, in the order given.
        forecasts: What was forecast there.
    """

    knob: str
    values: tuple[float, ...]
    forecasts: tuple[Forecast, ...]

    def rows(self) -> Rows:
        """List the values: one row per place and old task.

        Returns:
            Rows ready for pandas; numbers without their intervals, which `forecasts` has.
        """
        return Rows(
            _COLUMNS,
            [
                (
                    self.knob,
                    at,
                    k,
                    cell.accuracy_drop.value,
                    cell.loss_increase.value,
                    made.new_accuracy.value,
                    made.new_loss.value,
                    made.cost_ratio.value,
                )
                for at, made in zip(self.values, self.forecasts, strict=True)
                for k, cell in enumerate(made.old)
            ],
        )

    def least(
        self, *, accuracy_drop: float | None = None, loss_increase: float | None = None
    ) -> float | None:
        """Find the least value at which every old task keeps a limit.

        Args:
            accuracy_drop: Most accuracy that an old task may lose, in [0, 1].
            loss_increase: Most that its loss may rise.

        Returns:
            The least value whose forecasts keep the limits given, up to the upper ends of their
            intervals; None where none does, or a forecast has no value.

        Raises:
            ValueError: If no limit is given, or one is negative.
        """
        given = {"accuracy_drop": accuracy_drop, "loss_increase": loss_increase}
        limits = {k: nonnegative_float(k, v) for k, v in given.items() if v is not None}
        if not limits:
            raise ValueError("no limit is given; pass accuracy_drop=0.05, or loss_increase=0.1")
        kept = [
            at
            for at, made in zip(self.values, self.forecasts, strict=True)
            if not any(exceeded(made, **limits))
        ]
        return min(kept, default=None)


def exceeded(
    made: Forecast, *, accuracy_drop: float | None = None, loss_increase: float | None = None
) -> list[bool]:
    """Say of every old task whether its forecast exceeds a limit.

    Args:
        made: The forecast.
        accuracy_drop: Most accuracy that an old task may lose; None sets no limit.
        loss_increase: Most that its loss may rise; None sets no limit.

    Returns:
        By old task, whether the upper end of an interval lies above its limit; a forecast without a
        value keeps none.
    """

    def above(estimate: Estimate, limit: float | None) -> bool:
        if limit is None:
            return False
        if estimate.value is None:
            return True
        return (estimate.interval or (0.0, estimate.value))[1] > limit

    return [
        above(cell.accuracy_drop, accuracy_drop) or above(cell.loss_increase, loss_increase)
        for cell in made.old
    ]


def curve(
    model: object,
    knob: str,
    values: Sequence[float],
    *,
    old: object,
    new: object = None,
    training: Training | None = None,
    **how: Any,
) -> Curve:
    """Forecast old and new tasks along one knob of the training, with common random numbers.

    Args:
        model: The network after the old tasks, or a `transformers.Trainer`; see `forecast`.
        knob: A number of `Training` (`lr`, `epochs`, `weight_decay`), an option of a strategy
            (`ewc.strength`, `replay.memory`), or the `share` of the old tasks' training samples
            that a strategy's memory holds (`replay.share`), where 0 is no strategy.
        values: Where the knob stands, one forecast each.
        old: The old task, a list of them, or a mapping by name.
        new: The new task; None takes a trainer's own.
        training: The training whose knob is turned; None takes the defaults, or a trainer's own.
        how: Further arguments of `forecast`: `loss`, `budget`, `seed`, `device`.

    Returns:
        The curve.

    Raises:
        ValueError: If the knob or a value is none, or `forecast` refuses what it is given.

    Example:
        >>> import torch, capacity
        >>> x, model = torch.randn(64, 4), torch.nn.Linear(4, 2)
        >>> old, new = (x, (x[:, 0] > 0).long()), (x, (x[:, 1] > 0).long())
        >>> made = capacity.curve(model, "lr", [0.01, 0.1], old=old, new=new)
        >>> made.values
        (0.01, 0.1)
    """
    if not isinstance(knob, str) or not knob:
        raise ValueError(f"knob = {knob!r} is no name; pass one as 'lr' or 'replay.share'")
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise ValueError(f"values = {values!r} is no list of numbers; pass one as [0.01, 0.1]")
    for value in values:
        nonnegative_float("values", value)
    loss = how.get("loss") or "cross_entropy"
    if is_trainer(model):
        model, old, new, training = planned(
            model, old=old, new=new, training=training, loss=how.get("loss")
        )
    if new is None:
        raise ValueError("new is missing; pass the task that comes next, as new=(x, y)")
    tasks, task = old_tasks_of(old, loss=loss), as_task(new, name="new", loss=loss)
    plan = with_loader_batches(training, [task])
    plans = [_turned(plan, knob, value, tasks) for value in values]
    made = [forecast(model, old=list(tasks), new=task, training=at, **how) for at in plans]
    return Curve(knob=knob, values=tuple(values), forecasts=tuple(made))


def _turned(plan: Training, knob: str, value: float, old: Sequence[Task]) -> Training:
    """Set a knob."""
    fields = plan.model_dump()
    name, dot, option = knob.partition(".")
    if not dot:
        if name not in Training.model_fields:
            raise ValueError(
                f"knob = {knob!r} is no field of Training{nearest(name, Training.model_fields)}; "
                "pass one as 'lr' or 'epochs', or an option of a strategy as 'replay.share'"
            )
        return Training(**(fields | {name: value}))
    chosen = fields["strategy"] if fields["strategy"]["name"] == name else {"name": name}
    if option == _SHARE:
        if not 0 <= value <= 1:
            raise ValueError(f"values: {knob} = {value:g} is no share; pass numbers from 0 to 1")
        memory = round(value * sum(len(task.train) for task in old))
        chosen = {**chosen, "memory": max(memory, 1)} if value else {"name": "naive"}
    else:
        chosen = {**chosen, option: value}
    return Training(**(fields | {"strategy": chosen}))
