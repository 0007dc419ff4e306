"""Does a curriculum learn closer to the speed limit? Easy-to-hard digits against standard order.

How hard a digit is, is its margin under a small reference classifier (a linear one, fitted to the
training split once): the logit of its class minus the largest other one. MLP 64-64-10, by gradient
descent on all samples of the moment, and by SGD. The first third of the training has S = 5 stages:
stage s sees the easiest s/S of the samples. Control: the same from the hard end. Every order takes
the same number of steps of the same length.

The loss that a curriculum descends changes while it learns: it is driven, and T dL is not its
dissipation. The path's own cost, T sum |d theta_k|^2/lr, stays a bound and is what is compared.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from thermo_claims import Claim, Section, held
from thermo_drawing import COLORS, Series, plotted, value_of
from thermo_training import MLP, Trained, digits, replicas, watched
from torch import Tensor

from capacity.base.random_streams import stream
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from capacity.records.estimate import Estimate, from_samples
from capacity.records.number_format import Cell, cell, header_cell, say, text_cell
from capacity.records.numbers import number
from capacity.report.charts import Figure
from capacity.report.tables import Table
from capacity.tasks.task import Task
from capacity.thermo.action import ActionMeter, checked_ratio
from capacity.training.data_order import DataOrder
from capacity.training.steps import Step

STANDARD, EASY, HARD = "standard order", "easy to hard", "hard to easy"
GD, SGD = "gradient descent", "SGD, batches of 64"
STAGES = 5


@dataclass(frozen=True, kw_only=True)
class StagedOrder(DataOrder):
    """Draws from a growing part of a ranking; epochs have the steps of a pass over all samples.

    Attributes:
        ranking: Rows of the training split, first to be seen first.
        stages: S; stage s draws from the first s/S of the ranking.
        stage_epochs: Epochs that a stage lasts.
    """

    ranking: tuple[int, ...]
    stages: int
    stage_epochs: int

    def epoch_batches(self, device: torch.device) -> Iterator[Iterator[Tensor]]:
        """Iterate over epochs, and in each over its batches."""
        streams = [stream(self.seed, *self.path, replica) for replica in range(self.replicas)]
        ranking = torch.tensor(self.ranking)
        for epoch in range(self.epochs):
            share = min((epoch // self.stage_epochs + 1) / self.stages, 1.0)
            pool = ranking[: max(1, math.ceil(share * self.samples))]
            if self.batch_size >= self.samples:
                yield iter([pool.expand(self.replicas, -1).to(device)])
                continue
            passes = -(-self.samples // len(pool))
            order = torch.stack([
                torch.cat([pool[torch.randperm(len(pool), generator=g)] for _ in range(passes)])
                for g in streams
            ])[:, : self.samples]
            yield iter(order.to(device).split(self.batch_size, dim=1))


@dataclass(frozen=True, kw_only=True)
class Run:
    """One order of the data.

    Attributes:
        method: Gradient descent or SGD.
        order: Which.
        of_path: T sum |d theta_k|^2/lr / |d theta|^2.
        by_drop: T dL/|d theta|^2, dL of the loss on all training samples.
        length_ratio: Curve length over chord.
        displacement_sq: |d theta|^2.
        loss: Training loss at the end.
        accuracy: On the test split, at the end.
        difference: `of_path` minus that of the standard order, paired by initialisation.
        accuracy_difference: The same of the accuracy.
        curve: Learning time and training loss on all samples, at 16 even moments.
    """

    method: str
    order: str
    of_path: Estimate
    by_drop: Estimate
    length_ratio: Estimate
    displacement_sq: Estimate
    loss: Estimate
    accuracy: Estimate
    difference: Estimate | None
    accuracy_difference: Estimate | None
    curve: list[tuple[float, Estimate]]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that is printed and drawn.

    Attributes:
        replicas: Initialisations per order.
        learning_time: T of every run, by method.
        reference_accuracy: Of the reference classifier, on the training split.
        runs: By method, standard order first.
    """

    replicas: int
    learning_time: dict[str, float]
    reference_accuracy: float
    runs: list[Run]


def margins(task: Task) -> Tensor:
    """Margin of every training sample under a linear classifier fitted to the split (n,)."""
    from sklearn.linear_model import LogisticRegression

    x, y = task.train.x.flatten(1).double().numpy(), task.train.y.numpy()
    fitted = LogisticRegression(solver="newton-cg", tol=1e-8, max_iter=1000).fit(x, y)
    scores = torch.from_numpy(fitted.decision_function(x))
    own = scores.gather(1, task.train.y[:, None])[:, 0]
    others = scores.scatter(1, task.train.y[:, None], -math.inf).amax(1)
    return own - others


