"""Beliefs about an angle: von Mises laws on the circle against Gaussians on the line.

Each task is the phase of a wave, y_i = cos(x_i - phi) + noise, x on a grid over whole periods: its
mean half squared error is const - b . (cos phi, sin phi), b = mean y (cos x, sin x), exactly. A
belief about phi descends F = E_q[L] - tau H in the information (Fisher-Rao) geometry. A von Mises
belief with natural parameters v = kappa (cos mu, sin mu) should relax as
v(t) = e^{-tau t} v_0 + (1 - e^{-tau t}) b/tau: its flow is integrated here in (mu, kappa), from the
metric, and held against that. A Gaussian belief on the line knows the same loss, and not that its
parameter is an angle: E_q[cos(phi - m)] = e^{-S/2} cos(mu - m).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.integrate import solve_ivp
from thermo_claims import Check, Claim, Section, held
from thermo_drawing import COLORS, Series, plotted

from capacity.closed_forms import gaussian_distance, von_mises, von_mises_distance
from capacity.records.number_format import Cell, header_cell
from capacity.records.numbers import number
from capacity.report.tables import Table

TAU = 0.05
CONCENTRATION = 4.0
"""kappa of the first belief; the Gaussian starts at S = 1/kappa."""
LEFT = 0.01
"""Share of the free energy's excess at which a belief has arrived."""
PATIENCE = 400.0
"""Learning time after which a belief is given up: 20 times 1/tau."""
TURNS = (*range(5, 180, 10), 178, 179, 179.9)
EXACT = 1e-5
"""Relative deviation from the closed form that counts: the integration is good to 1e-7."""
CIRCLE, LINE = "von Mises, on the circle", "Gaussian, on the line"


@dataclass(frozen=True, kw_only=True)
class Way:
    """A belief's way to within 1 % of the least free energy.

    Attributes:
        belief: Which kind.
        turn: Degrees from the belief's first mean to the best angle.
        time: Learning time T until it arrived; None where it never did.
        efficiency: d^2/(T (F_0 - F_T)) of that way, None likewise.
        deviation: |v_T - closed form|/|v_T|, of von Mises beliefs.
    """

    belief: str
    turn: float
    time: float | None
    efficiency: float | None
    deviation: float | None = None


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that is printed and drawn.

    Attributes:
        points: Observations per task.
        noise: Their standard deviation.
        ways: Both beliefs, one task per turn.
    """

    points: int
    noise: float
    ways: list[Way]


class Pull(NamedTuple):
    """The loss a (1 - cos(phi - m)) of one task: its depth a and its best angle m."""

    depth: float
    best: float


def measured(
    *, turns: Sequence[float] = TURNS, points: int = 48, noise: float = 0.2, seed: int = 0
) -> Findings:
    """Learn one noisy phase per turn with both beliefs."""
    rng = np.random.default_rng(seed)
    ways = []
    for turn in turns:
        pull = phase_task(rng, points=points, noise=noise)
        start = pull.best - math.radians(turn)
        ways += [on_circle(pull, start, turn), on_line(pull, start, turn)]
    return Findings(points=points, noise=noise, ways=ways)


def phase_task(rng: np.random.Generator, *, points: int, noise: float) -> Pull:
    """Draw a wave's phase and its noisy values; depth and angle of the loss that they make."""
    x = np.arange(points) * 2 * np.pi / points
    y = np.cos(x - rng.uniform(0, 2 * np.pi)) + noise * rng.standard_normal(points)
    b = (y * np.exp(1j * x)).mean()
    return Pull(float(abs(b)), float(np.angle(b)))


def on_circle(pull: Pull, start: float, turn: float) -> Way:
    """Follow a von Mises belief by its metric, in (mu, kappa)."""

    def energy(mu: float, kappa: float) -> float:
        law = von_mises(concentration=kappa)
        return float(-pull.depth * law.resultant * math.cos(mu - pull.best) - TAU * law.entropy)

    def velocity(_: float, at: np.ndarray) -> list[float]:
        mu, kappa = at
        law = von_mises(concentration=kappa)
        slope = float(law.metric_concentration)
        # d_mu F and d_kappa F, with dH/dkappa = -kappa A'.
        by_mean = pull.depth * float(law.resultant) * math.sin(mu - pull.best)
        by_kappa = -pull.depth * slope * math.cos(mu - pull.best) + TAU * kappa * slope
        return [-by_mean / float(law.metric_mean), -by_kappa / slope]

    least = energy(pull.best, pull.depth / TAU)
    time, (mu, kappa) = _arrival(velocity, [start, CONCENTRATION], energy, least)
    first = CONCENTRATION * np.exp(1j * start)
    gone = math.exp(-TAU * (time or PATIENCE))
    exact = gone * first + (1 - gone) * pull.depth / TAU * np.exp(1j * pull.best)
    off = float(abs(kappa * np.exp(1j * mu) - exact) / abs(exact))
    far = von_mises_distance(
        mean_start=start, concentration_start=CONCENTRATION, mean_end=mu, concentration_end=kappa
    )
    drop = energy(start, CONCENTRATION) - energy(mu, kappa)
    return Way(
        belief=CIRCLE,
        turn=turn,
        time=time,
        efficiency=None if time is None else float(far) ** 2 / (time * drop),
        deviation=off,
    )


