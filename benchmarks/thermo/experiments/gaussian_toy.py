"""A Gaussian in two dimensions, driven by Langevin dynamics: the speed limit where all is known.

An ensemble of particles is taken from one Gaussian to another in the time T by a whole family of
protocols: w = 0 relaxes in a fixed quadratic potential, w = 1 follows the Wasserstein geodesic, and
in between mean and standard deviation are mixed linearly. The cost of a mixture is known,
T Sigma = W2^2 + (1 - w)^2 (T Sigma_relaxation - W2^2); the simulated cost is the work done on the
particles minus the change of their free energy, with the entropy from their sample variances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import digamma
from thermo_claims import ERRORS, Claim, Section, held, visible
from thermo_drawing import COLORS, Series, deviation, plotted, signed, value_of

from capacity.closed_forms import ornstein_uhlenbeck
from capacity.records.estimate import Estimate, from_samples
from capacity.records.number_format import Cell, cell, header_cell, say
from capacity.records.numbers import number
from capacity.report.tables import Table

START_MEAN, START_VARIANCE = np.zeros(2), np.array([1.0, 0.3])
RATE, TARGET, TAU = np.array([1.5, 0.6]), np.array([2.0, -1.0]), 0.15


@dataclass(frozen=True, kw_only=True)
class Run:
    """One protocol, simulated.

    Attributes:
        duration: T.
        weight: w, from relaxation (0) to geodesic (1).
        w2_squared: W2^2 of the ends, exact.
        exact: T Sigma/W2^2, exact.
        simulated: The same from the particles.
        path: Mean |x_T - x_0|^2/W2^2, the noisy upper bound.
        trace: Trace bound of the particles' two laws over W2^2, the lower bound.
    """

    duration: float
    weight: float
    w2_squared: float
    exact: float
    simulated: Estimate
    path: Estimate
    trace: Estimate


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that is printed and drawn.

    Attributes:
        particles: Per ensemble.
        ensembles: Independent repeats.
        steps: Euler steps of each run.
        mixtures: Runs of one duration, w from 0 to 1.
        durations: Runs at w = 0 and w = 1, T varied.
    """

    particles: int
    ensembles: int
    steps: int
    mixtures: list[Run]
    durations: list[Run]


def measured(*, particles: int = 500, ensembles: int = 40, steps: int = 1600) -> Findings:
    """Simulate every protocol."""

    def run(duration: float, weight: float) -> Run:
        return simulated(duration, weight, particles=particles, ensembles=ensembles, steps=steps)

    return Findings(
        particles=particles,
        ensembles=ensembles,
        steps=steps,
        mixtures=[run(3.0, w) for w in (0.0, 0.25, 0.5, 0.75, 1.0)],
        durations=[run(t, w) for t in (0.5, 1.0, 2.0, 4.0, 8.0) for w in (0.0, 1.0)],
    )


@dataclass(frozen=True)
class Protocol:
    """Means and deviations of a mixed protocol at some times, and their rates; all (times, 2)."""

    mean: np.ndarray
    root: np.ndarray
    mean_rate: np.ndarray
    root_rate: np.ndarray


def protocol(duration: float, weight: float, times: np.ndarray) -> Protocol:
    """Mix the relaxation with the geodesic between its ends."""
    t = np.append(times, duration)[:, None]
    law = ornstein_uhlenbeck(
        rate=RATE,
        target=TARGET,
        temperature=TAU,
        mean=START_MEAN,
        variance=START_VARIANCE,
        time=t,
    )
    mean, root = law.mean, np.sqrt(law.variance)
    mean_rate = RATE * (TARGET - mean)
    root_rate = TAU / root - RATE * root
    start = (START_MEAN, np.sqrt(START_VARIANCE))
    parts = []
    for first, values, rates in ((start[0], mean, mean_rate), (start[1], root, root_rate)):
        chord = (values[-1] - first) / duration
        straight = first + chord * t
        parts.append(((1 - weight) * values + weight * straight)[:-1])
        parts.append(((1 - weight) * rates + weight * chord)[:-1])
    return Protocol(parts[0], parts[2], parts[1], parts[3])


def exact_inefficiency(duration: float, weight: float) -> tuple[float, float]:
    """W2^2 of the ends, and T Sigma/W2^2 of the mixture."""
    law = ornstein_uhlenbeck(
        rate=RATE,
        target=TARGET,
        temperature=TAU,
        mean=START_MEAN,
        variance=START_VARIANCE,
        time=duration,
    )
    w2 = float(law.w2_squared.sum())
    gap = duration * float(law.dissipation.sum()) - w2
    return w2, 1 + (1 - weight) ** 2 * gap / w2


