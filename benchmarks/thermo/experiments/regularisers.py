"""What do regularisers cost at equal final loss, and which of them see the scale of a parameter?

A network that has learned the digits learns them permuted, by gradient descent on all samples, with
nothing, weight decay, dropout, an average of the weights (EMA), L2 or EWC around the old weights;
a belief about it by transport with nothing, weight decay or Fisher-Rao regularisation ([FR]). Every
path is read where the training loss first falls to one level: T, the action Sigma and d^2, in the
metric of the state, widths included. d^2/(T Sigma) is the efficiency, at most 1.

Then one belief learns both tasks by information geometry, as it is and with its hidden layer
rescaled by c and 1/c, which leaves the function as it is: with Fisher-Rao regularisation the
trained functions agree, with weight decay they do not.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from thermo_claims import Claim, Section, held
from thermo_drawing import value_of
from torch import Tensor, nn

from capacity.networks.belief import believed
from capacity.networks.door import fit
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import TaskStream, Training
from capacity.records.estimate import Estimate, from_samples
from capacity.records.number_format import Cell, cell, header_cell, say, text_cell
from capacity.records.numbers import number
from capacity.report.tables import Table
from capacity.strategies.mitigation import Mitigation
from capacity.strategies.step import StrategyStep
from capacity.tasks import build_tasks
from capacity.tasks.task import Task
from capacity.thermo.action import ActionMeter
from capacity.training.data_order import DataOrder
from capacity.training.steps import Step
from capacity.training.train import train

AVERAGE, DROPPED, SCALE = 0.9, 0.2, 3.0
DECAY = {"weight_decay": 0.01}
BELIEF = {"belief": {"geometry": "transport"}, "temperature": 1e-4}
METHODS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "weight decay": DECAY,
    "dropout": {},
    "EMA": {},
    "L2": {"strategy": {"name": "l2"}},
    "EWC": {"strategy": {"name": "ewc", "strength": 1.0}},
    "belief, nothing": BELIEF,
    "belief, weight decay": BELIEF | DECAY,
    "belief, Fisher-Rao": BELIEF | {"strategy": {"name": "fisher_rao"}},
}
"""Plans by name; those of one state, point or belief, are compared."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to the level.

    Attributes:
        method: Which.
        efficiency: d^2/(T Sigma) of every replica; None where one did not arrive.
        dissipation: Sigma of every replica, likewise.
        time: Mean T.
    """

    method: str
    efficiency: list[float] | None
    dissipation: list[float] | None
    time: float | None


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that is printed.

    Attributes:
        replicas: Initialisations.
        level: The training loss at which paths are read.
        rows: By method.
        changes: How far training a rescaled network changes the outputs, relative to how far
            training changes them, by what is added to the loss.
    """

    replicas: int
    level: float
    rows: list[Row]
    changes: dict[str, float]


class _Path:
    """Reads every replica's path where its loss first falls to a level."""

    def __init__(self, model: FlatModel, task: Task, level: float, *, averaged: bool) -> None:
        self._model, self._task, self._level, self._averaged = model, task, level, averaged
        self._meter = ActionMeter()
        self._start: Tensor | None = None
        self._at: Tensor | None = None
        self.read: dict[int, tuple[float, float, float]] = {}

    def observe(self, step: Step) -> None:
        """See one step."""
        before = step.before[0] if self._at is None else self._at
        kept = AVERAGE if self._averaged else 0.0
        after = kept * before + (1 - kept) * step.after[0]
        if self._start is None:
            self._start = before.double()
        self._meter.add(step.lr, before, after)
        self._at = after
        if len(self.read) == len(after):
            return
        loss = evaluate(self._model, after, self._task, self._task.train).loss
        squared = (after.double() - self._start).square().sum(-1)
        for r in torch.nonzero(loss <= self._level).flatten().tolist():
            found = (self._meter.time, float(self._meter.action[r]), float(squared[r]))
            self.read.setdefault(r, found)


def _module(seed: int, hidden: int, *, dropout: bool) -> nn.Module:
    torch.manual_seed(seed)
    mask = [nn.Dropout(DROPPED)] if dropout else []
    return nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), *mask, nn.Linear(hidden, 10))


def _starts(
    plan: Training, tasks: Sequence[Task], count: int, hidden: int, *, dropout: bool
) -> tuple[FlatModel, Tensor, list[Task]]:
    models = [
        FlatModel(believed(_module(seed, hidden, dropout=dropout), plan)) for seed in range(count)
    ]
    known = fit(models[0], models[0].initial(), list(tasks), two_modes=True)
    return models[0], torch.stack([model.initial() for model in models]), list(known)


