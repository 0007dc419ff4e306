"""What a dissipation budget allows: rotated digits after upright ones, held against the ball.

An MLP learns upright digits (half squared error on one-hot targets, full batch), and then the same
rotated. Before it does, `capacity.thermo.reachable` says how far the cheapest solutions of the
linearised network are, the free one and the one that keeps the upright digits, and whether they lie
in the ball W2 <= sqrt(T (F_0 - F_1)) of the learning time T that training turns out to take until
the same share of the residual is left. Then it trains, and what it paid stands beside.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from thermo_claims import Claim, Section, held, visible
from thermo_drawing import COLORS, Series, plotted, value_of
from thermo_training import MLP, first_samples, one_hot_task, replicas, watched
from torch import Tensor

from capacity.criterion.preserving import Preserving, preserving_projector
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.products.curvature_operators import ggn
from capacity.recipe.config import TaskStream, Training
from capacity.records.estimate import Estimate, from_samples
from capacity.records.number_format import Cell, cell, header_cell, say, text_cell
from capacity.records.numbers import number
from capacity.report.tables import Table
from capacity.tasks import build_tasks
from capacity.tasks.task import Task
from capacity.thermo.reachable import ReachableSet, reachable_task

TOLERANCE = 0.01
"""Rise of the old task's loss that keeping it allows; an untrained network's loss is about 1/2."""
_AT_A_TIME, _PRODUCTS = 20, 2048


@dataclass(frozen=True, kw_only=True)
class Run:
    """One new task.

    Attributes:
        angle: Rotation, degrees.
        time: T that training took until the share of the loss was left.
        budget: F_0 - F_1 of the linearised solution.
        free: W2^2 of the cheapest solution.
        preserving: W2^2 of the cheapest one that keeps the old task; no value where there is none.
        free_verdict: In, out or undecided.
        preserving_verdict: Likewise.
        removed: Number of directions that keeping the old task forbids.
        unseen: Share of the residual that the kept directions cannot take away.
        moved: |d theta|^2 of the training.
        paid: T dL of the training.
        forgotten: Rise of the old task's loss over the training.
    """

    angle: float
    time: float
    budget: Estimate
    free: Estimate
    preserving: Estimate
    free_verdict: str
    preserving_verdict: str
    removed: Estimate
    unseen: Estimate
    moved: Estimate
    paid: Estimate
    forgotten: Estimate


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that is printed and drawn.

    Attributes:
        replicas: Initialisations.
        samples: Of the new tasks.
        share: Of the squared residual, and so of the loss, that may stay.
        old_loss: Of the upright digits, when the new task begins.
        runs: By angle.
    """

    replicas: int
    samples: int
    share: float
    old_loss: Estimate
    runs: list[Run]


def measured(
    tasks: Sequence[Task] | None = None,
    *,
    count: int = 5,
    old_samples: int = 200,
    samples: int = 30,
    share: float = 0.05,
    lr: float = 0.1,
    old_steps: int = 3000,
    most_steps: int = 6000,
    tolerance: float = TOLERANCE,
) -> Findings:
    """Learn upright digits, then each rotation from there."""
    if tasks is None:
        stream = TaskStream(dataset="digits", scenario="rotated", experiences=7, max_angle=90.0)
        tasks = build_tasks(stream)
    upright, *rotated = (one_hot_task(task) for task in tasks)
    old = first_samples(upright, old_samples)
    model, theta = replicas(MLP, old, count)
    training = Training(lr=lr, epochs=old_steps, batch_size=old_samples)
    theta = watched(model, theta, old, training, full=True).theta
    before = loss_of(model, theta, old)
    runs = []
    for k, task in enumerate(rotated, start=1):
        angle = 90.0 * k / len(rotated)
        print(f"{angle:g} degrees", file=sys.stderr)
        new = first_samples(task, samples)
        end, time = learned(model, theta, new, share=share, lr=lr, most=most_steps)
        found, removed = ball(model, theta, old, new, time=time, share=share, tolerance=tolerance)
        drop = loss_of(model, theta, new) - loss_of(model, end, new)
        runs.append(
            Run(
                angle=angle,
                time=time,
                budget=found.budget,
                free=found.free.distance_squared,
                preserving=found.preserving.distance_squared,
                free_verdict=str(found.free.verdict),
                preserving_verdict=str(found.preserving.verdict),
                removed=from_samples([float(n) for n in removed]),
                unseen=found.preserving.residue_left,
                moved=_spread((end.double() - theta.double()).square().sum(-1)),
                paid=_spread(time * drop),
                forgotten=_spread(loss_of(model, end, old) - before),
            )
        )
    return Findings(
        replicas=count, samples=samples, share=share, old_loss=_spread(before), runs=runs
    )