def on_line(pull: Pull, start: float, turn: float) -> Way:
    """Follow a Gaussian belief, in (mu, log S): the width stays above 0."""

    def energy(mu: float, log_s: float) -> float:
        mean = math.exp(-0.5 * math.exp(log_s)) * math.cos(mu - pull.best)
        return -pull.depth * mean - 0.5 * TAU * (log_s + math.log(2 * math.pi * math.e))

    def velocity(_: float, at: np.ndarray) -> list[float]:
        mu, log_s = at
        s = math.exp(log_s)
        force = pull.depth * math.exp(-0.5 * s) * s
        return [-force * math.sin(mu - pull.best), TAU - force * math.cos(mu - pull.best)]

    rest = _narrow_width(pull.depth)
    least = energy(pull.best, math.log(rest))
    at = [start, -math.log(CONCENTRATION)]
    time, (mu, log_s) = _arrival(velocity, at, energy, least)
    if time is None:
        return Way(belief=LINE, turn=turn, time=None, efficiency=None)
    far = gaussian_distance(
        mean_start=start,
        deviation_start=CONCENTRATION**-0.5,
        mean_end=mu,
        deviation_end=math.exp(log_s / 2),
    )
    drop = energy(*at) - energy(mu, log_s)
    return Way(belief=LINE, turn=turn, time=time, efficiency=float(far) ** 2 / (time * drop))


def _narrow_width(depth: float) -> float:
    """Smaller S with a S e^{-S/2} = tau, where a Gaussian belief about its best angle rests."""
    s = TAU / depth
    for _ in range(100):
        s = TAU / depth * math.exp(0.5 * s)
    return s


def _arrival(velocity, start, energy, least):  # type: ignore[no-untyped-def]
    """Integrate until 1 % of the excess is left: when (None: never), and where."""
    goal = least + LEFT * (energy(*start) - least)

    def arrived(_: float, at: np.ndarray) -> float:
        return energy(*at) - goal

    arrived.terminal = True  # type: ignore[attr-defined]
    done = solve_ivp(
        velocity, (0, PATIENCE), start, method="LSODA", rtol=1e-9, atol=1e-11, events=arrived
    )
    time = float(done.t[-1]) if done.status == 1 else None
    return time, done.y[:, -1]


def by_belief(findings: Findings, belief: str) -> list[Way]:
    """The ways of one kind of belief, turns rising."""
    return [way for way in findings.ways if way.belief == belief]


def claims(findings: Findings) -> dict[str, Claim]:
    """Hold theory, and two conjectures, against what came out."""
    circle, line = by_belief(findings, CIRCLE), by_belief(findings, LINE)
    off = max(way.deviation or 0.0 for way in circle)
    times = [way.time for way in circle]
    known = [t for t in times if t is not None]
    spread = max(known) / min(known) if len(known) == len(times) else math.inf
    faster = [c for c, g in zip(circle, line, strict=True) if _sooner(c, g)]
    better = [
        c for c, g in zip(circle, line, strict=True) if (c.efficiency or 0) > (g.efficiency or 0)
    ]
    lost = [way for way in line if way.time is None]
    return {
        "closed": Claim(
            "a von Mises belief relaxes in its natural parameters, v = e^{\u2212\u03c4t} v\u2080 + "
            "(1 \u2212 e^{\u2212\u03c4t}) b/\u03c4, whatever angle it has to turn",
            f"largest deviation of {len(circle)} integrated flows {off:.1g} of v",
            held(off < EXACT),
            f"one flow off by {EXACT:g} of v; the integration resolves 1e-7",
        ),
        "even": Claim(
            "every angle is learned in the same time, within a factor of 2 (a conjecture: the rate "
            "\u03c4 does not depend on the angle)",
            f"from {number(min(known), 3)} to {number(max(known), 3)}, a factor of "
            f"{number(spread, 3)}"
            if math.isfinite(spread)
            else "not every belief arrived",
            held(spread < 2),
            "a factor of 2 between two angles; without noise in the flow any factor shows",
        ),
        "sooner": Claim(
            "the belief that knows that its parameter is an angle arrives first, from every angle "
            "(a conjecture)",
            f"first in {len(faster)} of {len(circle)}"
            + (
                f"; from {len(lost)} angles the Gaussian did not arrive by T = {PATIENCE:g}"
                if lost
                else "; the Gaussian arrives everywhere, last after "
                f"T = {number(max(w.time or 0.0 for w in line), 3)}"
            ),
            held(len(faster) == len(circle)),
            f"one angle of {len(circle)} at which the Gaussian arrives first; there is no noise",
        ),
        "efficient": Claim(
            "it is also nearer to its speed limit, from every angle (a conjecture)",
            f"in {len(better)} of {len(circle)}",
            held(len(better) == len(circle)),
            f"one angle of {len(circle)} at which the Gaussian is nearer to its own; there "
            "is no noise",
        ),
    }


