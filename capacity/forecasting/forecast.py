"""Forecast how much an old task is forgotten, before the new task is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from capacity.checks import positive_float, positive_int, resolve_device
from capacity.config import Strategy, Training
from capacity.dynamics.batches import DataOrder
from capacity.dynamics.evaluate import Score
from capacity.dynamics.flat import FlatModel
from capacity.dynamics.strategies.contribution import Contribution
from capacity.dynamics.strategies.terms import Source
from capacity.estimate import Estimate, Status, from_samples, not_defined
from capacity.forecasting.compression import unknown_to_compression
from capacity.forecasting.engine import CheapForecast, forecast_cheaply
from capacity.forecasting.inputs import check_network
from capacity.forecasting.linearized import cost_ratio, linearized_scores, simulate_stably
from capacity.forecasting.mitigated import contribution_of, foreseen, named_strategies
from capacity.notebook import InNotebook
from capacity.tasks.task import LossFunction, Task
from capacity.tasks.tensors import as_task, old_tasks_of

INTERVAL_NOTE = (
    "The interval covers data order and, over replicas, initialisation; the error of the "
    "linearisation is not in it."
)

_AUTO = 0.05

_AS_FLOW = (
    "The linearised training is unstable at this learning rate; it was followed in smaller steps, "
    "as a network that leaves the unstable region does."
)


@dataclass(frozen=True, kw_only=True)
class Forgetting(InNotebook):
    """Forgetting of one old task: forecast, or measured; positive means forgotten.

    Attributes:
        accuracy_drop: Accuracy before the new task minus after it, in [-1, 1].
        loss_increase: Loss after the new task minus before it.
    """

    accuracy_drop: Estimate
    loss_increase: Estimate

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON types.

        Returns:
            The two estimates.
        """
        return {
            "accuracy_drop": self.accuracy_drop.to_dict(),
            "loss_increase": self.loss_increase.to_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class Forecast(InNotebook):
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
        if task.classifies
        else NO_ACCURACY,
        loss_increase=from_samples(loss, status=status, note=note, predict=predict),
    )


NO_ACCURACY = not_defined("Accuracy is not defined for regression; read the loss.")


def forecast_replicas(
    model: FlatModel,
    theta: Tensor,
    old: tuple[Task, ...],
    new: Task,
    training: Training,
    order: DataOrder,
    contribution: Contribution | None = None,
) -> Forecast:
    """Forecast for replicas that are already flat, each with its own data order.

    Args:
        model: The network.
        theta: Parameters of the replicas at the end of the old tasks (R, P).
        old: The old tasks.
        new: The new task.
        training: The new task's planned training.
        order: Data order of the simulation.
        contribution: What a strategy adds to learning the new task; None adds nothing.

    Returns:
        The forecast, with spread over replicas and data orders.
    """
    plan = Contribution(training=training) if contribution is None else foreseen(contribution)
    made = simulate_stably(model, theta, new, training, order, contribution=plan)
    delta, note = made.delta, f"{INTERVAL_NOTE} {_AS_FLOW}" if made.spent > 1 else INTERVAL_NOTE

    forgetting, ends = [], []
    for task in old:
        before, after = linearized_scores(model, theta, delta, task, task.test)
        ends.append(after)
        forgetting.append(
            change(task, before, after, status=Status.UNCALIBRATED, note=note, predict=True)
        )
    _, reached = linearized_scores(model, theta, delta, new, new.test)
    ends.append(reached)
    ratio = made.spent * cost_ratio(model, theta[0], new, training.batch_size, plan)
    every = all(task.classifies for task in (*old, new))
    return Forecast(
        old=tuple(forgetting),
        new_accuracy=_spread(reached.accuracy, note) if new.classifies else NO_ACCURACY,
        new_loss=_spread(reached.loss, note),
        cost_ratio=Estimate(
            value=ratio,
            cost=ratio * plan.training.steps(len(new.train)),
            note="Counted floating-point operations, per network and data order.",
        ),
        average_accuracy=_spread(torch.stack([end.accuracy for end in ends]).mean(0), note)
        if every
        else NO_ACCURACY,
        average_loss=_spread(torch.stack([end.loss for end in ends]).mean(0), note),
    )


def _spread(values: Tensor, note: str) -> Estimate:
    return from_samples(values.tolist(), status=Status.UNCALIBRATED, note=note, predict=True)


