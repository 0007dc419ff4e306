"""Does excess dissipation make contraction anisotropic? A sweep of runs of one learning time.

One task, MLP 64-8-10, sixteen runs over learning rate and batch size: what they spend above their
speed limit differs by the noise and the length of their steps, how long they learn does not. The
numbers and the verdict are the comparison's own, `capacity.comparison.excess_and_anisotropy`.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thermo_claims import Claim, Section, held
from thermo_drawing import COLORS, Series, plotted

import capacity
from capacity.comparison.excess_and_anisotropy import CLAIM, Point, link, plain, points, verdict
from capacity.records.number_format import Cell, correlation, header_cell
from capacity.records.numbers import number
from capacity.report.tables import Table

SAMPLES = 128
LEARNING_TIME = 6.4
RATES = (0.025, 0.05, 0.1, 0.2)
BATCHES = (8, 16, 32, 64)
HIDDEN = 8


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of the sweep.

    Attributes:
        lr: Its learning rate.
        batch: Its batch size.
        point: What the comparison reads of it.
    """

    lr: float
    batch: int
    point: Point


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that is printed and drawn.

    Attributes:
        learning_time: T of every run.
        runs: Batch sizes rising, then rates.
    """

    learning_time: float
    runs: list[Run]


def measured(
    *,
    rates: Sequence[float] = RATES,
    batches: Sequence[int] = BATCHES,
    learning_time: float = LEARNING_TIME,
) -> Findings:
    """Make every run, and read the comparison of all."""
    measure = capacity.Measure(forecast=False, transport=True)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for batch in batches:
            for lr in rates:
                epochs = round(learning_time / lr * batch / SAMPLES)
                recipe = capacity.Recipe(
                    name="anisotropy",
                    tasks=capacity.TaskStream(experiences=1, samples=SAMPLES),
                    model=capacity.Model(hidden=(HIDDEN,)),
                    training=capacity.Training(lr=lr, epochs=epochs, batch_size=batch),
                    measure=measure,
                    replicas=1,
                )
                out = Path(folder) / f"{batch}-{lr:g}"
                with contextlib.redirect_stderr(io.StringIO()):
                    capacity.run(recipe, out=out)
                (point,) = points(capacity.compare(out).gathered)
                print(f"batches of {batch}, lr {lr:g}", file=sys.stderr)
                runs.append(Run(lr=lr, batch=batch, point=point))
    return Findings(learning_time=learning_time, runs=runs)


def claims(findings: Findings) -> dict[str, Claim]:
    """Hold the sentence against the sweep."""
    found = [run.point for run in findings.runs]
    partial = link(found)
    said = {"supported": True, "refuted": False, "undecided": None}[verdict(partial)]
    half = "an interval"
    if partial.interval is not None:
        half = number((partial.interval[1] - partial.interval[0]) / 2, 2)
    return {
        "anisotropy": Claim(
            CLAIM,
            f"rank correlation over {len(found)} runs {correlation(partial)} with the distance "
            f"moved taken out, {correlation(plain(found))} as it is",
            held(said),
            f"an interval (90 %) below 0; a correlation {half} off 0 would have been told from it",
        )
    }


def section(findings: Findings) -> Section:
    """Make the section of the page."""
    found = claims(findings)["anisotropy"]
    spent = [run.point.excess for run in findings.runs]
    return Section(
        "anisotropy",
        "Excess dissipation and anisotropic contraction",
        [
            f"Of one learning time, {len(spent)} ways to take it spend from "
            f"{number(min(spent), 2)} to {number(max(spent), 2)} above their speed limit: "
            f"{found.here}."
        ],
        [
            plotted(
                [
                    Series(
                        f"batches of {batch}",
                        [
                            (run.point.excess, run.point.anisotropy)
                            for run in findings.runs
                            if run.batch == batch
                        ],
                        COLORS[k],
                    )
                    for k, batch in enumerate(dict.fromkeys(r.batch for r in findings.runs))
                ],
                anchor="fig-anisotropy",
                title="Anisotropy of J against excess dissipation",
                caption="One mark per run. Excess dissipation is \u03a3 \u2212 "
                "|\u0394\u03b8|\u00b2/T; anisotropy is ln(P/effective rank of J), 0 where "
                f"training stretches all directions alike. {found.caption}",
                alt_text="Anisotropy of the training Jacobian against excess dissipation on a "
                "logarithmic axis, one colour per batch size.",
                x="excess dissipation",
                y="anisotropy",
                log_x=True,
            )
        ],
        [table(findings)],
        [found],
    )


def table(findings: Findings) -> Table:
    """List every run."""
    return Table(
        caption=f"Every run, T = {findings.learning_time:g}",
        columns=(
            "Batches of",
            "Learning rate",
            "Excess dissipation",
            "|\u0394\u03b8|\u00b2",
            "Anisotropy",
        ),
        rows=[
            (
                header_cell(str(run.batch)),
                Cell(f"{run.lr:g}"),
                Cell(number(run.point.excess, 3)),
                Cell(number(run.point.moved, 3)),
                Cell(number(run.point.anisotropy, 3)),
            )
            for run in findings.runs
        ],
    )
