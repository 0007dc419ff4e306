"""From Langevin dynamics to gradient descent: high-dimensional regression against its closed form.

Teacher-student regression of appendix C of [S], arXiv 2307.14653: y = Z w*, d/n = gamma, prior
N(0, 1/lambda), Langevin dynamics at temperature gamma/beta until it has come to equilibrium;
beta -> infinity is gradient descent. The speed limit T_SL = W2^2/Sigma is known in closed form, and
printed wrongly in the source (its (79) omits a term).

Replicas move by the exact transition of their Ornstein-Uhlenbeck process, so that no step size is
in the result. W2^2 and Sigma are estimated from samples alone, in the eigenbasis of Z'Z (where the
laws are products) without bias, and, knowing nothing of it, as an interval: trace bound to path
coupling, with the diagonal Gaussian bound of the entropy.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, gammaln
from thermo_claims import ERRORS, Claim, Section, held, visible
from thermo_drawing import COLORS, Series, deviation, plotted, signed, value_of

from capacity.closed_forms import (
    marchenko_pastur_mean,
    regression_cost,
    sampled_regression_cost,
    zero_temperature_speed_limit,
)
from capacity.records.estimate import Estimate, from_samples
from capacity.records.number_format import Cell, cell, header_cell, say
from capacity.records.numbers import number
from capacity.report.charts import Figure
from capacity.report.tables import Table

ALPHA, LAMBDA = 1.0, 1.0
GAMMAS = (0.5, 2.0)
BETAS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 100.0, 1000.0)
TIME = 150.0
"""Learning time until equilibrium: the slowest mode has relaxed to e^-12."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Training to equilibrium at one noise level.

    Attributes:
        gamma: Parameters per sample.
        beta: Inverse temperature; None for gradient descent.
        closed: T_SL of the corrected closed form.
        printed: T_SL as (79) of the source prints it.
        simulated: T_SL from the samples, in the eigenbasis.
        ratio: The same over the closed form for the very spectrum of the data set.
        lower: Trace bound over Sigma with the raw coordinates' entropy bound.
        upper: Path coupling over Sigma.
    """

    gamma: float
    beta: float | None
    closed: float
    printed: float
    simulated: Estimate
    ratio: Estimate
    lower: Estimate
    upper: Estimate


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that is printed and drawn.

    Attributes:
        samples: n of the training set, for gamma = 1/2.
        replicas: Per data set.
        data_sets: Independent draws of Z and w*.
        runs: By gamma, noise falling, gradient descent last.
    """

    samples: int
    replicas: int
    data_sets: int
    runs: list[Run]


def measured(
    *,
    samples: int = 400,
    replicas: int = 200,
    data_sets: int = 40,
    betas: Sequence[float] = BETAS,
) -> Findings:
    """Train at every noise level."""
    runs = []
    for gamma in GAMMAS:
        # The larger of n and d is the same for both.
        n = samples if gamma <= 1 else round(samples / gamma)
        for beta in (*betas, None):
            print(f"gamma {gamma:g}, beta {beta}", file=sys.stderr)
            found = [
                trained(gamma, beta, n, replicas, np.random.default_rng([seed, len(runs)]))
                for seed in range(data_sets)
            ]
            simulated, ratio, lower, upper = (
                from_samples(column) for column in zip(*found, strict=True)
            )
            closed, printed = speed_limits(gamma, beta)
            runs.append(
                Run(
                    gamma=gamma,
                    beta=beta,
                    closed=closed,
                    printed=printed,
                    simulated=simulated,
                    ratio=ratio,
                    lower=lower,
                    upper=upper,
                )
            )
    return Findings(samples=samples, replicas=replicas, data_sets=data_sets, runs=runs)


