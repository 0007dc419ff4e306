"""Forecast how much an old task is forgotten, before the new task is trained."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from capacity.base.ambient import in_own_precision
from capacity.base.checks import positive_float, positive_int, resolve_device
from capacity.base.random_streams import stream_seed
from capacity.base.slow_paths import noting
from capacity.forecasting.budget import AUTO
from capacity.forecasting.compression import unknown_to_compression
from capacity.forecasting.history import History
from capacity.forecasting.inputs import check_network
from capacity.forecasting.linearized import cost_ratio, linearized_scores, simulate_stably
from capacity.forecasting.mitigated import contribution_of, foreseen, named_strategies
from capacity.forecasting.race import raced
from capacity.forecasting.record import (
    NO_ACCURACY,
    Forecast,
    change,
    rank,
    said_of_all,
    with_scoring,
)
from capacity.forecasting.trainer_door import planned
from capacity.forecasting.within_budget import (
    forecast_within,
    rehearsals,
    rehearse_in_turn,
    rehearse_together,
)
from capacity.networks.belief import believed
from capacity.networks.flat_model import FlatModel
from capacity.networks.gathered import gathered
from capacity.networks.own_losses_door import check_outputs_are_known
from capacity.recipe.config import Strategy, Training
from capacity.records.estimate import Estimate, Status, from_samples
from capacity.records.forecast_kind import plain_strategy
from capacity.strategies.contribution import Contribution
from capacity.strategies.terms import Source
from capacity.tasks.loaders import with_loader_batches
from capacity.tasks.streamed import in_order
from capacity.tasks.task import LossFunction, Task
from capacity.tasks.tensors import as_task, old_tasks_of
from capacity.tasks.trainers import is_trainer
from capacity.training.data_order import DataOrder

INTERVAL_NOTE = (
    "The interval covers data order and, over replicas, initialisation; the error of the "
    "linearisation is not in it."
)

_SIMULATED = 8
"""Data orders that are simulated where nobody says how many."""

_AS_FLOW = (
    "The linearised training is unstable at this learning rate; it was followed in smaller steps, "
    "as a network that leaves the unstable region does."
)


@noting(said_of_all)
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
    ratio = made.spent * cost_ratio(model, theta[0], new, training.samples_per_step, plan)
    every = all(task.scored for task in (*old, new))
    return Forecast(
        old=tuple(forgetting),
        new_accuracy=_spread(reached.accuracy, note) if new.scored else NO_ACCURACY,
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


def simulated(made: Forecast, unknown: str) -> Forecast:
    """Say of a simulation why it is none within the budget.

    Args:
        made: The simulation's forecast.
        unknown: What the engine does not know, as `unknown_to_compression` names it.

    Returns:
        The forecast with that in the note of its price.
    """
    note = f"{made.cost_ratio.note} Simulated: no cheaper forecast knows {unknown}."
    return replace(made, cost_ratio=replace(made.cost_ratio, note=note))


@in_own_precision
def forecast(
    model: nn.Module | object,
    *,
    old: object,
    new: object = None,
    training: Training | None = None,
    strategies: str | Sequence[str | Mapping[str, Any] | Strategy] = (),
    loss: str | LossFunction | None = None,
    orders: int | None = None,
    budget: float | Literal["auto"] | None = "auto",
    history: History | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
) -> Forecast:
    """Forecast how much a network forgets when it learns a new task.

    A copy of the network goes through a compressed training of the new task (`engine`); without a
    budget the network is linearised where it stands and the new task's own training is simulated on
    the linearisation, once for each of several data orders (theory.md#linearised-training). The
    model is not changed.

    Args:
        model: The network as it is after the old task; only `requires_grad` parameters count.
            Layers in training mode (dropout, batch norm) train in it, and are scored in evaluation
            mode. One that `fully_shard` shards (FSDP2) is gathered, by all processes together. Or
            a `transformers.Trainer`, which says what it is about to train: model, data
            set, collator, loss and plan; `new`, `training` and `loss` may then be left out.
        old: The old task, a *list* of them, or a mapping of them by name. A task is a `Task`, an
            `(x, y)` pair of tensors, a pair of such pairs (train, test), a `Dataset`, a
            `DataLoader`, a mapping of tensors with `labels`, or an Avalanche experience. Inputs may
            be tensors, or mappings and tuples of tensors, which are the network's arguments. What
            comes without a test split is split by `hold_out`; train the network on its `.train`, or
            its scores here are no test scores.
        new: The new task, in one of the same forms.
        training: How the new task will be trained, its strategy against forgetting included; None
            takes the defaults of `Training`.
        strategies: Strategies to compare: names, options as {"name": "ewc", "strength": 10}, or
            `all` for all that need no option and no past, and that know the network's layers. What
            they remember (importances, memories, bases) is made from the old tasks' training data
            and the network as it is.
        loss: Loss of the tasks that do not bring one: `cross_entropy` (None is that, too), `mse`,
            or a function of (outputs, targets) that returns the mean.
        orders: Data orders to rehearse or simulate, whose spread gives the interval; None
            rehearses as many as take about ten seconds in all, at most four, and simulates eight. A
            compressed training has one.
        budget: Operations to spend at most, as a share of those of the planned training (0.05 is
            5 %); each of `strategies` has as much, but of three or more `auto` gives the worse half
            no more than 5 %. `auto` rehearses where all that is forecast would take less than about
            a minute on one core: copies go through the whole training, each in a data order of its
            own; else it is 5 %, or about ten seconds in all, or what the steps cost that a plan of
            few steps must keep (half at most), whichever is most.
            `math.inf` always rehearses. None simulates the linearised training instead, which
            costs about two trainings and is exact for linear networks. SGLD is always simulated,
            and the note says so.
        history: What earlier runs of this network forecast and then measured, as
            `capacity.history("runs")` reads it: corrects the forecast, and gives it intervals from
            the errors of its own project, once there are nine transitions or more.
        seed: Seed of the simulated data orders.
        device: Where to compute: auto, cpu, cuda or cuda:N.

    Returns:
        The forecast. A rehearsal's intervals are what another data order changes. With a budget
        below the whole training, intervals are calibrated on a corpus of earlier transitions
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
    if training is not None and not isinstance(training, Training):
        raise ValueError(
            f"training is a {type(training).__name__}; pass capacity.Training(lr=..., epochs=...)"
        )
    if orders is not None:
        positive_int("orders", orders)
    positive_int("seed", seed, minimum=0)
    if history is not None and not isinstance(history, History):
        raise ValueError(
            f"history is a {type(history).__name__}; pass capacity.history('runs'), which reads "
            "what earlier runs forecast and measured"
        )
    wanted = named_strategies(strategies)
    if not (budget is None or budget == "auto" or budget == math.inf):
        positive_float("budget", budget)
    where = resolve_device(device)
    if is_trainer(model):
        plan = planned(model, old=old, new=new, training=training, loss=loss)
        model, old, new, training = plan
    elif new is None:
        raise ValueError("new is missing; pass the task that comes next, as new=(x, y)")
    loss = "cross_entropy" if loss is None else loss
    old_tasks = old_tasks_of(old, loss=loss)
    new_task = as_task(new, name="new", loss=loss)
    if isinstance(model, nn.Module):
        model = gathered(model)
    flat = FlatModel(believed(model, training or Training(), classifies=new_task.classifies))
    training = with_loader_batches(training, [new_task])
    if training.curriculum is not None:
        training.curriculum.check_epochs(training.passes(len(new_task.train)))
    theta = flat.to(where).initial()
    unknown = unknown_to_compression(training)
    *older, new_task = check_network(
        flat, theta,
        [task.to(where) for task in old_tasks], new_task.to(where),
        twice=budget is None or unknown is not None,
        two_modes=budget is not None and unknown is None,
    )  # fmt: skip
    old_tasks = tuple(older)
    if budget is None or unknown is not None:
        check_outputs_are_known((*old_tasks, new_task), "the linearised training and its scores")
    copies = 0
    if budget is not None and unknown is None:
        copies = rehearsals(
            flat, theta[None], new_task, training, budget=budget, forecasts=1 + len(wanted)
        )
    always = in_order(new_task.train.x)  # one order, then
    count = 1 if copies and always else orders or copies or _SIMULATED
    start = theta.expand(count, -1).contiguous()
    order = DataOrder.planned(
        training, len(new_task.train),
        replicas=count, seed=seed, path=("forecast",), in_order=always,
    )  # fmt: skip

    def under(options: Strategy, share: float | str | None = budget) -> Forecast:
        made = alone(options, share)
        if history is None:
            return made
        strategy = plain_strategy(options.model_dump(mode="json"))
        return history.calibrated(made, strategy=strategy, parameters=flat.size)

    def alone(options: Strategy, share: float | str | None) -> Forecast:
        paid = None if unknown else share
        if paid is not None and (count == 1 or not copies):
            return forecast_within(
                flat, theta[None], old_tasks, new_task, training,
                budget=paid, seeds=[seed], forecasts=1 + len(wanted), strategy=options,
                stretch=budget == AUTO,
            )  # fmt: skip
        if paid is not None and flat.two_modes:
            return rehearse_in_turn(
                flat, theta, old_tasks, new_task, training,
                seeds=[stream_seed(seed, "forecast", k) for k in range(count)], strategy=options,
            )  # fmt: skip
        source = Source(seed, ("forecast", "strategy"))
        plan = contribution_of(options, flat, start, old_tasks, new_task, training, source)
        if paid is not None:
            return rehearse_together(flat, start, old_tasks, new_task, plan, order, alike=True)
        made = forecast_replicas(flat, start, old_tasks, new_task, training, order, plan)
        return made if unknown is None else simulated(made, unknown)

    def tried(name: str, share: float | str | None = budget) -> Forecast | None:
        try:
            return under(wanted[name], share)
        except ValueError as error:
            if strategies != "all":
                raise
            warnings.warn(f"strategies = 'all' leaves {name} out: {error}", stacklevel=4)
            return None

    if budget == AUTO and unknown is None and not copies:
        compared = raced(list(wanted), tried)
    else:
        compared = rank({name: one for name in wanted if (one := tried(name)) is not None})
    made = replace(under(training.strategy), by_strategy=compared)
    return with_scoring(made, old_tasks, new_task)
