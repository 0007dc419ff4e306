"""Inefficiency against the learning rate: gradient descent and minibatch SGD on digits.

MLP 64-64-10 with cross-entropy, the same learning time T for every learning rate, so that larger
steps mean fewer of them. Per replica: the inefficiency T sum |d theta_k|^2/lr / |d theta|^2, never
below 1, and the loss drop's ratio T dL/|d theta|^2 ([S] eq. 12). They agree for small steps of
gradient descent; their difference is what discretisation, or minibatch noise, costs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from thermo_claims import ERRORS, Check, Claim, Section, held, visible
from thermo_drawing import COLORS, Series, plotted, value_of
from thermo_training import MLP, digits, replicas, watched

from capacity.recipe.config import Training
from capacity.records.estimate import Estimate, from_samples
from capacity.records.number_format import Cell, cell, header_cell, say
from capacity.records.numbers import number
from capacity.report.tables import Table
from capacity.tasks.task import Task

RATES = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
FLOW = 0.01
"""Share by which the path of a run that follows the flow may cost more than its loss drop."""
LEARNING_TIME = 36.8
"""One epoch of 23 batches at the largest rate, so that T is the same to the last step."""
GD, SGD = "gradient descent", "SGD, batches of 64"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training at one learning rate.

    Attributes:
        method: Gradient descent or SGD.
        lr: Learning rate.
        steps: Steps taken.
        by_drop: T dL/|d theta|^2.
        of_path: T sum |d theta_k|^2/lr / |d theta|^2.
        length_ratio: Curve length over chord.
        loss: Training loss at the end.
        accuracy: On the test split.
        diverged: Replicas that did not stay finite; the others are then not measured.
    """

    method: str
    lr: float
    steps: int
    by_drop: Estimate | None
    of_path: Estimate | None
    length_ratio: Estimate | None
    loss: Estimate
    accuracy: Estimate
    diverged: int


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that is printed and drawn.

    Attributes:
        replicas: Initialisations per run.
        learning_time: T of every run.
        runs: By method, learning rates rising.
    """

    replicas: int
    learning_time: float
    runs: list[Run]


def measured(
    task: Task | None = None,
    *,
    rates: Sequence[float] = RATES,
    learning_time: float = LEARNING_TIME,
    count: int = 8,
    batch: int = 64,
) -> Findings:
    """Train at every learning rate."""
    task = digits() if task is None else task
    size = len(task.train)
    model, theta = replicas(MLP, task, count)
    runs = []
    for method, batch_size in ((GD, size), (SGD, batch)):
        for lr in rates:
            per_epoch = -(-size // batch_size)
            epochs = max(1, round(learning_time / lr / per_epoch))
            training = Training(lr=lr, epochs=epochs, batch_size=batch_size)
            done = watched(model, theta, task, training, full=batch_size == size)
            print(f"{method}, lr {lr:g}: {epochs * per_epoch} steps", file=sys.stderr)
            runs.append(
                Run(
                    method=method,
                    lr=lr,
                    steps=epochs * per_epoch,
                    by_drop=done.cost and done.cost.loss_drop_ratio,
                    of_path=done.cost and done.cost.inefficiency_path,
                    length_ratio=done.cost and done.cost.length_ratio,
                    loss=from_samples(done.loss.tolist()),
                    accuracy=from_samples(done.accuracy.tolist()),
                    diverged=done.diverged,
                )
            )
    return Findings(replicas=count, learning_time=learning_time, runs=runs)


def claims(findings: Findings) -> dict[str, Claim]:
    """Hold theory against what came out."""
    gd = [r for r in findings.runs if r.method == GD and r.of_path]
    flow = [r for r in gd if _gap(r) < FLOW]
    measured_runs = [r for r in findings.runs if r.of_path]
    drops = [r for r in measured_runs if value_of(_known(r.by_drop)) < 1]
    change = _ratio(flow[-1].of_path, flow[0].of_path) - 1 if flow else 0.0
    slow = min(gd, key=lambda r: r.lr)
    least = _known(slow.of_path)
    away = (value_of(least) - 1) / (least.stderr or math.inf)
    return {
        "flow": Claim(
            "runs of gradient descent that follow the flow have one inefficiency, whatever their "
            "learning rate",
            f"{_percent(change)} from lr = {flow[0].lr:g} to {flow[-1].lr:g}, the rates whose path "
            "costs less than 1 % more than the loss drop"
            if len(flow) > 1
            else "fewer than two rates follow the flow",
            held(abs(change) < 0.01 if len(flow) > 1 else None),
            "a change of 1 % between the slowest and the fastest of them; the same initialisations "
            "in every run, whose spread alone is "
            f"{visible((_known(r.of_path) for r in flow), errors=2)} (two standard errors)",
        ),
        "bound": Claim(
            "slow rates approach the bound (the hypothesis before the experiment)",
            f"{say(slow.of_path)} at lr = {slow.lr:g}, {away:.0f} standard errors above 1, and the "
            f"same at every rate that follows the flow, up to {flow[-1].lr:g}: slow training "
            "approaches the flow, and the flow of this loss is not a geodesic"
            if len(flow) > 1
            else f"{say(slow.of_path)} at lr = {slow.lr:g}",
            held(abs(away) <= ERRORS),
            f"an inefficiency above 1 by {ERRORS:g} standard errors at the slowest rate; "
            f"{number(1 + ERRORS * (least.stderr or 0.0), 4)} would have been told from 1",
        ),
        "drop": Claim(
            "T dL is at least |\u0394\u03b8|\u00b2 at every learning rate (shown for small steps)",
            f"below it in {len(drops)} of {len(measured_runs)} runs"
            + (f": {_listed(drops)}" if drops else ""),
            held(not drops),
            "one run below 1; "
            f"{visible((_known(r.by_drop) for r in measured_runs if _settled(r, slow)), errors=2)} "
            "would have shown in the runs that settle (two standard errors)",
        ),
    }


def checks(findings: Findings) -> list[Check]:
    """Say what the meter had to find, whatever was trained."""
    runs = [r for r in findings.runs if r.of_path]
    lowest = min(runs, key=lambda r: value_of(_known(r.of_path)))
    return [
        Check(
            "T \u03a3|\u0394\u03b8\u2096|\u00b2/lr is at least |\u0394\u03b8|\u00b2 for any steps "
            "(Cauchy-Schwarz)",
            f"lowest of {len(runs)} runs {say(lowest.of_path)} ({lowest.method}, "
            f"lr = {lowest.lr:g})",
            value_of(_known(lowest.of_path)) >= 1,
        )
    ]


def _known(estimate: Estimate | None) -> Estimate:
    assert estimate is not None
    return estimate


def told(findings: Findings) -> list[str]:
    """Say what came out."""
    by = {m: [r for r in findings.runs if r.method == m and r.of_path] for m in (GD, SGD)}
    settled = {method: [r for r in runs if _settled(r, runs[0])] for method, runs in by.items()}
    gd, sgd = settled[GD], settled[SGD]
    flow = [r for r in gd if _gap(r) < FLOW] or gd[:1]
    said = [
        f"Gradient descent of one learning time takes {say(flow[0].of_path)} times as long as the "
        f"speed limit at lr = {flow[0].lr:g} and {say(flow[-1].of_path)} times at "
        f"lr = {flow[-1].lr:g}: a factor of {flow[-1].lr / flow[0].lr:.0f} in the learning rate "
        f"changes its inefficiency by {_percent(_ratio(flow[-1].of_path, flow[0].of_path) - 1)}, "
        "as the one flow that all of them follow would have it. Slow rates do not approach the "
        "limit: they approach the flow.",
        "What the steps themselves pay grows with their length: the path of gradient descent costs "
        f"{_percent(_gap(gd[0]))} more than the loss drop at lr = {gd[0].lr:g}, and "
        f"{_percent(_gap(gd[-1]))} more at lr = {gd[-1].lr:g}.",
        "Minibatch noise is in SGD's path at every learning rate: it costs "
        f"{_ratio(sgd[0].of_path, sgd[0].by_drop):.1f} times the loss drop at lr = {sgd[0].lr:g} "
        f"and {_ratio(sgd[-1].of_path, sgd[-1].by_drop):.1f} times at lr = {sgd[-1].lr:g}. The "
        "bound stays valid for that path, but what it bounds there is noise more than learning.",
    ]
    wild = [r for m in by for r in by[m] if r not in settled[m]]
    if wild:
        said.append(
            "Too large to settle (final loss above twice that of the smallest rate): "
            f"{_listed(wild)}."
        )
    below = [r for m in by for r in by[m] if r.by_drop and 0 < value_of(r.by_drop) < 1]
    if below:
        said.append(
            f"Read as an inefficiency, T dL/|\u0394\u03b8|\u00b2 of {_listed(below)} would beat "
            "the limit. That is no violation: with long or noisy steps the loss drop is not the "
            "dissipation, and the ratio is out of its regime."
        )
    rose = [r for m in by for r in by[m] if r.by_drop and value_of(r.by_drop) <= 0]
    if rose:
        said.append(
            f"The loss rose in {_listed(rose)}: the loss drop's ratio is below 0 there, and is "
            "listed, not drawn."
        )
    lost = [r for r in findings.runs if r.diverged]
    if lost:
        said.append(f"Diverged, and not measured: {_listed(lost)}.")
    return said


def _settled(run: Run, smallest: Run) -> bool:
    return value_of(run.loss) < 2 * value_of(smallest.loss)


def _listed(runs: Sequence[Run]) -> str:
    return " and ".join(f"{run.method} at lr = {run.lr:g}" for run in runs)


def section(findings: Findings) -> Section:
    """Make the section of the page."""
    by = {m: [r for r in findings.runs if r.method == m] for m in (GD, SGD)}
    found = claims(findings)
    series = [
        Series(f"{name}, {method}", [(r.lr, getattr(r, kind)) for r in runs], color, "both")
        for (method, runs), colors in zip(
            by.items(), ((COLORS[0], COLORS[5]), (COLORS[1], COLORS[4])), strict=True
        )
        for (kind, name), color in zip(
            (("by_drop", "T dL / |\u0394\u03b8|\u00b2"), ("of_path", "inefficiency")),
            colors,
            strict=True,
        )
    ]
    return Section(
        "learning-rate",
        "Learning rate",
        told(findings),
        [
            plotted(
                series,
                anchor="fig-learning-rate",
                title="Inefficiency against the learning rate, at equal learning time",
                caption=f"T = {findings.learning_time:g} in every run; mean and standard "
                f"error over {findings.replicas} initialisations. The distance between the two "
                "lines of one method is the price of its steps. "
                f"{found['flow'].caption} {found['drop'].caption}",
                alt_text="Inefficiency and loss drop ratio against the learning rate, both axes "
                "logarithmic: two lines for gradient descent, two for SGD; the lines of the path "
                "lie above those of the loss drop and rise with the learning rate.",
                x="learning rate",
                y="\u00d7 the speed limit",
                log_x=True,
                log_y=True,
                one=True,
                height=300,
            )
        ],
        [table(findings)],
        list(found.values()),
        checks(findings),
    )


def table(findings: Findings) -> Table:
    """List every run."""
    return Table(
        caption=f"Every run, T = {findings.learning_time:g}",
        columns=(
            "Method",
            "Learning rate",
            "Steps",
            "T dL / |\u0394\u03b8|\u00b2",
            "Inefficiency",
            "Length over chord",
            "Training loss",
            "Test accuracy, %",
            "Diverged",
        ),
        rows=[
            (
                header_cell(r.method),
                Cell(f"{r.lr:g}"),
                Cell(str(r.steps)),
                _cell(r.by_drop),
                _cell(r.of_path),
                _cell(r.length_ratio),
                cell(r.loss),
                cell(r.accuracy, scale=100),
                Cell(f"{r.diverged} of {findings.replicas}"),
            )
            for r in findings.runs
        ],
        remark=f"Mean \u00b1 standard error over {findings.replicas} initialisations.",
    )


def _cell(estimate: Estimate | None) -> Cell:
    return Cell(cell(estimate).text)


def _ratio(top: Estimate | None, bottom: Estimate | None) -> float:
    return value_of(_known(top)) / value_of(_known(bottom))


def _gap(run: Run) -> float:
    return _ratio(run.of_path, run.by_drop) - 1


def _percent(share: float) -> str:
    return f"{number(100 * share, 2)} %"
