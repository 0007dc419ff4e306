"""Gradient descent on a quadratic in two dimensions, over learning rates: what steps cost, exactly.

L = 1/2 (lambda_1 x^2 + lambda_2 y^2) from 24 random starts, the same learning time T for every
rate, from steps so short that they follow the flow to rates close to 2/lambda_1. Action and drop of
the loss have closed forms per mode (theory.md); the drop is the action times 1 - lr lambda/2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from thermo_claims import Claim, Section, exponent, held
from thermo_drawing import COLORS, Series, plotted, value_of
from torch import Tensor

from capacity.closed_forms import descent_action, kernel_flow
from capacity.records.estimate import Estimate, from_samples
from capacity.records.number_format import Cell, cell, header_cell, say
from capacity.records.numbers import number
from capacity.report.tables import Table
from capacity.thermo.action import ActionMeter, checked_ratio

CURVATURES = (1.0, 0.1)
TIME = 40.0
COUNTS = (3200, 1600, 800, 400, 200, 100, 50, 40, 35, 30, 27, 25, 23, 22, 21)
"""Steps to T: rates from 0.0125 to 1.905; at 2/lambda_1 = 2 descent diverges."""
EXACT = 1e-9
SLOW = 0.1
"""Largest lr lambda_1 at which the cost of steps is read as a power of the rate."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """All starts at one learning rate.

    Attributes:
        lr: Learning rate.
        steps: K.
        of_path: T sum |d theta_k|^2/lr / |d theta|^2, mean over starts.
        by_drop: T dL/|d theta|^2.
        excess: Relative excess of the path's inefficiency over the flow's of the same start.
        deviation: Largest relative deviation of action and loss drop from their closed forms.
        lowest: Smallest by_drop of any start.
    """

    lr: float
    steps: int
    of_path: Estimate
    by_drop: Estimate
    excess: Estimate
    deviation: float
    lowest: float


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that is printed and drawn.

    Attributes:
        starts: Random starts of every run.
        flow: Inefficiency of gradient flow from them.
        runs: Learning rates rising.
    """

    starts: int
    flow: Estimate
    runs: list[Run]