def simulated(
    duration: float, weight: float, *, particles: int, ensembles: int, steps: int, seed: int = 0
) -> Run:
    """Drive ensembles of particles and settle their energy accounts."""
    rng = np.random.default_rng([seed, round(1000 * duration), round(1000 * weight)])
    dt = duration / steps
    grid = protocol(duration, weight, np.arange(steps + 1) * dt)
    middle = protocol(duration, weight, (np.arange(steps) + 0.5) * dt)
    x = START_MEAN + np.sqrt(START_VARIANCE) * rng.standard_normal((ensembles, particles, 2))
    first = x.copy()

    def potential(p: Protocol, k: int, at: np.ndarray) -> np.ndarray:
        away = at - p.mean[k]
        stiffness = TAU / p.root[k] ** 2 - p.root_rate[k] / p.root[k]
        return (0.5 * stiffness * away**2 - p.mean_rate[k] * away).sum(-1)

    free = -potential(grid, 0, x).mean(1) + TAU * _entropy(x)
    work = np.zeros(ensembles)
    for k in range(steps):
        stiffness = TAU / middle.root[k] ** 2 - middle.root_rate[k] / middle.root[k]
        force = middle.mean_rate[k] - stiffness * (x - middle.mean[k])
        x = x + dt * force + np.sqrt(2 * TAU * dt) * rng.standard_normal(x.shape)
        work += (potential(grid, k + 1, x) - potential(grid, k, x)).mean(1)
    free += potential(grid, steps, x).mean(1) - TAU * _entropy(x)
    w2, exact = exact_inefficiency(duration, weight)
    moved = x - first
    total = moved.sum(1)
    pairs = particles * (particles - 1)
    drift = ((total**2).sum(-1) - (moved**2).sum((1, 2))) / pairs
    roots = [np.sqrt(at.var(1, ddof=1).sum(-1)) for at in (first, x)]
    return Run(
        duration=duration,
        weight=weight,
        w2_squared=w2,
        exact=exact,
        simulated=from_samples((duration * (work - free) / w2).tolist()),
        path=from_samples(((moved**2).sum(-1).mean(1) / w2).tolist()),
        trace=from_samples(((drift + (roots[1] - roots[0]) ** 2) / w2).tolist()),
    )


def _entropy(x: np.ndarray) -> np.ndarray:
    """Entropy of the diagonal Gaussian, without the bias of its logarithm."""
    n = x.shape[1]
    bias = digamma((n - 1) / 2) - np.log((n - 1) / 2)
    return 0.5 * (np.log(2 * np.pi * np.e * x.var(1, ddof=1)) - bias).sum(-1)


def off(findings: Findings) -> float:
    """The largest deviation of a simulated cost from the exact one, in standard errors."""
    runs = [*findings.mixtures, *findings.durations]
    return max(abs(deviation(r.simulated, r.exact)) for r in runs)


def claims(findings: Findings) -> dict[str, Claim]:
    """Hold theory against what came out."""
    runs = [*findings.mixtures, *findings.durations]
    straight = [run for run in runs if run.weight == 1]
    worst = max(straight, key=lambda r: abs(deviation(r.simulated, 1.0)))
    bracket = bracketed(findings)
    return {
        "gap": Claim(
            "T\u03a3 = W2\u00b2 + (1 \u2212 w)\u00b2 (T\u03a3 of relaxation \u2212 W2\u00b2)",
            f"largest deviation of {len(runs)} runs {off(findings):.1f} standard errors",
            held(off(findings) <= ERRORS),
            f"one run {ERRORS:g} standard errors off the parabola; a cost that is "
            f"{visible(r.simulated for r in runs)} off would have shown in every run",
        ),
        "geodesic": Claim(
            "the geodesic costs T\u03a3 = W2\u00b2 exactly, for every T",
            f"farthest of {len(straight)} runs {say(worst.simulated)} at T = {worst.duration:g}",
            held(abs(deviation(worst.simulated, 1.0)) <= ERRORS),
            f"one run {ERRORS:g} standard errors from 1; {visible(r.simulated for r in straight)} "
            "off would have shown in every run",
        ),
        "bracket": Claim(
            "W2\u00b2 lies between the trace bound and the path coupling",
            f"in {bracket} of {len(runs)} runs",
            held(bracket == len(runs)),
            f"one run in which the trace bound lies above W2\u00b2 by {ERRORS:g} standard errors, "
            "or the coupling below it; a bound that is "
            f"{visible([b for r in runs for b in (r.trace, r.path)])} on the wrong side would have "
            "shown in every run",
        ),
    }


def bracketed(findings: Findings) -> int:
    """Count the runs whose two bounds hold W2^2 between them."""
    return sum(
        value_of(r.trace) <= 1 + 3 * (r.trace.stderr or 0) and value_of(r.path) >= 1
        for r in [*findings.mixtures, *findings.durations]
    )