def loss_of(model: FlatModel, theta: Tensor, task: Task) -> Tensor:
    """Mean training loss of every replica (R,)."""
    return evaluate(model, theta, task, task.train).loss.double()


def learned(
    model: FlatModel, theta: Tensor, task: Task, *, share: float, lr: float, most: int
) -> tuple[Tensor, float]:
    """Descend until the mean loss over replicas is down to a share; where, and the time it took."""
    target = share * float(loss_of(model, theta, task).mean())
    training = Training(lr=lr, epochs=_AT_A_TIME, batch_size=len(task.train))
    steps = 0
    while steps < most:
        # Plain descent on all samples has no memory: pieces of it are the whole.
        theta = watched(model, theta, task, training, full=True).theta
        steps += _AT_A_TIME
        if float(loss_of(model, theta, task).mean()) <= target:
            return theta, steps * lr
    raise ValueError(
        f"most = {most} steps do not bring the loss down to {share:g} of it; take more"
    )


def ball(
    model: FlatModel,
    theta: Tensor,
    old: Task,
    new: Task,
    *,
    time: float,
    share: float,
    tolerance: float,
) -> tuple[ReachableSet, list[int]]:
    """Hold both cheapest solutions against the ball; and how many directions keeping forbids."""
    settings = {"duration": time, "samples": len(new.train), "residue_left": share}
    every = Preserving(
        removed_basis=theta.new_zeros(0, theta.shape[1]),
        curvatures=theta.new_zeros(0),
        tolerance=tolerance,
        displacement=1.0,
    )
    free = reachable_task(model, theta, new, [every] * len(theta), **settings)
    # A direction is kept if moving along it as far as the free solution is away costs little.
    far = value_of(free.free.distance)
    keepers = [
        preserving_projector(
            ggn(model, old, row, old.train),
            row,
            tolerance=tolerance,
            displacement=far,
            generator=torch.Generator().manual_seed(k),
            max_products=_PRODUCTS,
        )
        for k, row in enumerate(theta)
    ]
    lost = [k for k, keeper in enumerate(keepers) if not keeper.converged]
    if lost:
        print(f"replicas {lost}: the old task's curvature did not converge", file=sys.stderr)
    found = reachable_task(model, theta, new, keepers, **settings)
    return found, [keeper.removed for keeper in keepers]


def _spread(values: Tensor) -> Estimate:
    return from_samples(values.tolist())


def claims(findings: Findings) -> dict[str, Claim]:
    """Hold theory against what came out."""
    runs = findings.runs
    obeyed = [r for r in runs if value_of(r.paid) >= value_of(r.moved)]
    cheaper = [r for r in runs if value_of(r.free) <= value_of(r.moved)]
    inside = [r for r in runs if r.free_verdict == "in"]
    out = [r for r in runs if r.preserving_verdict == "out"]
    kept = [r for r in runs if r.preserving_verdict == "in"]
    return {
        "limit": Claim(
            "training stays in the ball: |\u0394\u03b8|\u00b2 is at most T dL",
            f"in {len(obeyed)} of {len(runs)} trainings",
            held(len(obeyed) == len(runs)),
            "one training whose loss drop is too small for its distance (T dL is no action: with "
            "long steps it can be); the nearest came to "
            f"{number(min(value_of(r.paid) / value_of(r.moved) for r in runs), 3)} times "
            f"|\u0394\u03b8|\u00b2, and {visible((r.paid for r in runs), errors=2)} would have "
            "shown in every one",
        ),
        "free": Claim(
            "the cheapest linearised solution lies in the ball that training used",
            f"for {len(inside)} of {len(runs)} angles",
            held(len(inside) == len(runs)),
            "one angle whose solution is outside beyond its interval; "
            f"{visible((r.free for r in runs), errors=2)} of W2\u00b2 would have shown",
        ),
        "cheapest": Claim(
            "training goes at least as far as the cheapest linearised solution (exact if the "
            "kernel stood still)",
            f"in {len(cheaper)} of {len(runs)} trainings",
            held(len(cheaper) == len(runs)),
            "one training that comes to the share with less than the solution's W2\u00b2; "
            f"{visible((r.free for r in runs), errors=2)} would have shown",
        ),
        "preserving": Claim(
            "the budget that learning needs also pays for not forgetting",
            f"the solutions that keep the old task lie inside for {len(kept)} angles, outside for "
            f"{len(out)}, on the rim for {len(runs) - len(kept) - len(out)}",
            held(len(kept) == len(runs) or (False if out else None)),
            "one angle whose keeping solution is outside beyond its interval; "
            f"{visible((r.preserving for r in runs if r.preserving.value), errors=2)} of "
            "W2\u00b2 would have shown",
        ),
    }