def measured(*, starts: int = 24, counts: Sequence[int] = COUNTS, seed: int = 0) -> Findings:
    """Descend at every rate from the same starts."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(starts, 2, generator=generator, dtype=torch.float64)
    rates = torch.tensor(CURVATURES, dtype=torch.float64)
    flow = kernel_flow(eigenvalues=CURVATURES, residues=(first * rates.sqrt()).numpy(), time=TIME)
    of_flow = torch.from_numpy(TIME / flow.speed_limit)
    return Findings(
        starts=starts,
        flow=from_samples(of_flow.tolist()),
        runs=[descended(first, rates, steps, of_flow) for steps in counts],
    )


def descended(first: Tensor, rates: Tensor, steps: int, of_flow: Tensor) -> Run:
    """Take the steps, keep their books, and hold them against the closed forms."""
    lr = TIME / steps
    meter = ActionMeter()
    theta = first
    for _ in range(steps):
        after = theta - lr * rates * theta
        meter.add(lr, theta, after)
        theta = after
    drop = 0.5 * (rates * (first.square() - theta.square())).sum(-1)
    chord = (theta - first).square().sum(-1)
    residue = (rates.sqrt() * first).numpy()
    exact = descent_action(curvature=rates.numpy(), residue=residue, lr=lr, steps=steps)
    off = [
        float((found - truth).abs().max() / truth.abs().max())
        for found, truth in (
            (meter.action, torch.from_numpy(exact.action).sum(-1)),
            (drop, torch.from_numpy(exact.loss_drop).sum(-1)),
        )
    ]
    of_path = checked_ratio(meter.time, meter.action, chord)
    by_drop = meter.time * drop / chord
    return Run(
        lr=lr,
        steps=steps,
        of_path=from_samples(of_path.tolist()),
        by_drop=from_samples(by_drop.tolist()),
        excess=from_samples((of_path / of_flow - 1).tolist()),
        deviation=max(off),
        lowest=float(by_drop.min()),
    )


def claims(findings: Findings) -> dict[str, Claim]:
    """Hold theory, and two readings, against what came out."""
    runs = findings.runs
    off = max(run.deviation for run in runs)
    slow = [run for run in runs if run.lr * max(CURVATURES) <= SLOW]
    power = exponent([(run.lr, run.excess.value) for run in slow])
    costs = [value_of(run.of_path) for run in runs]
    falls = [b for a, b in pairwise(costs) if b < a]
    below = [run for run in runs if run.lowest < 1]
    fastest = runs[-1]
    return {
        "closed": Claim(
            "action and loss drop of K steps are their closed forms at every stable rate",
            f"largest deviation of {len(runs)} rates {off:.1g}",
            held(off < EXACT),
            f"a relative deviation of {EXACT:g}; rounding makes 1e-13",
        ),
        "flow": Claim(
            "short steps pay in proportion to their length: the path's inefficiency exceeds the "
            "flow's as lr to the power 1",
            f"power {number(value_of(power), 3)} over {len(slow)} rates up to "
            f"lr = {slow[-1].lr:g}, where the excess is {_percent(value_of(slow[-1].excess))}",
            held(abs(value_of(power) - 1) < 0.05),
            "a power that is 0.05 off 1; the points carry no noise, and leave the power by "
            f"{number(power.stderr or 0.0, 1)} (one standard error)",
        ),
        "bound": Claim(
            "slow rates approach the bound (the hypothesis that digits refuted)",
            f"{say(runs[0].of_path)} at lr = {runs[0].lr:g}, the flow's {say(findings.flow)}",
            held(value_of(runs[0].of_path) < 1.01),
            "an inefficiency above 1.01 at the slowest rate",
        ),
        "monotone": Claim(
            "longer steps always cost more, at equal T, up to the stable rate",
            f"from {number(costs[0], 4)} to {number(costs[-1], 4)} at lr = {fastest.lr:.3g}; "
            f"{len(falls)} of {len(costs) - 1} neighbours fall",
            held(not falls),
            f"one of {len(runs)} rates with a smaller mean inefficiency than the one below it",
        ),
        "drop": Claim(
            "T dL is at least |\u0394\u03b8|\u00b2 from every start, up to the stable rate",
            f"lowest of {len(runs)} rates {number(min(r.lowest for r in runs), 4)}"
            + (f"; below 1 in {len(below)}" if below else ""),
            held(not below),
            f"one of {findings.starts} starts below 1; there is no noise",
        ),
    }


def told(findings: Findings) -> list[str]:
    """Say what came out."""
    first, last = findings.runs[0], findings.runs[-1]
    return [
        f"On a quadratic of curvatures {CURVATURES[0]:g} and {CURVATURES[1]:g} the flow takes "
        f"{say(findings.flow)} times as long as the speed limit; gradient descent of the same "
        f"learning time {say(first.of_path)} times at lr = {first.lr:g}, and "
        f"{say(last.of_path)} times at lr = {last.lr:.3g}, close to where it diverges.",
        "The flow is far from its limit because both modes spend the same time: the fast one has "
        f"arrived after T = {4 / CURVATURES[0]:g} and waits.",
        f"T dL/|\u0394\u03b8|\u00b2 hardly sees the steps: {say(last.by_drop)} at "
        f"lr = {last.lr:.3g}, where the path has paid "
        f"{number(value_of(last.of_path) / value_of(last.by_drop), 3)} times as much. The steps' "
        "zigzag costs action, and no loss.",
    ]


def section(findings: Findings) -> Section:
    """Make the section of the page."""
    found = claims(findings)
    return Section(
        "quadratic",
        "A quadratic in two dimensions",
        told(findings),
        [
            plotted(
                [
                    Series(
                        "inefficiency of the path",
                        [(run.lr, run.of_path) for run in findings.runs],
                        COLORS[0],
                        "both",
                    ),
                    Series(
                        "T dL / |\u0394\u03b8|\u00b2",
                        [(run.lr, run.by_drop) for run in findings.runs],
                        COLORS[1],
                        "both",
                    ),
                    Series(
                        "the flow",
                        [(run.lr, value_of(findings.flow)) for run in findings.runs],
                        COLORS[2],
                        "dash",
                    ),
                ],
                anchor="fig-quadratic",
                title="Inefficiency against the learning rate",
                caption=f"T = {TIME:g} in every run; mean and standard error over "
                f"{findings.starts} starts. {found['flow'].caption} {found['monotone'].caption}",
                alt_text="Inefficiency of the path and loss drop ratio against the learning rate, "
                "both axes logarithmic; the path's rises as the rate nears 2 over the curvature.",
                x="learning rate",
                y="\u00d7 the speed limit",
                log_x=True,
                log_y=True,
                one=True,
            )
        ],
        [table(findings)],
        list(found.values()),
    )


def table(findings: Findings) -> Table:
    """List every rate."""
    return Table(
        caption=f"Every rate, T = {TIME:g}",
        columns=(
            "Learning rate",
            "Steps",
            "Inefficiency",
            "T dL / |\u0394\u03b8|\u00b2",
            "Excess over the flow, %",
            "Off the closed form",
        ),
        rows=[
            (
                header_cell(f"{run.lr:.4g}"),
                Cell(str(run.steps)),
                Cell(cell(run.of_path).text),
                Cell(cell(run.by_drop).text),
                Cell(cell(run.excess, scale=100).text),
                Cell(f"{run.deviation:.0e}"),
            )
            for run in findings.runs
        ],
        remark=f"Mean \u00b1 standard error over {findings.starts} starts.",
    )


def _percent(share: float) -> str:
    return f"{number(100 * share, 2)} %"