def speed_limits(gamma: float, beta: float | None) -> tuple[float, float]:
    """T_SL in closed form: corrected, and as the source prints it."""
    if beta is None:
        # (8)/(80) of the source: 2 (1 + alpha lambda)/int s, int s = 1.
        return float(zero_temperature_speed_limit(gamma=gamma)), 2 * (1 + ALPHA * LAMBDA)
    cost = regression_cost(alpha=ALPHA, beta=beta, gamma=gamma, lam=LAMBDA)
    c = LAMBDA / beta
    missing = ALPHA / 2 * marchenko_pastur_mean(lambda s: s**2 / (c * gamma + s), gamma=gamma)
    printed = float(cost.w2_squared) / (float(cost.dissipation) - missing)
    return float(cost.speed_limit), printed


def trained(
    gamma: float, beta: float | None, n: int, replicas: int, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Train on one data set; T_SL from the samples, over its closed form, lower, upper bound."""
    d = round(gamma * n)
    z = rng.standard_normal((n, d))
    s, basis = np.linalg.eigh(z.T @ z / n)
    s = s.clip(min=0)
    # A teacher that is spread evenly over the eigenvectors, as the closed form has it.
    signal = math.sqrt(ALPHA) * rng.choice([-1.0, 1.0], d)
    tau, decay = (0.0, 0.0) if beta is None else (gamma / beta, LAMBDA / beta * gamma)
    rate = s + decay
    target = s * signal / np.where(rate > 0, rate, 1)
    first = rng.standard_normal((replicas, d)) / math.sqrt(LAMBDA)
    kept = np.exp(-rate * TIME)
    spread = np.sqrt(tau * -np.expm1(-2 * rate * TIME) / np.where(rate > 0, rate, 1))
    last = target + kept * (first - target) + spread * rng.standard_normal(first.shape)

    def potential(w: np.ndarray) -> float:
        loss = 0.5 * (s * (w - signal) ** 2).sum(-1)
        return float((loss + 0.5 * decay * (w**2).sum(-1)).mean())

    drop = potential(first) - potential(last)
    start_entropy = 0.5 * d * math.log(2 * math.pi * math.e / LAMBDA)
    sigma = drop + (tau * (_entropy(last) - start_entropy) if tau else 0.0)
    raw = drop + (tau * (_entropy(last @ basis.T) - start_entropy) if tau else 0.0)
    moved = last - first
    speed_limit = w2_from_known_start(last) / sigma
    return (
        speed_limit,
        speed_limit / _own_closed_form(s, gamma, beta),
        _trace_bound(first, last) / raw,
        float((moved**2).sum(-1).mean()) / sigma,
    )


def _own_closed_form(s: np.ndarray, gamma: float, beta: float | None) -> float:
    """T_SL of a data set with these eigenvalues of Z'Z/n."""
    if beta is None:
        seen = s > 1e-9 * s.max()
        return float((ALPHA + 1 / LAMBDA) * seen.sum() / (0.5 * (ALPHA + 1 / LAMBDA) * s.sum()))
    cost = sampled_regression_cost(eigenvalues=s, alpha=ALPHA, beta=beta, gamma=gamma, lam=LAMBDA)
    return float(cost.speed_limit)


def w2_from_known_start(last: np.ndarray) -> float:
    """W2^2 from the prior N(0, 1/lambda) to a product of Gaussians, from samples, unbiased."""
    # The mean enters as a U-statistic, the standard deviation with its own bias taken out.
    n = len(last)
    variance = last.var(0, ddof=1)
    drift = last.mean(0) ** 2 - variance / n
    c4 = math.sqrt(2 / (n - 1)) * math.exp(float(gammaln(n / 2) - gammaln((n - 1) / 2)))
    root = np.sqrt(variance) / c4
    narrowed = (root - LAMBDA**-0.5) ** 2 - variance * (c4**-2 - 1)
    return float((drift + narrowed).sum())


def _trace_bound(first: np.ndarray, last: np.ndarray) -> float:
    moved = last - first
    n, total = len(moved), moved.sum(0)
    drift = float(total @ total - (moved**2).sum()) / (n * (n - 1))
    roots = [math.sqrt(float(x.var(0, ddof=1).sum())) for x in (first, last)]
    return drift + (roots[1] - roots[0]) ** 2


def _entropy(x: np.ndarray) -> float:
    """Entropy of the diagonal Gaussian, without the bias of its logarithm."""
    n = len(x)
    bias = float(digamma((n - 1) / 2)) - math.log((n - 1) / 2)
    return float(0.5 * (np.log(2 * np.pi * np.e * x.var(0, ddof=1)) - bias).sum())


def claims(findings: Findings) -> dict[str, Claim]:
    """Hold theory against what came out."""
    noisy = [run for run in findings.runs if run.beta is not None]
    quiet = [run for run in findings.runs if run.beta is None]
    off = max(findings.runs, key=lambda r: abs(deviation(r.ratio, 1.0)))
    wide = max(noisy, key=lambda r: abs(deviation(r.simulated, r.closed)))
    printed = max(noisy, key=lambda r: abs(deviation(r.simulated, r.printed)))
    largest = max(abs(deviation(off.ratio, 1.0)), abs(deviation(wide.simulated, wide.closed)))
    limits = [abs(deviation(run.simulated, run.closed)) for run in quiet]
    return {
        "closed": Claim(
            "T_SL is [S] appendix C, with the term that its (79) omits",
            "simulated over closed form for the data set's own spectrum at worst "
            f"{say(off.ratio)} ({_where(off)}); for infinite size {say(wide.simulated)} where it "
            f"says {number(wide.closed, 4)}, {_where(wide)}: largest deviation {largest:.1f} "
            f"standard errors in {len(findings.runs)} runs",
            held(largest <= ERRORS),
            f"one run {ERRORS:g} standard errors off; an error of "
            f"{visible(r.ratio for r in findings.runs)} of T_SL would have shown in every run",
        ),
        "printed": Claim(
            "T_SL is [S] (79) as printed",
            f"{number(printed.printed, 3)} where {say(printed.simulated)} is measured "
            f"(\u03b3 = {printed.gamma:g}, \u03b2 = {printed.beta:g})",
            held(abs(deviation(printed.simulated, printed.printed)) <= ERRORS),
            f"one run {ERRORS:g} standard errors off; {visible(r.simulated for r in noisy)} of "
            "T_SL would have shown in every run",
        ),
        "limit": Claim(
            "as the noise vanishes T_SL goes to 2 min(1, 1/\u03b3)",
            " and ".join(
                f"{say(run.simulated)} at \u03b3 = {run.gamma:g} (limit {number(run.closed, 3)})"
                for run in quiet
            ),
            held(max(limits) <= ERRORS),
            f"gradient descent {ERRORS:g} standard errors off the limit, at either \u03b3; "
            f"{visible(r.simulated for r in quiet)} would have shown",
        ),
    }


def told(findings: Findings) -> list[str]:
    """Say what came out."""
    first, last = findings.runs[0], _of(findings, GAMMAS[0])[-1]
    wide = max(findings.runs, key=lambda r: value_of(r.upper) / value_of(r.lower))
    tight = min(findings.runs, key=lambda r: value_of(r.upper) / value_of(r.lower))
    worst = max(findings.runs, key=lambda r: abs(r.printed / r.closed - 1))
    found = claims(findings)
    return [
        f"From noisy to noise-free the speed limit of this regression (\u03b3 = {first.gamma:g}) "
        f"goes from {say(first.simulated)} at \u03b2 = {first.beta:g} to {say(last.simulated)} for "
        "gradient descent, along the corrected closed form; the printed one is off by up to "
        f"{number(100 * abs(worst.printed / worst.closed - 1), 2)} %.",
        f"The corrected form: {found['closed'].here}.",
        "Without the eigenbasis, T_SL is only known as an interval: from "
        f"{say(wide.lower)} to {say(wide.upper)} at its widest ({_where(wide)}), from "
        f"{say(tight.lower)} to {say(tight.upper)} at its tightest ({_where(tight)}). The noise "
        "widens it: it is in the path, and rotations hide what it narrows.",
    ]


def _where(run: Run) -> str:
    return f"\u03b3 = {run.gamma:g}, " + (
        "gradient descent" if run.beta is None else f"\u03b2 = {run.beta:g}"
    )


def _of(findings: Findings, gamma: float) -> list[Run]:
    return [run for run in findings.runs if run.gamma == gamma]


def section(findings: Findings) -> Section:
    """Make the section of the page."""
    found = claims(findings)
    return Section(
        "noise-level",
        "Noise level: Langevin to gradient descent",
        told(findings),
        [_figure(findings, gamma, found) for gamma in GAMMAS],
        [table(findings)],
        list(found.values()),
    )


def _figure(findings: Findings, gamma: float, found: dict[str, Claim]) -> Figure:
    runs = _of(findings, gamma)
    noisy = [run for run in runs if run.beta is not None]
    betas = [float(run.beta or 0) for run in noisy]
    grid = np.geomspace(betas[0] / 1.3, betas[-1] * 1.3, 61)
    curve = [(float(b), speed_limits(gamma, float(b))) for b in grid]
    ends = (float(grid[0]), float(grid[-1]))
    low = gamma < 1
    return plotted(
        [
            Series("as printed in the source", [(b, p) for b, (_, p) in curve], COLORS[1], "dash"),
            Series("closed form, corrected", [(b, v) for b, (v, _) in curve], COLORS[0], "line"),
            Series(
                "gradient descent, simulated",
                [(b, value_of(runs[-1].simulated)) for b in ends],
                COLORS[3],
                "dash",
            ),
            Series(
                "simulated",
                [(b, run.simulated) for b, run in zip(betas, noisy, strict=True)],
                COLORS[2],
            ),
        ],
        anchor=f"fig-noise-{'few' if low else 'many'}",
        title=f"Speed limit against noise, {'fewer' if low else 'more'} parameters than samples",
        caption=f"\u03b3 = d/n = {gamma:g}; \u03b2 grows as noise falls. "
        f"{findings.data_sets} data sets, {findings.replicas} replicas each. "
        + (found["closed"] if low else found["limit"]).caption
        + (f" {found['printed'].caption}" if low else ""),
        alt_text="Speed limit against inverse temperature on a logarithmic axis: simulated points "
        "on the corrected curve, which ends at the line of gradient descent; the printed curve "
        "lies far above.",
        x="inverse temperature \u03b2",
        y="T_SL",
        log_x=True,
        half=True,
    )


def table(findings: Findings) -> Table:
    """List every run."""
    return Table(
        caption="Speed limit T_SL, in learning time",
        columns=(
            "\u03b3",
            "\u03b2",
            "Closed form::corrected",
            "Closed form::as printed",
            "Simulated::T_SL",
            "Simulated::standard errors off",
            "Simulated::over own closed form",
            "Without the eigenbasis::lower",
            "Without the eigenbasis::upper",
        ),
        rows=[
            (
                header_cell(f"{run.gamma:g}"),
                Cell("gradient descent", numeric=False)
                if run.beta is None
                else Cell(f"{run.beta:g}", numeric=False),
                Cell(number(run.closed, 4)),
                Cell(number(run.printed, 4)),
                cell(run.simulated),
                Cell(signed(deviation(run.simulated, run.closed))),
                cell(run.ratio),
                cell(run.lower),
                cell(run.upper),
            )
            for run in findings.runs
        ],
        remark=f"\u03b1 = \u03bb = 1; max(n, d) = {findings.samples}; mean \u00b1 standard error "
        f"over {findings.data_sets} data sets of {findings.replicas} replicas. The closed form is "
        "for infinite n and d, the own one for the eigenvalues of each data set.",
    )
