"""Does excess dissipation make contraction anisotropic? A verdict over the runs of a comparison.

Excess dissipation of a task is what its path spent above its speed limit, Sigma - |d theta|^2/T,
Sigma = sum |d theta_k|^2/dt_k. Anisotropy of its transport is ln(P/r), r the effective rank of J_t:
0 where J_t stretches all directions alike. A run has the means of both over its tasks. Both grow
with how far a training goes, so they are correlated by rank with |d theta|^2 taken out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from capacity.forecasting.scores import spearman
from capacity.records.estimate import Estimate, Status, not_defined
from capacity.records.intervals import Z90
from capacity.records.number_format import Cell, correlation, header_cell
from capacity.records.numbers import number, plural
from capacity.report.charts import Figure, data, dimmed, focus, spec, task_keys, task_scale
from capacity.report.tables import Table
from capacity.results.gather import Gathered
from capacity.results.view import Record, RunView, pick

_FEWEST = 6
_ROUNDING = 1e-9
CLAIM = "excess dissipation makes contraction anisotropic"


@dataclass(frozen=True, kw_only=True)
class Point:
    """One run.

    Attributes:
        variant: Label of its recipe.
        seed: Its seed.
        excess: Mean excess dissipation of its tasks.
        anisotropy: Mean ln(P/effective rank) of their J_t.
        moved: Mean |d theta|^2.
    """

    variant: str
    seed: int
    excess: float
    anisotropy: float
    moved: float


def points(gathered: Gathered) -> list[Point]:
    """Read both numbers of every finished run that has them for each of its tasks.

    Args:
        gathered: The runs.

    Returns:
        One point per run that has both.
    """
    found = []
    for variant in gathered.variants:
        for entry in variant.counted:
            both = [_of_task(entry.view, i) for i in range(len(entry.view.phases))]
            known = [pair for pair in both if pair is not None]
            if known and len(known) == len(both):
                means = [math.fsum(side) / len(known) for side in zip(*known, strict=True)]
                found.append(
                    Point(
                        variant=variant.label,
                        seed=entry.seed,
                        excess=means[0],
                        anisotropy=means[1],
                        moved=means[2],
                    )
                )
    return found


def _of_task(view: RunView, task: int) -> tuple[float, float, float] | None:
    phase: Record = view.phases[task] or {}
    action, moved = (pick(phase, "thermo", name) for name in ("action", "displacement_sq"))
    rank = pick(phase, "transport", "effective_rank")
    time = (phase.get("thermo") or {}).get("learning_time")
    size = (phase.get("transport") or {}).get("dimension")
    numbers = [e.value if e else None for e in (action, moved, rank)]
    if not time or not size or None in numbers or not numbers[2]:
        return None
    spent, squared, effective = (value or 0.0 for value in numbers)
    return spent - squared / time, math.log(size / effective), squared


def plain(found: Sequence[Point]) -> Estimate:
    """Rank both numbers over the runs, as they are.

    Args:
        found: The runs.

    Returns:
        Spearman's correlation with its 90 % interval over runs.
    """
    return spearman([p.excess for p in found], [p.anisotropy for p in found])


def link(found: Sequence[Point]) -> Estimate:
    """Rank both numbers over the runs, with the ranks of the distance moved taken out.

    Args:
        found: The runs.

    Returns:
        The partial rank correlation with its 90 % interval by Fisher's z (variance 1.06/(n - 4));
        not defined for fewer than six runs, or where one of the two goes with the distance alone.
    """
    n = len(found)
    if n < _FEWEST:
        return not_defined(f"{plural(n, 'run')}; a partial rank correlation needs {_FEWEST}.")
    moved = [p.moved for p in found]
    both = plain(found).value
    if both is None:
        return not_defined("Excess dissipation or anisotropy is the same in all runs.")
    # Where all runs move alike there is nothing to take out.
    sides = [
        spearman([getattr(p, name) for p in found], moved).value or 0.0
        for name in ("excess", "anisotropy")
    ]
    left = math.sqrt((1 - sides[0] ** 2) * (1 - sides[1] ** 2))
    if left < _ROUNDING:
        return not_defined("The distance moved alone ranks the runs.")
    value = max(-1.0, min(1.0, (both - sides[0] * sides[1]) / left))
    spread = math.sqrt(1.06 / (n - 4))
    finest = 1 - 6 / (n * (n**2 - 1))
    z = math.atanh(max(min(value, finest), -finest))
    low, high = math.tanh(z - Z90 * spread), math.tanh(z + Z90 * spread)
    return Estimate(
        value=value,
        stderr=(1 - min(abs(value), finest) ** 2) * spread,
        interval=(min(low, value), max(high, value)),
        status=Status.UNCALIBRATED,
        n=n,
        note="Runs of one recipe are not independent; the interval treats them as if they were.",
    )


def verdict(correlated: Estimate) -> str:
    """Judge the claim by the interval.

    Args:
        correlated: What `link` says.

    Returns:
        supported, refuted (the interval is below 0) or undecided.
    """
    if correlated.interval is None:
        return "undecided"
    low, high = correlated.interval
    return "supported" if low > 0 else "refuted" if high < 0 else "undecided"


def sentence(gathered: Gathered) -> str:
    """Say what the runs say of the claim.

    Args:
        gathered: The runs.

    Returns:
        A sentence; empty where fewer than six runs measured both.
    """
    found = points(gathered)
    correlated = link(found)
    if correlated.value is None:
        return ""
    return (
        f"That {CLAIM} is {verdict(correlated)}: rank correlation {correlation(correlated)} over "
        f"{len(found)} runs with the distance moved taken out, {correlation(plain(found))} as it is"
    )


def figure(gathered: Gathered) -> Figure:
    """Draw one mark per run.

    Args:
        gathered: The runs, of which some have both numbers.

    Returns:
        The figure.
    """
    found = points(gathered)
    names = [variant.label for variant in gathered.variants]
    rows = [
        {"variant": p.variant, "seed": p.seed, "excess": p.excess, "anisotropy": p.anisotropy}
        for p in found
    ]
    zero = alt.Scale(zero=False)
    chart = (
        alt
        .Chart(data(rows))
        .mark_circle(size=60)
        .encode(
            x=alt.X("excess:Q", title="excess dissipation", scale=zero),
            y=alt.Y("anisotropy:Q", title="anisotropy, ln(P / effective rank)", scale=zero),
            color=alt.Color("variant:N", scale=task_scale(names), legend=None),
            opacity=dimmed("variant", 0.85),
            tooltip=[
                alt.Tooltip("variant:N"),
                alt.Tooltip("seed:Q"),
                alt.Tooltip("excess:Q", format=".3~g"),
                alt.Tooltip("anisotropy:Q", format=".3~g"),
            ],
        )
        .add_params(focus())
    )
    drawn = {p.variant for p in found}
    return Figure(
        id="fig-anisotropy",
        title="Anisotropy of J against excess dissipation",
        caption="One mark per run, means over its tasks. Excess dissipation is \u03a3 \u2212 "
        "|\u0394\u03b8|\u00b2/T of the path, minibatch noise included; anisotropy is 0 where "
        "training stretches all directions alike. Both grow with the distance that a training "
        "moves, which the verdict takes out.",
        alt=f"Anisotropy of the training Jacobian against excess dissipation, {len(rows)} runs; "
        f"anisotropy from {number(min(p.anisotropy for p in found))} to "
        f"{number(max(p.anisotropy for p in found))}.",
        spec=spec(chart, height=280),
        keys=[key for key in task_keys(names, "dot") if key.label in drawn],
        table=Table(
            caption="Excess dissipation and anisotropy of every run",
            columns=("Variant", "Seed", "Excess dissipation", "Anisotropy"),
            rows=[
                (
                    header_cell(p.variant),
                    Cell(str(p.seed)),
                    Cell(number(p.excess)),
                    Cell(number(p.anisotropy)),
                )
                for p in found
            ],
        ),
        csv={
            "variant": "variant",
            "seed": "seed",
            "excess": "excess dissipation",
            "anisotropy": "anisotropy",
        },
    )
