"""Irreversibility R by three routes: an ensemble in a bowl, whose R is known, and a network's.

R, in nats, is how much nearer an ensemble of Langevin trainings came to its Gibbs law. Energies and
entropy tell it; so does the ratio of the likelihoods of the paths forwards and backwards; so do
gradients, Laplacians and scores along the way ([S], (3) to (5)). In a bowl all laws are Gaussian,
and the three must agree with the closed form. A network's laws are not: energies bound R from
above, the score from below.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from thermo_claims import ERRORS, Claim, Section, held
from thermo_drawing import value_of
from thermo_training import digits, first_samples
from torch import nn

import capacity
from capacity.closed_forms import ornstein_uhlenbeck
from capacity.optimizers.sgld import Langevin
from capacity.records.estimate import Estimate
from capacity.records.number_format import Cell, cell, header_cell, say
from capacity.records.numbers import number
from capacity.report.tables import Table
from capacity.tasks.task import Task
from capacity.thermo.ensemble import Ensemble
from capacity.thermo.ensemble_record import Start
from capacity.thermo.irreversibility import Irreversibility
from capacity.thermo.landscape import Potential
from capacity.thermo.speed_limit import judge

RATES, TARGETS = (0.5, 1.0, 2.0), (1.5, -1.0, 0.5)
BOWLS = ((0.1, 1.0), (0.5, 1.0), (2.0, 0.5))
"""Temperature and learning time."""
TEMPERATURES = (1e-3, 1e-2, 1e-1)
CHECKPOINTS = 16


@dataclass(frozen=True, kw_only=True)
class Row:
    """One ensemble.

    Attributes:
        name: What moved.
        temperature: tau.
        closed: R in closed form; None for a network.
        free_energy: R by energies and entropy.
        path_ratio: R by the ratio of likelihoods.
        score: R by gradients, Laplacians and scores.
        first_order: What the step's length may make of R, its first order.
    """

    name: str
    temperature: float
    closed: float | None
    free_energy: Estimate
    path_ratio: Estimate
    score: Estimate
    first_order: float


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that is printed.

    Attributes:
        particles: Of a bowl.
        replicas: Of a network.
        rows: Ensembles.
    """

    particles: int
    replicas: int
    rows: list[Row]


def _row(
    name: str, tau: float, closed: float | None, made: Irreversibility | None, lr: float
) -> Row:
    assert made is not None, "Langevin dynamics from a law with a density has it"
    return Row(
        name=name,
        temperature=tau,
        closed=closed,
        free_energy=made.free_energy,
        path_ratio=made.path_ratio,
        score=made.score,
        first_order=lr * abs(value_of(made.free_energy)),
    )


def _bowl(tau: float, time: float, particles: int, steps: int, seed: int) -> Row:
    rate, target = (torch.tensor(given, dtype=torch.float64) for given in (RATES, TARGETS))
    bowl = Potential(
        energy=lambda theta, _: 0.5 * (rate * (theta - target).square()).sum(-1), batched=True
    )
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(particles, len(rate), generator=generator, dtype=torch.float64)
    entropy = 0.5 * len(rate) * math.log(2 * math.pi * math.e)
    record = Ensemble(start, start=Start.COLD, entropy_start=entropy).learn(
        bowl, Langevin(tau, seed=seed), [time / steps] * steps,
        checkpoints=[round(steps * (k + 1) / CHECKPOINTS) for k in range(CHECKPOINTS)],
        log_volume=2, seed=seed,
    )  # fmt: skip
    truth = ornstein_uhlenbeck(
        rate=rate.numpy(), target=target.numpy(), temperature=tau, mean=0.0, variance=1.0, time=time
    )
    closed = float(truth.dissipation.sum()) / tau
    made = judge(record).irreversibility
    return _row("bowl", tau, closed, made, time / steps * max(RATES))


def _network(tau: float, task: Task, replicas: int, steps: int, lr: float) -> Row:
    made = capacity.epistemic_speed_limit(
        nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10)),
        [task],
        replicas=replicas,
        checkpoints=CHECKPOINTS,
        log_volume=1,
        training=capacity.Training(
            optimizer="sgld", temperature=tau, lr=lr, max_steps=steps, batch_size=10**6
        ),
    )
    return _row("network", tau, None, made.tasks[0].irreversibility, lr)


