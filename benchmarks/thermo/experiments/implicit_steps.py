"""Explicit and implicit steps of a belief at equal gradients: which get lower, and who pays?

A belief about a small network learns the digits on all samples, by transport and by information
geometry. One step: the drop of free energy over d^2/lr, which on a quadratic of curvature a is
1 - lr a/2 for the explicit step and 1 + lr a/2 for the implicit one ([G]). Whole trainings: N
implicit steps of length h, each found in eight gradients (residual told), against 8 N explicit
steps of length h/8: the same time T, the same number of gradients.
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
from thermo_training import digits, first_samples
from torch import nn

from capacity.networks.belief import believed
from capacity.networks.door import fit
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from capacity.records.estimate import from_samples
from capacity.records.number_format import Cell, cell, header_cell, say, text_cell
from capacity.records.numbers import number
from capacity.report.tables import Table
from capacity.tasks.task import Task
from capacity.thermo.belief_cost import BeliefCost, belief_cost
from capacity.thermo.path import PathObserver
from capacity.training.data_order import DataOrder
from capacity.training.train import train

GRADIENTS = 8
"""Of an implicit step, the one at its start among them."""
MANY = 32
"""The same where those do not find an end."""
WIDTH, TEMPERATURE = 0.05, 1e-4
LENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Steps in the unit of time of transport; information geometry divides by the widths squared."""
UNIT = {"transport": 1.0, "information": WIDTH**-2}
SINGLE, DRAWS = 0.25, 32
"""Length of the single step, and antithetic pairs of draws behind it."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One length of steps, of every initialisation; None where a training had no end.

    Attributes:
        geometry: `transport` or `information`.
        length: h, in the geometry's own unit of time.
        explicit: Free energy after 8 N steps of h/8.
        implicit: After N steps of h.
        efficiency: d^2/(T Sigma) of both, explicit first.
        residual: Of the implicit steps, mean and largest.
        patient: The same of four times the gradients, where those do not find an end.
    """

    geometry: str
    length: float
    explicit: list[float] | None
    implicit: list[float] | None
    efficiency: tuple[list[float] | None, list[float] | None]
    residual: tuple[float, float] | None
    patient: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that is printed.

    Attributes:
        replicas: Initialisations.
        steps: Implicit steps of a training.
        single: Drop of free energy over d^2/lr of one step, of every initialisation, by geometry:
            explicit, implicit.
        start: Free energy before, of every initialisation.
        rows: Trainings.
    """

    replicas: int
    steps: int
    single: dict[str, tuple[list[float], list[float]]]
    start: list[float]
    rows: list[Row]


class _Beliefs:
    """Independent beliefs about one network, and their trainings on all samples of a task."""

    def __init__(self, task: Task, count: int, hidden: int) -> None:
        self._plan = Training(
            belief={"geometry": "transport", "width": WIDTH}, temperature=TEMPERATURE
        )
        models = [self._belief(seed, hidden) for seed in range(count)]
        self.model = models[0]
        (self.task,) = fit(self.model, self.model.initial(), [task], two_modes=True)
        self.theta = torch.stack([model.initial() for model in models])

    def _belief(self, seed: int, hidden: int) -> FlatModel:
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Linear(64, hidden), nn.Tanh(), nn.Linear(hidden, 10))
        return FlatModel(believed(module, self._plan))

    def learned(
        self, geometry: str, lr: float, steps: int, **options: Any
    ) -> tuple[list[BeliefCost] | None, tuple[float, float] | None]:
        """Train all, and give every one's cost and the residual; None where there was no end."""
        plan = Training(
            belief={"geometry": geometry, "width": WIDTH, **options}, temperature=TEMPERATURE,
            lr=lr, max_steps=steps, batch_size=10**6,
        )  # fmt: skip
        order = DataOrder.planned(plan, len(self.task.train), replicas=len(self.theta), seed=0)
        path = PathObserver()
        try:
            phase = train(self.model, self.theta, self.task, plan, order, observers=[path])
        except ValueError as error:  # no solution of an implicit step: what is asked here
            if "without a solution" not in str(error):
                raise
            return None, None
        if phase.diverged is not None:
            return None, None
        costs = [
            belief_cost(
                self.model, self.theta[r : r + 1], phase.theta[r : r + 1], self.task, plan,
                time=phase.learning_time, seed=1,
            )
            for r in range(len(self.theta))
        ]  # fmt: skip
        return costs, _residual(path, len(self.theta))