def told(findings: Findings) -> list[str]:
    """Say what came out."""
    first, last = findings.mixtures[0], findings.mixtures[-1]
    slow = max(findings.durations, key=lambda r: r.exact)
    runs = [*findings.mixtures, *findings.durations]
    return [
        f"Relaxing in a fixed potential costs {number(first.exact, 3)} times the speed limit; as "
        "the protocol is bent towards the Wasserstein geodesic the gap closes, to "
        f"T\u03a3/W2\u00b2 = {say(last.simulated)} on the geodesic itself, where theory says 1.",
        f"Waiting makes relaxation worse: at T = {slow.duration:g} it needs "
        f"{number(slow.exact, 3)} times the limit. The geodesic stays at the limit for every T.",
        f"W2\u00b2 is between the trace bound and the path coupling in {bracketed(findings)} of "
        f"{len(runs)} runs. The path coupling holds the particles' heat noise: at "
        f"T = {last.duration:g} on the geodesic it says {say(last.path)} times W2\u00b2, "
        "so the coupling alone would call an optimal protocol faster than possible.",
    ]


def section(findings: Findings) -> Section:
    """Make the section of the page."""
    weights = np.linspace(0, 1, 41)
    duration = findings.mixtures[0].duration
    curve = [(float(w), exact_inefficiency(duration, w)[1]) for w in weights]
    times = np.geomspace(0.4, 10, 41)
    relaxation = [r for r in findings.durations if r.weight == 0]
    geodesic = [r for r in findings.durations if r.weight == 1]
    found = claims(findings)
    return Section(
        "gaussian",
        "A Gaussian, where all is known",
        told(findings),
        [
            plotted(
                [
                    Series("closed form", curve, COLORS[0], "line"),
                    Series(
                        "simulated",
                        [(r.weight, r.simulated) for r in findings.mixtures],
                        COLORS[1],
                    ),
                ],
                anchor="fig-gaussian-mixture",
                title="The gap closes on the geodesic",
                caption=f"T\u03a3/W2\u00b2 at T = {duration:g} from relaxation (w = 0) to "
                f"geodesic (w = 1); {findings.ensembles} ensembles of {findings.particles} "
                f"particles. {found['gap'].caption}",
                alt_text="Inefficiency against the weight of the geodesic: a parabola that falls "
                "to 1 at w = 1, with simulated points on it.",
                x="weight w of the geodesic",
                y="T\u03a3 / W2\u00b2",
                one=True,
                half=True,
            ),
            plotted(
                [
                    Series(
                        "relaxation, closed form",
                        [(float(t), exact_inefficiency(t, 0.0)[1]) for t in times],
                        COLORS[0],
                        "line",
                    ),
                    Series(
                        "relaxation, simulated",
                        [(r.duration, r.simulated) for r in relaxation],
                        COLORS[1],
                    ),
                    Series(
                        "geodesic, simulated",
                        [(r.duration, r.simulated) for r in geodesic],
                        COLORS[2],
                    ),
                ],
                anchor="fig-gaussian-duration",
                title="Inefficiency against learning time",
                caption="A relaxation that has arrived still spends time: its inefficiency grows "
                f"in proportion to T. The geodesic uses all of it. {found['geodesic'].caption}",
                alt_text="Inefficiency against learning time on a logarithmic axis: rising for "
                "relaxation, 1 for the geodesic.",
                x="learning time T",
                y="T\u03a3 / W2\u00b2",
                log_x=True,
                one=True,
                half=True,
            ),
        ],
        [table(findings)],
        list(found.values()),
    )


def table(findings: Findings) -> Table:
    """List every run."""
    return Table(
        caption="Every run, in units of the exact W2\u00b2",
        columns=(
            "Protocol",
            "T",
            "W2\u00b2",
            "T\u03a3::closed form",
            "T\u03a3::simulated",
            "T\u03a3::deviation, standard errors",
            "Bounds of W2\u00b2::trace, lower",
            "Bounds of W2\u00b2::path, upper",
        ),
        rows=[
            (
                header_cell(f"w = {run.weight:g}"),
                Cell(f"{run.duration:g}"),
                Cell(number(run.w2_squared, 4)),
                Cell(number(run.exact, 4)),
                cell(run.simulated),
                Cell(signed(deviation(run.simulated, run.exact))),
                cell(run.trace),
                cell(run.path),
            )
            for run in [*findings.mixtures, *findings.durations]
        ],
        remark=f"{findings.ensembles} ensembles of {findings.particles} particles, "
        f"{findings.steps} steps; mean \u00b1 standard error over ensembles.",
    )