def measured(
    *,
    samples: int = 60,
    particles: int = 2000,
    replicas: int = 60,
    steps: int = 200,
    temperatures: Sequence[float] = TEMPERATURES,
) -> Findings:
    """Relax in the bowls, and train the networks."""
    task = first_samples(digits(), samples)
    rows = []
    for seed, (tau, time) in enumerate(BOWLS):
        print(f"bowl, {tau:g}", file=sys.stderr)
        rows.append(_bowl(tau, time, particles, steps, seed))
    for tau in temperatures:
        print(f"network, {tau:g}", file=sys.stderr)
        rows.append(_network(tau, task, replicas, steps, 2.0 / steps))
    return Findings(particles=particles, replicas=replicas, rows=rows)


def claims(findings: Findings) -> list[Claim]:
    """Hold theory against what came out."""
    bowls = [row for row in findings.rows if row.closed is not None]
    networks = [row for row in findings.rows if row.closed is None]
    routes = ("free_energy", "path_ratio", "score")
    # An error of the first order in the step's length is no disagreement.
    off = [
        (abs(value_of(getattr(row, name)) - (row.closed or 0.0)) - row.first_order)
        / (getattr(row, name).stderr or math.inf)
        for row in bowls
        for name in routes
    ]
    power = max(
        (ERRORS * (getattr(row, name).stderr or 0.0) + row.first_order) / (row.closed or 1.0)
        for row in bowls
        for name in routes
    )
    pairs = [
        (row, abs(value_of(row.path_ratio) / value_of(row.free_energy) - 1)) for row in networks
    ]
    worst, apart = max(pairs, key=lambda pair: pair[1])
    above = [
        (value_of(row.score) - value_of(row.free_energy) - row.first_order)
        / math.hypot(row.score.stderr or 0.0, row.free_energy.stderr or 0.0)
        for row in networks
    ]
    widest = max(1 - value_of(row.score) / value_of(row.free_energy) for row in networks)
    return [
        Claim(
            "energies, path ratio and score tell one R, that of the closed form, in a bowl "
            "([S], (3) to (5))",
            f"the {len(off)} numbers are off by {number(max(0.0, max(off)), 2)} standard errors at "
            "most, beyond the first order of the step",
            held(max(off) <= ERRORS),
            f"one of them {ERRORS:g} standard errors off; {number(100 * power, 2)} % of R would "
            "have shown in every one",
        ),
        Claim(
            "the path ratio of a network is what its energies say",
            f"they differ by {number(100 * apart, 2)} % at most (tau = {worst.temperature:g})",
            held(apart < 0.01),
            "a difference of 1 % of R",
        ),
        Claim(
            "the score bounds the R of a network from below, and the energies from above",
            f"the bracket holds at {sum(a <= ERRORS for a in above)} of {len(above)} temperatures, "
            f"{number(100 * widest, 2)} % wide at most",
            held(all(a <= ERRORS for a in above)),
            f"a score {ERRORS:g} standard errors above the energies",
        ),
    ]


def section(findings: Findings) -> Section:
    """Make the section of the page."""
    first = findings.rows[0]
    told = [
        f"In a bowl at tau = {first.temperature:g} R is {number(first.closed or 0.0, 4)} nats: "
        f"energies say {say(first.free_energy)}, the score {say(first.score)}.",
        *(
            f"A network at tau = {row.temperature:g}: R is at least {say(row.score)} and at most "
            f"{say(row.free_energy)} nats."
            for row in findings.rows
            if row.closed is None
        ),
    ]
    return Section(
        "irreversibility",
        "Irreversibility R by three routes",
        told,
        [],
        [table(findings)],
        claims(findings),
    )


def table(findings: Findings) -> Table:
    """List the ensembles."""
    return Table(
        caption="R in nats: how much nearer an ensemble came to its Gibbs law",
        columns=(
            "Ensemble",
            "tau",
            "Closed form",
            "Energies, from above",
            "Path ratio",
            "Gradient, Laplacian, score, from below",
        ),
        rows=[
            (
                header_cell(row.name),
                Cell(f"{row.temperature:g}"),
                Cell("\u2013") if row.closed is None else Cell(number(row.closed, 4)),
                cell(row.free_energy),
                cell(row.path_ratio),
                cell(row.score),
            )
            for row in findings.rows
        ],
        remark=f"{findings.particles} particles of three modes in a bowl; {findings.replicas} "
        "networks of 610 parameters from torch's initialisation, on all samples.",
    )