def forecast(
    model: nn.Module,
    *,
    old: object,
    new: object,
    training: Training | None = None,
    strategies: str | Sequence[str | Mapping[str, Any] | Strategy] = (),
    loss: str | LossFunction = "cross_entropy",
    orders: int = 8,
    budget: float | Literal["auto"] | None = "auto",
    seed: int = 0,
    device: str | torch.device = "auto",
) -> Forecast:
    """Forecast how much a network forgets when it learns a new task.

    A copy of the network goes through a compressed training of the new task (`engine`); without a
    budget the network is linearised where it stands and the new task's own training is simulated on
    the linearisation, once for each of several data orders (theory, section 4). The model is not
    changed.

    Args:
        model: The network as it is after the old task; only `requires_grad` parameters count.
        old: The old task, or a *list* of them. A task is a `Task`, an `(x, y)` pair of tensors, a
            pair of such pairs (train, test), a `Dataset`, a `DataLoader`, or an Avalanche
            experience.
        new: The new task, in one of the same forms.
        training: How the new task will be trained, its strategy against forgetting included; None
            takes the defaults of `Training`.
        strategies: Strategies to compare: names, options as {"name": "ewc", "strength": 10}, or
            `all` for all that need no option and no past. What they remember (importances,
            memories, bases) is made from the old tasks' training data and the network as it is.
        loss: Loss of the tasks that do not bring one: `cross_entropy`, `mse`, or a function of
            (outputs, targets) that returns the mean.
        orders: Data orders to simulate, without a budget; their spread gives the interval.
        budget: Operations to spend at most, as a share of those of the planned training (0.05 is
            5 %); each of `strategies` has as much. `auto` is 5 %, or the smallest share that pays a
            forecast. None simulates the linearised training instead, which costs about two
            trainings and is exact for linear networks. SGLD is always simulated, and the note says
            so.
        seed: Seed of the simulated data orders.
        device: Where to compute: auto, cpu, cuda or cuda:N.

    Returns:
        The forecast. With a budget, its intervals are calibrated on a corpus of earlier transitions
        where that holds any like this one; else they carry the status `uncalibrated` and a reason:
        they know the data order but not the linearisation error. `by_strategy` has a forecast for
        every one of `strategies`.

    Raises:
        ValueError: If the model, a task, the training or the device cannot be used; the message
            says which and why.

    Example:
        >>> import torch, capacity
        >>> model = torch.nn.Linear(4, 2)
        >>> x, y = torch.randn(32, 4), torch.randint(2, (32,))
        >>> made = capacity.forecast(model, old=(x, y), new=(x, 1 - y))
        >>> low, high = made.loss_increase.interval
        >>> low < made.loss_increase.value < high
        True
    """
    training = Training() if training is None else training
    if not isinstance(training, Training):
        raise ValueError(
            f"training is a {type(training).__name__}; pass capacity.Training(lr=..., epochs=...)"
        )
    positive_int("orders", orders)
    positive_int("seed", seed, minimum=0)
    wanted = named_strategies(strategies)
    stretch = budget == "auto"
    share = _AUTO if budget == "auto" else budget
    if share is not None:
        positive_float("budget", share)
    where = resolve_device(device)
    flat = FlatModel(model)
    old_tasks = old_tasks_of(old, loss=loss)
    new_task = as_task(new, name="new", loss=loss)
    theta = flat.initial()
    check_network(flat, theta, old_tasks, new_task)

    flat.to(where)
    new_task = new_task.to(where)
    old_tasks = tuple(task.to(where) for task in old_tasks)
    start = theta.to(where).expand(orders, -1).contiguous()
    order = DataOrder(
        samples=len(new_task.train),
        batch_size=training.batch_size,
        epochs=training.epochs,
        replicas=orders,
        seed=seed,
        path=("forecast",),
    )

    def under(options: Strategy) -> Forecast:
        unknown = unknown_to_compression(training)
        if share is not None and unknown is None:
            point = start[0]
            said = forecast_cheaply(
                flat, point, old_tasks, new_task, training,
                budget=share, stretch=stretch, strategy=options, seed=seed,
            )  # fmt: skip
            spent = said.cost_ratio.value or share
            # Here, since it takes scikit-learn's second to load.
            from capacity.forecasting.calibration import Conditions, calibrated

            conditions = Conditions(
                training=training,
                strategy=options.name,
                samples=len(new_task.train),
                parameters=flat.size,
                budget=max(share, spent),
                losses=frozenset(task.loss for task in (*old_tasks, new_task)),
            )
            return calibrated(from_readings(said), conditions)
        source = Source(seed, ("forecast", "strategy"))
        plan = contribution_of(options, flat, start, old_tasks, new_task, training, source)
        made = forecast_replicas(flat, start, old_tasks, new_task, training, order, plan)
        if share is None:
            return made
        note = f"{made.cost_ratio.note} Simulated: no cheaper forecast knows {unknown}."
        return replace(made, cost_ratio=replace(made.cost_ratio, note=note))

    compared = {name: under(options) for name, options in wanted.items()}
    return replace(under(training.strategy), by_strategy=rank(compared))


def from_readings(said: CheapForecast) -> Forecast:
    """Put what the cheap engine says into a forecast.

    Args:
        said: The engine's readings.

    Returns:
        The forecast. Averages over tasks have no interval: the readings share a displacement.
    """
    every = (*said.old, said.new)
    note = said.new.loss.note

    def average(values: list[float | None]) -> Estimate:
        if any(value is None for value in values):
            return Estimate(value=None, status=Status.DIVERGED, note=note)
        mean = math.fsum(value for value in values if value is not None) / len(values)
        return Estimate(value=mean, status=Status.UNCALIBRATED, note=note)

    classify = all(one.accuracy.status is not Status.NOT_DEFINED for one in every)
    return Forecast(
        old=tuple(Forgetting(accuracy_drop=r.drop, loss_increase=r.rise) for r in said.old),
        new_accuracy=said.new.accuracy,
        new_loss=said.new.loss,
        cost_ratio=said.cost_ratio,
        average_accuracy=average([r.accuracy.value for r in every]) if classify else NO_ACCURACY,
        average_loss=average([r.loss.value for r in every]),
    )


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