def _sooner(circle: Way, line: Way) -> bool:
    return circle.time is not None and (line.time is None or circle.time < line.time)


def checks(findings: Findings) -> list[Check]:
    """Say what the distances had to find, whatever was learned."""
    ways = [way for way in findings.ways if way.efficiency is not None]
    top = max(ways, key=lambda way: way.efficiency or 0.0)
    return [
        Check(
            "T (F\u2080 \u2212 F_T) is at least d\u00b2 in the Fisher-Rao distance of each belief "
            "(Cauchy-Schwarz along the flow)",
            f"highest efficiency of {len(ways)} ways {number(top.efficiency or 0.0, 4)}, "
            f"{top.belief}, {top.turn:g}\u00b0",
            (top.efficiency or 0.0) <= 1 + 1e-9,
        )
    ]


def told(findings: Findings) -> list[str]:
    """Say what came out."""
    circle, line = by_belief(findings, CIRCLE), by_belief(findings, LINE)
    near, far = circle[0], circle[-1]
    last = [way for way in line if way.time is not None][-1]
    return [
        f"A von Mises belief that has to turn by {far.turn:g}\u00b0 takes "
        f"T = {number(far.time or math.nan, 3)} to within 1 % of the least free energy, and "
        f"T = {number(near.time or math.nan, 3)} for {near.turn:g}\u00b0: it widens on its way, "
        "through the uniform law where the angle is opposite, and narrows again.",
        f"A Gaussian belief takes T = {number(last.time or math.nan, 3)} from {last.turn:g}\u00b0: "
        "behind the hill of the loss its width grows, and a wide law on the line hardly feels the "
        "wave. A law on the circle can be no wider than uniform, and feels it still.",
    ]


def section(findings: Findings) -> Section:
    """Make the section of the page."""
    found = claims(findings)
    kinds = (CIRCLE, COLORS[0]), (LINE, COLORS[1])
    about = f"One noisy task per angle, {findings.points} points, \u03c4 = {TAU:g}."

    def series(name: str) -> list[Series]:
        return [
            Series(
                kind,
                [
                    (way.turn, getattr(way, name))
                    for way in by_belief(findings, kind)
                    if getattr(way, name) is not None
                ],
                color,
                "both",
            )
            for kind, color in kinds
        ]

    return Section(
        "angles",
        "Beliefs about an angle",
        told(findings),
        [
            plotted(
                series("time"),
                anchor="fig-angles-time",
                title="Learning time against the angle to turn",
                caption=f"Until 1 % of the free energy's excess is left. {about} "
                f"{found['sooner'].caption}",
                alt_text="Learning time against the angle, for a von Mises belief and for a "
                "Gaussian one.",
                x="angle to turn, degrees",
                y="learning time T",
                log_y=True,
                half=True,
            ),
            plotted(
                series("efficiency"),
                anchor="fig-angles-efficiency",
                title="Efficiency against the angle to turn",
                caption="Squared Fisher-Rao distance over T (F\u2080 \u2212 F_T), each belief in "
                f"its own geometry; no way has more than 1. {found['efficient'].caption}",
                alt_text="Thermodynamic efficiency against the angle, for both beliefs.",
                x="angle to turn, degrees",
                y="efficiency",
                half=True,
            ),
        ],
        [table(findings)],
        list(found.values()),
        checks(findings),
    )


def table(findings: Findings) -> Table:
    """List every way."""
    pairs = zip(by_belief(findings, CIRCLE), by_belief(findings, LINE), strict=True)
    return Table(
        caption="The way to within 1 % of the least free energy",
        columns=(
            "Angle",
            "Von Mises::T",
            "Von Mises::efficiency",
            "Von Mises::off the closed form",
            "Gaussian::T",
            "Gaussian::efficiency",
        ),
        rows=[
            (
                header_cell(f"{c.turn:g}\u00b0"),
                _cell(c.time),
                _cell(c.efficiency),
                Cell(f"{c.deviation or 0.0:.0e}"),
                _cell(g.time),
                _cell(g.efficiency),
            )
            for c, g in pairs
        ],
        remark=f"A dash did not arrive by T = {PATIENCE:g}.",
    )


def _cell(value: float | None) -> Cell:
    return Cell("\u2013" if value is None else number(value, 3))