def told(findings: Findings) -> list[str]:
    """Say what came out."""
    first, last = findings.runs[0], findings.runs[-1]
    return [
        f"Rotated by {first.angle:g} degrees, the cheapest solution is W2\u00b2 = "
        f"{say(first.free)} away and the cheapest that keeps the upright digits "
        f"{_far(first.preserving)}; rotated by {last.angle:g} degrees, {say(last.free)} and "
        f"{_far(last.preserving)}.",
        "In the time that training takes, the ball's squared radius T (F\u2080 \u2212 F\u2081) is "
        f"{number(first.time * value_of(first.budget), 3)} and "
        f"{number(last.time * value_of(last.budget), 3)}: the free solutions are "
        f"{_verdicts([r.free_verdict for r in findings.runs])}, those that keep the old task "
        f"{_verdicts([r.preserving_verdict for r in findings.runs])}.",
        f"Training moved by |\u0394\u03b8|\u00b2 = {say(first.moved)} and {say(last.moved)}, and "
        f"raised the old loss, {say(findings.old_loss)}, by {say(first.forgotten)} and "
        f"{say(last.forgotten)}.",
        "Inside the ball means that the speed limit does not forbid it, not that training finds "
        "it: training was not asked to keep the old task, and did not. Nor is the linearised "
        "network the network: training got there on a path that is shorter than its cheapest one "
        f"for {sum(value_of(r.moved) < value_of(r.free) for r in findings.runs)} of "
        f"{len(findings.runs)} angles.",
    ]


def _far(estimate: Estimate) -> str:
    return "nowhere" if estimate.value is None else say(estimate)


def _verdicts(found: list[str]) -> str:
    return ", ".join(f"{found.count(v)} {v}" for v in ("in", "undecided", "out") if v in found)


def section(findings: Findings) -> Section:
    """Make the section of the page."""
    runs = findings.runs
    found = claims(findings)
    return Section(
        "reachable",
        "The reachable set",
        told(findings),
        [
            plotted(
                [
                    Series(
                        "the ball, T (F\u2080 \u2212 F\u2081)",
                        [(r.angle, r.time * value_of(r.budget)) for r in runs],
                        COLORS[6],
                        "dash",
                    ),
                    Series(
                        "keeps the old task",
                        [(r.angle, r.preserving) for r in runs],
                        COLORS[1],
                        "both",
                    ),
                    Series("training went", [(r.angle, r.moved) for r in runs], COLORS[2], "both"),
                    Series("cheapest", [(r.angle, r.free) for r in runs], COLORS[0], "both"),
                ],
                anchor="fig-reachable",
                title="How far the next task's solutions are",
                caption=f"Upright digits, then {findings.samples} rotated ones, until "
                f"{100 * findings.share:g} % of the loss is left; mean and standard error over "
                f"{findings.replicas} initialisations. Below the dashed line a solution is within "
                "reach; 90 degrees are no outlier, but the one rotation that does not blur. "
                f"{found['free'].caption} {found['limit'].caption} "
                f"{found['cheapest'].caption}",
                alt_text="Squared distances against the angle of rotation on a logarithmic axis: "
                "the cheapest solution lowest, the one that keeps the old task above it, where "
                "training went, and the squared radius of the ball.",
                x="rotation, degrees",
                y="squared distance",
                log_y=True,
                height=300,
            )
        ],
        [table(findings)],
        list(found.values()),
    )


def table(findings: Findings) -> Table:
    """List the angles."""
    return Table(
        caption="The next task, by rotation",
        columns=(
            "Degrees",
            "T",
            "T (F\u2080 \u2212 F\u2081)",
            "Cheapest::W2\u00b2",
            "Cheapest::verdict",
            "Keeps the old task::directions forbidden",
            "Keeps the old task::W2\u00b2",
            "Keeps the old task::verdict",
            "Training::|\u0394\u03b8|\u00b2",
            "Training::forgets",
        ),
        rows=[
            (
                header_cell(f"{run.angle:g}"),
                Cell(f"{run.time:g}"),
                Cell(number(run.time * value_of(run.budget), 3)),
                cell(run.free),
                text_cell(run.free_verdict),
                cell(run.removed),
                cell(run.preserving),
                text_cell(run.preserving_verdict),
                cell(run.moved),
                cell(run.forgotten),
            )
            for run in findings.runs
        ],
        remark=f"{100 * findings.share:g} % of the squared residual may stay. A direction is "
        f"forbidden if going as far as the cheapest solution along it raises the old loss by more "
        f"than {TOLERANCE:g}; of the residue, "
        f"{number(100 * max(value_of(r.unseen) for r in findings.runs), 2)} % at most is out of "
        "reach of the others. Training forgets: the old loss rises. Rotation interpolates, and "
        "blurs, at every angle but the last.",
    )