def _plan(options: dict[str, Any], steps: int, lr: float) -> Training:
    return Training(lr=lr, max_steps=steps, batch_size=10**6, **options)


def _learned(
    made: Mitigation,
    flat: FlatModel,
    theta: Tensor,
    task: Task,
    plan: Training,
    watcher: Any = None,
) -> Tensor:
    added = made.plan(task, plan)
    order = DataOrder.planned(plan, len(task.train), replicas=len(theta), seed=0)
    step = None if added.plain else StrategyStep(flat, task, added, len(theta))
    watchers = [] if watcher is None else [watcher]
    phase = train(flat, theta, task, plan, order, observers=watchers, strategy=step)
    if phase.diverged is not None:
        raise ValueError(f"the training diverged at step {phase.diverged.step}; lower its rate")
    return phase.theta


def _row(
    name: str, tasks: Sequence[Task], count: int, hidden: int, steps: int, level: float
) -> Row:
    plan = _plan(METHODS[name], steps, 0.2)
    # The old task is learned with nothing beside it, so that all start where they are compared.
    first = _plan(BELIEF if plan.belief else {}, steps, 0.2)
    flat, theta, known = _starts(first, tasks, count, hidden, dropout=False)
    theta = _learned(Mitigation(first.strategy, flat), flat, theta, known[0], first)
    if name == "dropout":
        flat, _, known = _starts(plan, tasks, count, hidden, dropout=True)
    made = Mitigation(plan.strategy, flat)
    made.learned(known[0], theta)
    path = _Path(flat, known[1], level, averaged=name == "EMA")
    _learned(made, flat, theta, known[1], plan, path)
    if len(path.read) < count:
        return Row(method=name, efficiency=None, dissipation=None, time=None)
    read = [path.read[r] for r in range(count)]
    return Row(
        method=name,
        efficiency=[squared / (time * action) for time, action, squared in read],
        dissipation=[action for _, action, _ in read],
        time=math.fsum(time for time, _, _ in read) / count,
    )


def rescaled(theta: Tensor, hidden: int, scale: float) -> Tensor:
    """Rescale the hidden layer of 64-hidden-10 by `scale`, and the next by its inverse.

    Args:
        theta: Beliefs (R, 2P), widths first.
        hidden: Units.
        scale: Above 0.

    Returns:
        Beliefs (R, 2P) of the same functions.
    """
    first, last = 64 * hidden + hidden, 10 * hidden
    units = [scale] * first + [1 / scale] * last + [1.0] * 10
    return theta * torch.tensor(2 * units, dtype=theta.dtype)


def change(
    options: dict[str, Any], tasks: Sequence[Task], hidden: int, steps: int, lr: float
) -> float:
    """Train a belief by information geometry as it is and rescaled, in float64.

    Args:
        options: What is added to the plan.
        tasks: Two tasks.
        hidden: Units of the network.
        steps: Steps of each task.
        lr: Learning rate.

    Returns:
        Root mean square of the trained outputs' difference over that of what training changed.
    """
    belief = {"belief": {"geometry": "information", "width": 0.1}, "temperature": 1e-3}
    plan = _plan(belief | options, steps, lr)
    double = [
        Task(
            name=task.name,
            train=(task.train.x.double(), task.train.y),
            test=(task.test.x.double(), task.test.y),
        )
        for task in tasks
    ]
    module = _module(0, hidden, dropout=False).double()
    flat = FlatModel(believed(module, plan))
    known = fit(flat, flat.initial(), double, two_modes=True)
    x, outputs = known[1].train.x, []
    begin = flat.initial()[None]
    for scale in (1.0, SCALE):
        theta, made = rescaled(begin, hidden, scale), Mitigation(plan.strategy, flat)
        for task in known:
            theta = _learned(made, flat, theta, task, plan)
            made.learned(task, theta)
        with torch.no_grad():
            outputs.append(flat.outputs(theta[0], x))
    with torch.no_grad():
        moved = outputs[0] - flat.outputs(begin[0], x)
    return float((outputs[1] - outputs[0]).norm() / moved.norm())


def measured(
    *, samples: int = 200, count: int = 6, hidden: int = 16, steps: int = 200, level: float = 0.6
) -> Findings:
    """Read every way to the level, and train the rescaled beliefs."""
    stream = TaskStream(dataset="digits", scenario="permuted", experiences=2)
    tasks = [
        Task(name=task.name, train=task.train.first(samples), test=task.test)
        for task in build_tasks(stream)
    ]
    rows = []
    for name in METHODS:
        print(name, file=sys.stderr)
        rows.append(_row(name, tasks, count, hidden, steps, level))
    added = {"weight decay": DECAY, "Fisher-Rao": {"strategy": {"name": "fisher_rao"}}}
    return Findings(
        replicas=count,
        level=level,
        rows=rows,
        changes={
            name: change(options, tasks, hidden, min(steps, 40), 2.0)
            for name, options in added.items()
        },
    )