def _residual(path: PathObserver, count: int) -> tuple[float, float] | None:
    none = torch.zeros(count)
    left = path.cost(none, none, plain=False, full=True).implicit
    return None if left is None else (value_of(left.residual), left.largest)


def _values(costs: Sequence[BeliefCost] | None, name: str) -> list[float] | None:
    return None if costs is None else [value_of(getattr(cost, name)) for cost in costs]


def _efficiency(costs: Sequence[BeliefCost] | None) -> list[float] | None:
    found = _values(costs, "inefficiency")
    return None if found is None else [1 / value for value in found]


def _row(beliefs: _Beliefs, geometry: str, length: float, steps: int) -> Row:
    lr = length * UNIT[geometry]
    short, _ = beliefs.learned(geometry, lr / GRADIENTS, GRADIENTS * steps)
    long, residual = beliefs.learned(geometry, lr, steps, implicit=GRADIENTS - 1)
    patient = None
    if long is None:
        _, patient = beliefs.learned(geometry, lr, steps, implicit=MANY - 1)
    return Row(
        geometry=geometry,
        length=lr,
        explicit=_values(short, "free_energy_after"),
        implicit=_values(long, "free_energy_after"),
        efficiency=(_efficiency(short), _efficiency(long)),
        residual=residual,
        patient=patient,
    )


def measured(
    *,
    samples: int = 200,
    count: int = 5,
    hidden: int = 12,
    steps: int = 12,
    lengths: Sequence[float] = LENGTHS,
) -> Findings:
    """Take single steps, and train at every length."""
    beliefs = _Beliefs(first_samples(digits(), samples), count, hidden)
    single, rows, start = {}, [], list[float]()
    for geometry, unit in UNIT.items():
        print(geometry, file=sys.stderr)
        both = [
            beliefs.learned(geometry, SINGLE * unit, 1, draws=DRAWS, **options)[0]
            for options in ({}, {"implicit": GRADIENTS - 1})
        ]
        one, other = (_values(costs, "inefficiency") for costs in both)
        if one is None or other is None:
            raise ValueError(f"a step of {SINGLE * unit:g} by {geometry} has no end; shorten it")
        single[geometry] = (one, other)
        start = _values(both[0], "free_energy_before") or []
        rows += [_row(beliefs, geometry, length, steps) for length in lengths]
    return Findings(replicas=count, steps=steps, single=single, start=start, rows=rows)


