"""Predictors that train or simulate: the engine, a short pilot (B7); and KL on B, post hoc."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch.nn.functional import kl_div, log_softmax

from capacity.base.random_streams import stream_seed
from capacity.forecasting.linearized import linearized_scores, simulate_stably
from capacity.forecasting.pseudo_kernel import forecast_by_flow
from capacity.networks.evaluate import evaluate
from capacity.networks.evaluate import outputs as outputs_of
from capacity.predictors.predictor import Cell, Outcome, Predictor, Value, both, same
from capacity.recipe.config import Strategy
from capacity.tasks.streamed import in_order
from capacity.training.data_order import DataOrder
from capacity.training.train import train

_PILOT_SHARE = 0.05
"""Share of B's steps that the pilot takes."""


def linearized(cell: Cell) -> Outcome:
    """The engine: B's training simulated on the linearised network.

    Args:
        cell: The replica.

    Returns:
        A value per old task.
    """
    theta = cell.theta[None]
    made = simulate_stably(cell.model, theta, cell.new, cell.training, _order(cell, "linearized"))
    values = []
    for task in cell.old:
        before, after = linearized_scores(cell.model, theta, made.delta, task, task.test)
        values.append(
            Value(float(before.accuracy - after.accuracy), float(after.loss - before.loss))
        )
    return values


LINEARIZED = Predictor(
    name="linearized",
    title="linearised training",
    source="theory.md#linearised-training",
    of=linearized,
    in_units=both,
)


def pseudo_kernel(cell: Cell) -> Outcome:
    """The flow of B's training in the pseudo-kernel at theta_A.

    Args:
        cell: The replica.

    Returns:
        A value per old task.
    """
    seed = stream_seed(cell.setting.seed, "predictors", "pseudo_kernel", cell.replica)
    # The plan's strategy is not seen by the predictors.
    training = cell.training.model_copy(update={"strategy": Strategy()})
    try:
        made = forecast_by_flow(cell.model, cell.theta, cell.old, cell.new, training, seed=seed)
    except ValueError as error:
        return f"{error}."
    nothing = math.nan
    return [
        Value(*(nothing if e.value is None else e.value for e in (read.drop, read.rise)))
        for read in made.old
    ]


PSEUDO_KERNEL = Predictor(
    name="pseudo_kernel",
    title="flow in the pseudo-kernel",
    source="theory.md#pseudo-kernel-flow",
    of=pseudo_kernel,
    in_units=both,
)


def pilot(cell: Cell) -> Outcome:
    """B7: train 5 % of B's steps, at least one, and take the forgetting that is there then.

    Args:
        cell: The replica.

    Returns:
        A value per old task.
    """
    order = _order(cell, "pilot")
    steps = max(1, round(_PILOT_SHARE * cell.training.steps(len(cell.new.train))))
    each = math.ceil(order.samples / order.batch_size)
    first = replace(order, epochs=math.ceil(steps / each), steps=steps)
    theta = cell.theta[None]
    trained = cell.model.apart()
    phase = train(trained, theta, cell.new, cell.training, first)
    if phase.diverged is not None:
        return [Value(math.nan, math.nan) for _ in cell.old]
    made = []
    for task in cell.old:
        before = evaluate(cell.model, theta, task, task.test)
        after = evaluate(trained, phase.theta, task, task.test)
        made.append(Value(float(before.accuracy - after.accuracy), float(after.loss - before.loss)))
    return made


PILOT = Predictor(
    name="pilot",
    code="B7",
    title="a pilot run over 5 % of B's steps",
    source="training itself, cut short",
    of=pilot,
    in_units=both,
)


def new_task_loss(cell: Cell) -> Outcome:
    """B8: the mean training loss of B at theta_A, an index.

    Args:
        cell: The replica.

    Returns:
        The same for every old task.
    """
    score = evaluate(cell.model, cell.theta[None], cell.new, cell.new.train)
    return same(float(score.loss), cell)


NEW_TASK_LOSS = Predictor(
    name="new_task_loss",
    code="B8",
    title="B's loss before it is learned",
    source="folklore",
    of=new_task_loss,
    in_runs=True,
)


def additive_marginals(cell: Cell) -> Outcome:
    """B0: the mean of earlier pairs, plus what is special about A's and about B's pairs among them.

    m + (mean of A's pairs - m) + (mean of B's pairs - m); a task without pairs adds nothing.

    Args:
        cell: The replica.

    Returns:
        A value per old task.
    """
    history = cell.setting.history
    if not history:
        return "Additive marginals need earlier measured pairs of tasks."

    def mean(part: str, old: str | None = None, new: str | None = None) -> float | None:
        chosen = [
            float(getattr(pair, part))
            for pair in history
            if old in {None, pair.old} and new in {None, pair.new}
        ]
        return math.fsum(chosen) / len(chosen) if chosen else None

    def predicted(part: str, old: str) -> float:
        middle = mean(part)
        assert middle is not None
        marginals = (mean(part, old=old), mean(part, new=cell.new.name))
        return middle + sum(m - middle for m in marginals if m is not None)

    return [
        Value(predicted("accuracy_drop", task.name), predicted("loss_increase", task.name))
        for task in cell.old
    ]


ADDITIVE_MARGINALS = Predictor(
    name="additive_marginals",
    code="B0",
    title="marginal means of earlier pairs",
    source="two-way table without interaction",
    of=additive_marginals,
    in_units=both,
)


def kl_on_new(cell: Cell) -> Outcome:
    """KL(pi_0 | pi) on B's test inputs, pi_0 the network before and pi after B; an index.

    For regression half the squared distance of the outputs: unit Gaussians.

    Args:
        cell: The replica.

    Returns:
        The same for every old task.
    """
    if cell.setting.after is None:
        return "A post-hoc ceiling needs the network after the new task."
    both = torch.stack([cell.theta, cell.setting.after[cell.replica]])
    then, now = cell.new.select(outputs_of(cell.model, both, cell.new.test.x)).double()
    if not cell.new.classifies:
        return same(float(0.5 * (now - then).square().sum(-1).mean()), cell)
    q, p = log_softmax(now, -1), log_softmax(then, -1)
    return same(float(kl_div(q, p, reduction="batchmean", log_target=True)), cell)


KL_ON_NEW = Predictor(
    name="kl_on_new",
    title="ceiling: KL(before | after) on B",
    source="Shenfeld et al. 2025 (arXiv 2509.04259)",
    of=kl_on_new,
    post_hoc=True,
)


def _order(cell: Cell, purpose: str) -> DataOrder:
    return DataOrder.planned(
        cell.training,
        len(cell.new.train),
        replicas=1,
        seed=cell.setting.seed,
        path=("predictors", purpose, cell.replica),
        in_order=in_order(cell.new.train.x),
    )