def _paired(findings: Findings, one: str, other: str, what: str) -> Estimate | None:
    by = {row.method: getattr(row, what) for row in findings.rows}
    if by[one] is None or by[other] is None:
        return None
    return from_samples([a - b for a, b in zip(by[one], by[other], strict=True)])


def _least(difference: Estimate) -> str:
    return number(2 * (difference.stderr or 0.0), 2)


def claims(findings: Findings) -> list[Claim]:
    """Hold what [FR] predicts against what came out."""
    found = []
    points = [name for name in METHODS if not name.startswith("belief")]
    for name in ("weight decay", "dropout", "EMA"):
        pairs = {
            other: difference
            for other in points
            if other != name and (difference := _paired(findings, other, name, "efficiency"))
        }
        theory = f"{name} is not optimal: another way to the same loss is more efficient ([FR])"
        if not pairs:
            found.append(Claim(theory, "it did not arrive", held(None), "nothing: 0 pairs"))
            continue
        best, ahead = max(pairs.items(), key=lambda pair: value_of(pair[1]))
        clear = abs(value_of(ahead)) > 2 * (ahead.stderr or 0.0)
        found.append(
            Claim(
                theory,
                f"{best} is ahead of it by {say(ahead)} in efficiency, paired by initialisation",
                held(value_of(ahead) > 0 if clear else None),
                f"no other of five ahead by two standard errors; {_least(ahead)} would have shown",
            )
        )
    saved = _paired(findings, "belief, weight decay", "belief, Fisher-Rao", "dissipation")
    if saved is not None:
        clear = abs(value_of(saved)) > 2 * (saved.stderr or 0.0)
        found.append(
            Claim(
                "Fisher-Rao regularisation dissipates less than weight decay at equal loss ([FR])",
                f"weight decay dissipates {say(saved)} more, of beliefs, paired by initialisation",
                held(value_of(saved) > 0 if clear else None),
                "a paired difference below 0 by two standard errors; "
                f"{_least(saved)} would have shown, either way",
            )
        )
    decay, fisher_rao = findings.changes["weight decay"], findings.changes["Fisher-Rao"]
    found.append(
        Claim(
            "rescaling a layer changes weight-decayed training, and not Fisher-Rao-regularised",
            f"it changes the outputs by {number(100 * decay, 2)} % and by {fisher_rao:.1g} of what "
            "training changes",
            held(decay > 1e-3 and fisher_rao < 1e-6),
            "a change under weight decay below 0.001, or under Fisher-Rao above 0.000001, of the "
            "training's own",
        )
    )
    return found


def section(findings: Findings) -> Section:
    """Make the section of the page."""
    arrived = [row for row in findings.rows if row.efficiency is not None]
    best = max(arrived, key=lambda row: math.fsum(row.efficiency or ()))
    told = [
        f"Most efficient on the way to a training loss of {findings.level:g}: {best.method}, at "
        f"{say(from_samples(best.efficiency or []))} of the speed limit.",
        f"A hidden layer rescaled by {SCALE:g}: trained outputs change by "
        f"{number(100 * findings.changes['weight decay'], 2)} % of what training does under weight "
        f"decay, and by {findings.changes['Fisher-Rao']:.1g} of it under Fisher-Rao.",
    ]
    return Section(
        "regularisers",
        "Regularisers at equal loss, and the scale of parameters",
        told,
        [],
        [table(findings)],
        claims(findings),
    )


def table(findings: Findings) -> Table:
    """List the ways to the level."""
    dash = Cell("\u2013")
    return Table(
        caption=f"The way to a training loss of {findings.level:g} on the second task",
        columns=("Regulariser", "State", "Efficiency", "Sigma", "T"),
        rows=[
            (
                header_cell(row.method),
                text_cell("belief" if row.method.startswith("belief") else "point"),
                dash if row.efficiency is None else cell(from_samples(row.efficiency)),
                dash if row.dissipation is None else cell(from_samples(row.dissipation)),
                dash if row.time is None else Cell(f"{row.time:.3g}"),
            )
            for row in findings.rows
        ],
        remark=f"Mean \u00b1 standard error over {findings.replicas} initialisations; a dash did "
        "not arrive. Points and beliefs have metrics of their own: compare within a state.",
    )
