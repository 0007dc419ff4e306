"""What is measured before a task is learned: its forecast, and the room that is left for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from capacity.base.random_streams import stream_seed
from capacity.criterion.transition import assess
from capacity.forecasting.budget import AUTO
from capacity.forecasting.compression import unknown_to_compression
from capacity.forecasting.forecast import forecast_replicas, simulated
from capacity.forecasting.mitigated import contribution_of
from capacity.forecasting.record import Forecast, rank
from capacity.forecasting.within_budget import forecast_within, is_short, rehearse_together
from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.jacobian.trajectory import LostTrajectory, Trajectory
from capacity.networks.flat_model import FlatModel
from capacity.predictors.predictor import Prediction, Setting
from capacity.predictors.registry import predict, run_controls
from capacity.recipe.config import Recipe, Training
from capacity.runs.aside import Made
from capacity.runs.verdicts_along import Along, judge_transition
from capacity.strategies.contribution import Contribution
from capacity.strategies.terms import Source
from capacity.tasks.task import Task
from capacity.training.data_order import DataOrder


@dataclass(frozen=True, kw_only=True)
class BeforeTask:
    """Everything as it is before a task: what is measured of it may be measured later.

    Attributes:
        model: The network.
        theta: Parameters of the replicas (R, P).
        old: The tasks learned so far that are looked at.
        numbers: Their numbers in the run.
        new: The task to come.
        plan: Its training, with what a strategy adds.
        recipe: What to measure, at which effort.
        order: Data order of the forecast, no replica's own.
        phases: Trajectories of the old tasks; none takes J_t = 1.
        displacement: Mean displacement of the training before.
        generator: Source of the probes.
        along: The training before, at moments of it.
        time: Learning time of that training.
    """

    model: FlatModel
    theta: Tensor
    old: tuple[Task, ...]
    numbers: tuple[int, ...]
    new: Task
    plan: Contribution
    recipe: Recipe
    order: DataOrder
    phases: Sequence[Trajectory]
    displacement: float
    generator: torch.Generator
    along: Along
    time: float

    def here(self) -> BeforeTask:
        """Give the same for when the run has gone on.

        Returns:
            It, with running statistics of its own.
        """
        own = {n: t.clone() for n, t in self.model.statistics().items() if n.startswith("0/")}
        return replace(self, model=self.model.at(own))

    def forecast(self) -> Made:
        """Forecast what learning the task will do.

        Returns:
            The record, and no tensors.
        """
        given = self.model, self.theta, self.old, self.new, self.plan, self.order, self.recipe
        made = forecast_transition(*given)
        for entry in made["by_strategy"]:
            pairs = zip(self.numbers, entry["old"], strict=True)
            entry["old"] = [{"task": j, "forecast": cell} for j, cell in pairs]
        return made, {}

    def room(self) -> Made:
        """Measure the room that is left for the task.

        Returns:
            The record, and no tensors.
        """
        record = capacity_of_transition(
            self.model,
            self.theta[0],
            self.old,
            self.new,
            self.plan,
            recipe=self.recipe,
            phases=self.phases,
            displacement=self.displacement,
            generator=self.generator,
            along=self.along,
            time=self.time,
        )
        return record, {}


def forecast_transition(
    model: FlatModel,
    theta: Tensor,
    old: tuple[Task, ...],
    new: Task,
    plan: Contribution,
    order: DataOrder,
    recipe: Recipe,
) -> dict[str, Any]:
    """Forecast what learning a task will do, as planned and under the strategies to compare.

    Args:
        model: The network.
        theta: Parameters of the replicas before it (R, P).
        old: The tasks learned so far.
        new: The task to come.
        plan: Its training, with what a strategy adds.
        order: Data order of the forecast, no replica's own.
        recipe: Which strategies are compared, and what a forecast may cost.

    Returns:
        `new`, `old`, `cost_ratio`, `controls`, `old_controls` and `by_strategy` in plain JSON
        types, an entry per old task in the order in which they came.
    """
    rehearses = _rehearses(model, theta, new, recipe)
    made = _forecast(model, theta, old, new, recipe.training, order, recipe, rehearses, plan)
    setting = Setting(model=model, theta=theta, old=old, new=new, training=plan.training)
    ranked = {}
    for options in recipe.measure.strategies:
        training = recipe.training.model_copy(update={"strategy": options})
        if training == recipe.training and plan.plain:  # the run's own forecast, to the bit
            ranked[options.label] = made
            continue
        ranked[options.label] = _forecast(
            model, theta, old, new, training, order, recipe, rehearses
        )
    controls = predict(setting, run_controls())
    return {
        **_said(made),
        "old": [cell.to_dict() for cell in made.old],
        "controls": {name: said[0].loss_increase.to_dict() for name, said in controls.items()},
        "old_controls": own_controls(controls),
        "by_strategy": [
            {
                "name": name,
                **_said(said),
                "old": [cell.to_dict() for cell in said.old],
                "average_accuracy": said.average_accuracy.to_dict(),
                "average_loss": said.average_loss.to_dict(),
            }
            for name, said in rank(ranked).items()
        ],
    }


def own_controls(controls: Mapping[str, Sequence[Prediction]]) -> list[dict[str, Any]]:
    """List what simpler predictors say of every old task, where that is not what they say of all.

    Args:
        controls: A prediction per old task, by name.

    Returns:
        By old task, what is not the first task's `loss_increase`, by name.
    """
    count = max((len(said) for said in controls.values()), default=0)
    return [
        {
            name: {
                "accuracy_drop": said[j].accuracy_drop.to_dict(),
                "loss_increase": said[j].loss_increase.to_dict(),
            }
            for name, said in controls.items()
            if {said[j].accuracy_drop, said[j].loss_increase} != {said[0].loss_increase}
        }
        for j in range(count)
    ]


def _budget(model: FlatModel, recipe: Recipe) -> float | Literal["auto"] | None:
    # There is no linearisation where steps draw, or by plain autograd.
    budget = recipe.measure.forecast_budget
    return AUTO if budget is None and model.one_by_one else budget


def _forecasts(recipe: Recipe) -> int:
    return 1 + len(recipe.measure.strategies)


def _rehearses(model: FlatModel, theta: Tensor, new: Task, recipe: Recipe) -> bool:
    """Whether copies go through the whole training, whatever the strategy."""
    return (
        _budget(model, recipe) == AUTO
        and unknown_to_compression(recipe.training) is None
        and not model.two_modes
        and is_short(model, theta, new, recipe.training, forecasts=_forecasts(recipe))
    )


def _forecast(
    model: FlatModel,
    theta: Tensor,
    old: tuple[Task, ...],
    new: Task,
    training: Training,
    order: DataOrder,
    recipe: Recipe,
    rehearses: bool,
    plan: Contribution | None = None,
) -> Forecast:
    # Under one strategy. Without a plan it remembers the old tasks from the networks as they are,
    # as if it were taken up now; all of them see the same samples in the same order.
    budget, unknown = _budget(model, recipe), unknown_to_compression(training)
    if budget is not None and unknown is None and not rehearses:
        seeds = [stream_seed(order.seed, *order.path, r) for r in range(len(theta))]
        return forecast_within(
            model, theta, old, new, training,
            budget=budget, stretch=budget == AUTO, forecasts=_forecasts(recipe), seeds=seeds,
            contribution=plan,
        )  # fmt: skip
    if plan is None:
        source = Source(recipe.seed, ("forecast", "strategy"))
        plan = contribution_of(training.strategy, model, theta, old, new, training, source)
    if rehearses:
        return rehearse_together(model, theta, old, new, plan, order)
    made = forecast_replicas(model, theta, old, new, plan.training, order, plan)
    return made if budget is None or unknown is None else simulated(made, unknown)


def _said(made: Forecast) -> dict[str, Any]:
    return {
        "new": {"accuracy": made.new_accuracy.to_dict(), "loss": made.new_loss.to_dict()},
        "cost_ratio": made.cost_ratio.to_dict(),
    }


def capacity_of_transition(
    model: FlatModel,
    theta: Tensor,
    old: tuple[Task, ...],
    new: Task,
    plan: Contribution,
    *,
    recipe: Recipe,
    phases: Sequence[Trajectory],
    displacement: float,
    generator: torch.Generator,
    along: Along,
    time: float,
) -> dict[str, Any]:
    """Measure capacity and dimension before a task, and judge by them.

    Args:
        model: The network.
        theta: Its parameters before the task (P,).
        old: The tasks learned so far.
        new: The task to come.
        plan: Its training, with what a strategy adds.
        recipe: What to measure, at which effort.
        phases: Trajectories of the old tasks; none takes J_t = 1.
        displacement: Mean displacement of the training before.
        generator: Source of the probes.
        along: The training before, at moments of it.
        time: Learning time of that training.

    Returns:
        `measured`, the entries of a transition or None, and `note`, why it is None.
    """
    if not recipe.measure.capacity:
        return {"measured": None, "note": ""}
    try:
        record = assess(
            model,
            theta,
            old,
            new,
            TrainingJacobian(phases) if phases else None,
            recipe.measure,
            displacement=displacement,
            generator=generator,
        )
        if recipe.measure.verdicts:
            record = judge_transition(
                model,
                theta,
                old,
                new,
                plan.training,
                record,
                along=along,
                time=time,
                strategy="" if plan.plain else recipe.training.strategy.name,
                seed=recipe.seed,
            )
    except (FloatingPointError, LostTrajectory, torch.linalg.LinAlgError) as error:
        note = f"Capacity and dimension could not be measured: {error}"
        return {"measured": None, "note": note}
    return {"measured": record.to_dict(), "note": ""}