class _PerReplica:
    """Keeps what `PathObserver` averages: the path's inefficiency of every replica."""

    def __init__(self) -> None:
        self._meter = ActionMeter()
        self._start: Tensor | None = None
        self._end: Tensor | None = None

    def observe(self, step: Step) -> None:
        """See one step."""
        if self._start is None:
            self._start = step.before[0].double()
        self._meter.add(step.lr, step.before[0], step.after[0])
        self._end = step.after[0].double()

    def inefficiency(self) -> Tensor:
        """T sum |d theta_k|^2/lr / |d theta|^2 of every replica (R,)."""
        assert self._start is not None
        assert self._end is not None
        squared = (self._end - self._start).square().sum(-1)
        return checked_ratio(self._meter.time, self._meter.action, squared)


def measured(
    task: Task | None = None,
    *,
    count: int = 12,
    epochs: int = 15,
    full_epochs: int = 300,
    lr: float = 0.2,
    stages: int = STAGES,
) -> Findings:
    """Train in the three orders, by gradient descent and by SGD."""
    task = digits() if task is None else task
    size = len(task.train)
    model, theta = replicas(MLP, task, count)
    margin = margins(task)
    easy = tuple(margin.argsort(descending=True).tolist())
    runs: list[Run] = []
    times = {}
    for method, batch, passes in ((GD, size, full_epochs), (SGD, min(64, size), epochs)):
        training = Training(lr=lr, epochs=passes, batch_size=batch)
        times[method] = math.fsum(training.learning_rates(size))
        about = {
            "samples": size,
            "batch_size": batch,
            "epochs": passes,
            "replicas": count,
            "seed": 0,
        }
        staged = {"stages": stages, "stage_epochs": max(1, passes // (3 * stages))}
        orders = {
            STANDARD: DataOrder(**about),
            EASY: StagedOrder(**about, **staged, ranking=easy),
            HARD: StagedOrder(**about, **staged, ranking=easy[::-1]),
        }
        base: tuple[Tensor, Tensor] | None = None
        for name, order in orders.items():
            print(f"{method}, {name}", file=sys.stderr)
            own = _PerReplica()
            curve = _Curve(model, task, every=max(1, passes * -(-size // batch) // 15))
            watchers = [own, curve]
            done = watched(model, theta, task, training, order=order, observers=watchers)
            each = own.inefficiency()
            runs.append(_run(method, name, done, each, base, curve.losses))
            base = base or (each, done.accuracy)
    return Findings(
        replicas=count,
        learning_time=times,
        reference_accuracy=float((margin > 0).double().mean()),
        runs=runs,
    )


class _Curve:
    """Training loss on all samples at the start and after every so many steps."""

    def __init__(self, model: FlatModel, task: Task, *, every: int) -> None:
        self._model, self._task, self._every = model, task, every
        self._time = 0.0
        self.losses: list[tuple[float, Estimate]] = []

    def observe(self, step: Step) -> None:
        """See one step."""
        if step.count == 1:
            self._note(step.before[0])
        self._time += step.lr
        if step.count % self._every == 0:
            self._note(step.after[0])

    def _note(self, theta: Tensor) -> None:
        loss = evaluate(self._model, theta, self._task, self._task.train).loss
        self.losses.append((self._time, from_samples(loss.tolist())))


def _run(
    method: str,
    name: str,
    done: Trained,
    each: Tensor,
    base: tuple[Tensor, Tensor] | None,
    curve: list[tuple[float, Estimate]],
) -> Run:
    cost = done.cost
    assert cost is not None, "diverged"
    return Run(
        method=method,
        order=name,
        of_path=cost.inefficiency_path,
        by_drop=cost.loss_drop_ratio,
        length_ratio=cost.length_ratio,
        displacement_sq=cost.displacement_sq,
        loss=from_samples(done.loss.tolist()),
        accuracy=from_samples(done.accuracy.tolist()),
        difference=base and from_samples((each - base[0]).tolist()),
        accuracy_difference=base and from_samples((done.accuracy - base[1]).tolist()),
        curve=curve,
    )


def claims(findings: Findings) -> dict[str, Claim]:
    """Hold the conjecture that a curriculum is cheaper against what came out."""
    found = {}
    for method in (GD, SGD):
        standard, easy = (
            next(r for r in findings.runs if (r.method, r.order) == (method, order))
            for order in (STANDARD, EASY)
        )
        assert easy.difference is not None
        lower = value_of(easy.difference) < 0
        found[method] = Claim(
            f"a curriculum from easy to hard learns closer to the limit ({method}; a conjecture)",
            f"its inefficiency differs by {say(easy.difference)}",
            held(lower if _clear(easy.difference) else None),
            "a paired difference above 0 by two standard errors; "
            f"{number(100 * 2 * (easy.difference.stderr or 0) / value_of(standard.of_path), 2)} % "
            "of standard order's inefficiency would have shown, either way",
        )
    return found


def told(findings: Findings) -> list[str]:
    """Say what came out."""
    by = {(run.method, run.order): run for run in findings.runs}
    said = []
    for method in (GD, SGD):
        standard, easy, hard = (by[method, order] for order in (STANDARD, EASY, HARD))
        said.append(
            f"{method[0].upper()}{method[1:]}: easy to hard {_moves(easy)} the inefficiency of the "
            f"path, {say(easy.of_path)} against {say(standard.of_path)} in standard order (paired "
            f"difference {say(easy.difference)}); hard to easy {_moves(hard)} it, "
            f"{say(hard.of_path)} ({say(hard.difference)})."
        )
    for method in (GD, SGD):
        standard, easy, hard = (by[method, order] for order in (STANDARD, EASY, HARD))
        said.append(
            f"What is learned in the same time, {method}: training loss {say(easy.loss)} easy to "
            f"hard, {say(standard.loss)} standard, {say(hard.loss)} hard to easy; test accuracy "
            f"{say(easy.accuracy, scale=100)} %, {say(standard.accuracy, scale=100)} % and "
            f"{say(hard.accuracy, scale=100)} %. Easy to hard differs from standard order by "
            f"{say(easy.accuracy_difference, scale=100)} points, "
            + ("more" if _clear(easy.accuracy_difference) else "not more")
            + " than two standard errors."
        )
    return [
        *said,
        f"The reference classifier is right on {100 * findings.reference_accuracy:.1f} % of the "
        "samples that it ranks. In SGD's path minibatch noise hides most of what the order does: "
        f"the inefficiency of standard order is {say(by[SGD, STANDARD].of_path)}, where "
        f"T dL/|\u0394\u03b8|\u00b2 is {say(by[SGD, STANDARD].by_drop)}.",
    ]


def _clear(difference: Estimate | None) -> bool:
    assert difference is not None
    return abs(value_of(difference)) > 2 * (difference.stderr or 0.0)


def _moves(run: Run) -> str:
    assert run.difference is not None
    if not _clear(run.difference):
        return "does not measurably change"
    return "lowers" if value_of(run.difference) < 0 else "raises"


def section(findings: Findings) -> Section:
    """Make the section of the page."""
    return Section(
        "curriculum",
        "Curriculum against standard order",
        told(findings),
        [_figure(findings, method, name) for method, name in ((GD, "gd"), (SGD, "sgd"))],
        [table(findings)],
        list(claims(findings).values()),
    )


def _figure(findings: Findings, method: str, name: str) -> Figure:
    colors = dict(zip((STANDARD, EASY, HARD), COLORS, strict=False))
    runs = [run for run in findings.runs if run.method == method]
    return plotted(
        [Series(run.order, run.curve, colors[run.order], "both") for run in runs],
        anchor=f"fig-curriculum-{name}",
        title=f"Training loss on all samples: {method}",
        caption="The first third of the learning time has stages; after it all orders see all "
        f"samples. Mean and standard error over {findings.replicas} initialisations. "
        f"{claims(findings)[method].caption}",
        alt_text="Loss on all training samples, on a logarithmic axis, against the learning time, "
        "one line per order, falling from the same start to nearly the same end.",
        x="learning time",
        y="loss, logarithmic",
        log_y=True,
        half=True,
    )


def table(findings: Findings) -> Table:
    """List the orders."""
    return Table(
        caption="Three orders, the same number of steps",
        columns=(
            "Order",
            "Method",
            "T",
            "Inefficiency::of the path",
            "Inefficiency::minus standard",
            "T dL / |\u0394\u03b8|\u00b2",
            "Length over chord",
            "Training loss",
            "Test accuracy, %",
        ),
        rows=[
            (
                header_cell(run.order),
                text_cell(run.method.partition(",")[0]),
                Cell(f"{findings.learning_time[run.method]:g}"),
                _plain(run.of_path),
                Cell("\u2013") if run.difference is None else cell(run.difference),
                _plain(run.by_drop),
                _plain(run.length_ratio),
                cell(run.loss),
                cell(run.accuracy, scale=100),
            )
            for run in findings.runs
        ],
        remark=f"Mean \u00b1 standard error over {findings.replicas} initialisations; differences "
        "are paired. T dL is the dissipation of a loss that stands still, which a curriculum's "
        "does not: it is listed, not compared.",
    )


def _plain(estimate: Estimate) -> Cell:
    return Cell(cell(estimate).text)