def claims(findings: Findings) -> list[Claim]:
    """Hold theory against what came out."""
    found = []
    for geometry, (one, other) in findings.single.items():
        ahead = from_samples([b - a for a, b in zip(one, other, strict=True)])
        error = 3 * (ahead.stderr or 0.0)
        clear = abs(value_of(ahead)) > error
        found.append(
            Claim(
                f"of d\u00b2/lr, what its way costs, one implicit step by {geometry} gains more "
                "free energy than one explicit step ([G])",
                f"by {say(ahead)}, paired by initialisation, at lr = {SINGLE * UNIT[geometry]:g}",
                held(value_of(ahead) > 0 if clear else None),
                f"a paired difference below 0 by three standard errors; {number(error, 2)} would "
                "have shown",
            )
        )
    for geometry in UNIT:
        ahead = [
            (row, from_samples([b - a for a, b in zip(row.explicit, row.implicit, strict=True)]))
            for row in findings.rows
            if row.geometry == geometry and row.explicit and row.implicit
        ]
        if not ahead:
            continue
        lower = [d for _, d in ahead if value_of(d) + 2 * (d.stderr or 0.0) < 0]
        higher = [d for _, d in ahead if value_of(d) - 2 * (d.stderr or 0.0) > 0]
        clear = bool(lower) != bool(higher)
        found.append(
            Claim(
                f"implicit steps by {geometry} end no lower than explicit ones an eighth as long "
                "at equal gradients and time: on a quadratic (1 + ha)^-N is above (1 - ha/8)^8N",
                f"at {len(ahead)} lengths implicit ends lower at {len(lower)} and higher at "
                f"{len(higher)}, by two standard errors of the paired difference "
                f"({', '.join(say(d) for _, d in ahead)})",
                held(bool(higher) if clear else (None if lower else True)),
                "implicit steps lower by two standard errors at some length, and nowhere higher; "
                f"{number(2 * max(d.stderr or 0.0 for _, d in ahead), 2)} would have shown at any",
            )
        )
    quick = sum(row.implicit is not None for row in findings.rows)
    more = sum(row.patient is not None for row in findings.rows)
    found.append(
        Claim(
            "implicit steps go on at any length, since F + d\u00b2/2h has a minimum",
            f"{GRADIENTS - 1} gradients find it at {quick} of {len(findings.rows)} lengths, and "
            f"{MANY - 1} at {more} of the others",
            held(quick + more == len(findings.rows)),
            f"one of {len(findings.rows)} lengths at which neither do",
        )
    )
    return found


def section(findings: Findings) -> Section:
    """Make the section of the page."""
    known = [row for row in findings.rows if row.explicit and row.implicit]
    lower = sum(math.fsum(row.implicit or ()) < math.fsum(row.explicit or ()) for row in known)
    single = {
        name: [value_of(from_samples(values)) for values in pair]
        for name, pair in findings.single.items()
    }
    told = [
        f"At equal gradients and time, implicit steps end lower than explicit ones of an eighth of "
        f"the length at {lower} of {len(known)} lengths at which both end.",
        *(
            f"One step by {name} gains {number(one, 4)} of d\u00b2/lr explicitly, and "
            f"{number(other, 4)} implicitly."
            for name, (one, other) in single.items()
        ),
    ]
    return Section(
        "implicit-steps",
        "Explicit and implicit steps, at equal gradients",
        told,
        [],
        [table(findings)],
        claims(findings),
    )


def table(findings: Findings) -> Table:
    """List the lengths."""

    def of(values: list[float] | None) -> Cell:
        return text_cell("no end") if values is None else cell(from_samples(values))

    return Table(
        caption="A belief's free energy after explicit and implicit steps of as many gradients",
        columns=(
            "Geometry",
            "h",
            "Free energy::before",
            "Free energy::explicit, h/8",
            "Free energy::implicit, h",
            "Efficiency::explicit",
            "Efficiency::implicit",
            "Residual::mean",
            "Residual::largest",
            f"Residual::of {MANY} gradients",
        ),
        rows=[
            (
                header_cell(row.geometry),
                Cell(f"{row.length:g}"),
                of(findings.start),
                of(row.explicit),
                of(row.implicit),
                of(row.efficiency[0]),
                of(row.efficiency[1]),
                *(
                    Cell("\u2013") if row.residual is None else Cell(f"{value:.2g}")
                    for value in (row.residual or (0.0, 0.0))
                ),
                Cell("\u2013") if row.patient is None else Cell(f"{row.patient[0]:.2g}"),
            )
            for row in findings.rows
        ],
        remark=f"Mean \u00b1 standard error over {findings.replicas} initialisations; "
        f"{findings.steps} implicit steps of h against {GRADIENTS * findings.steps} explicit ones "
        f"of h/8. Efficiency: d\u00b2 over T times the free energy spent, at most 1 for the flow. "
        "Residual: by how much the gradient at an implicit step's end differs from the one it went "
        f"along, in the last column of {MANY} gradients where {GRADIENTS} do not do. No end: "
        "diverged, or a step without a solution in its gradients.",
    )
