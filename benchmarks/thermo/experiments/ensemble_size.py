"""How many replicas does the speed limit need? Estimates of W2 and verdicts from N = 10 to 200.

Two ensembles. A Gaussian that a Langevin protocol takes along the Wasserstein geodesic, so that
T Sigma = W2^2 exactly: any estimator that puts W2^2 above the truth fakes a violation there, and
with T Sigma understated by half there is one to be found. And networks: an MLP on digits by
gradient descent from random initialisations, one ensemble of 200 cut into smaller ones.

Verdicts follow the rule of theory, section 5: violated only if the upper end of T Sigma lies below
the lower end of the trace bound; consistent if its lower end lies above the path coupling's upper
end; else inconclusive.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from thermo_drawing import value_of
from thermo_training import MLP, digits, first_samples, replicas, watched
from torch import Tensor

from capacity.config import Training
from capacity.dynamics.evaluate import evaluate
from capacity.estimate import Estimate, from_samples
from capacity.tasks.task import Task
from capacity.thermo.jackknife import jackknife, mean_without

SIZES = (10, 20, 50, 100, 200)
SHIFT_SQUARED, END_ROOTS, TAU, DURATION = 10.0, (0.7, 1.0), 0.2, 3.0
"""Of the Gaussian: |d mu|^2, range of the final standard deviations (the first are 1), tau, T."""


@dataclass(frozen=True, kw_only=True)
class GaussianSize:
    """Ensembles of one size on the geodesic; W2^2 estimates in units of its exact value.

    Attributes:
        count: N.
        trace: Trace bound, the lower one.
        path: Path coupling, the upper one.
        assignment: Exact assignment between independent samples of the two ends.
        bracketed: Share of ensembles whose [lower end of trace, upper end of path] holds W2^2.
        faked_assignment: Share in which T Sigma lies below the assignment.
        faked_rule: Share that the rule calls violated.
        caught: Share that the rule calls violated when T Sigma is understated by half.
    """

    count: int
    trace: Estimate
    path: Estimate
    assignment: Estimate
    bracketed: float
    faked_assignment: float
    faked_rule: float
    caught: float


@dataclass(frozen=True, kw_only=True)
class NetworkSize:
    """Ensembles of one size, cut from one large ensemble of networks.

    Attributes:
        count: N.
        ensembles: How many.
        inefficiency: Mean over the ensembles of the mean of T dL/|d theta|^2.
        half_width: Mean half-width of the 95 % interval, relative to the value.
        spread: Standard deviation of the ensembles' values, relative to their mean; None for one.
        by_path: T Sigma over the path coupling.
        by_trace: T Sigma over the trace bound.
        verdicts: How many ensembles are consistent, inconclusive, violated.
    """

    count: int
    ensembles: int
    inefficiency: Estimate
    half_width: float
    spread: float | None
    by_path: Estimate
    by_trace: Estimate
    verdicts: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that is printed and drawn.

    Attributes:
        dimension: P of the Gaussian.
        repeats: Ensembles of each size.
        w2_squared: Its exact W2^2.
        parameters: P of the networks.
        learning_time: T of the networks.
        gaussian: By size.
        networks: By size.
    """

    dimension: int
    repeats: int
    w2_squared: float
    parameters: int
    learning_time: float
    gaussian: list[GaussianSize]
    networks: list[NetworkSize]


def measured(
    task: Task | None = None,
    *,
    sizes: Sequence[int] = SIZES,
    dimension: int = 1000,
    repeats: int = 100,
    samples: int = 300,
    lr: float = 0.2,
    steps: int = 150,
) -> Findings:
    """Draw the Gaussian ensembles, and train the networks."""
    gaussian = []
    for count in sizes:
        print(f"Gaussian, N = {count}", file=sys.stderr)
        gaussian.append(geodesic_ensembles(count, dimension=dimension, repeats=repeats))
    task = first_samples(digits() if task is None else task, samples)
    print(f"{max(sizes)} networks", file=sys.stderr)
    size, networks = trained(task, sizes, lr=lr, steps=steps)
    return Findings(
        dimension=dimension,
        repeats=repeats,
        w2_squared=exact_w2(dimension),
        parameters=size,
        learning_time=lr * steps,
        gaussian=gaussian,
        networks=networks,
    )


def trace_bound(start: Tensor, moved: Tensor, sizes: Sequence[int]) -> tuple[float, Tensor]:
    """Lower bound |d mu|^2 + (sqrt tr S_0 - sqrt tr S_1)^2 of W2^2, summed over blocks.

    Args:
        start: theta_0 (N, P).
        moved: theta_T - theta_0 (N, P).
        sizes: Sizes of the blocks.

    Returns:
        The bound, |d mu|^2 as a U-statistic, and the bound without each replica (N,).
    """
    n = len(start)
    whole, without = 0.0, torch.zeros(n, dtype=torch.float64)
    start, moved = start.double(), moved.double()
    for a, d in zip(start.split(list(sizes), 1), moved.split(list(sizes), 1), strict=True):
        a = a - a.mean(0)
        squares, total = d.square().sum(-1), d.sum(0)
        drift = float(total @ total - squares.sum()) / (n * (n - 1))
        # Without i the sum loses d_i, and the squares lose |d_i|^2.
        less = total @ total - 2 * d @ total + squares
        less = (less - (squares.sum() - squares)) / ((n - 1) * (n - 2))
        roots, roots_less = zip(*(_root_trace(x) for x in (a, a + d)), strict=True)
        whole += drift + (roots[1] - roots[0]) ** 2
        without += less + (roots_less[1] - roots_less[0]) ** 2
    return whole, without


def _root_trace(x: Tensor) -> tuple[float, Tensor]:
    """Root of the trace of the sample covariance, whole and without each row."""
    n, total, squares = len(x), x.sum(0), x.square().sum(-1)
    whole = float(squares.sum() - total @ total / n) / (n - 1)
    less = total @ total - 2 * x @ total + squares
    left = (squares.sum() - squares - less / (n - 1)) / (n - 2)
    return math.sqrt(max(whole, 0.0)), left.clamp(min=0).sqrt()


def exact_w2(dimension: int) -> float:
    """W2^2 between the two ends of the Gaussian geodesic."""
    return SHIFT_SQUARED + float(((_end_roots(dimension) - 1) ** 2).sum())


def _end_roots(dimension: int) -> np.ndarray:
    return np.linspace(*END_ROOTS, dimension)


def geodesic_pair(
    count: int, dimension: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw both ends of particles on the geodesic, jointly, without time steps."""
    # d x = (mu' - k (x - mu)) dt + sqrt(2 tau) dW with k = tau/s - r'/r, r = sqrt(s) linear in t:
    # int k dt = tau T/(r_0 r_T) - ln(r_T/r_0), which is all that the joint law needs.
    end = _end_roots(dimension)
    kept = end * np.exp(-TAU * DURATION / end)
    first = rng.standard_normal((count, dimension))
    noise = rng.standard_normal((count, dimension))
    shift = math.sqrt(SHIFT_SQUARED / dimension)
    return first, shift + kept * first + np.sqrt(end**2 - kept**2) * noise


def geodesic_ensembles(count: int, *, dimension: int, repeats: int) -> GaussianSize:
    """Estimate W2^2 of many ensembles of one size, and judge each."""
    w2 = exact_w2(dimension)
    traces, paths, assigned = [], [], []
    bracketed = faked_rule = faked = caught = 0
    for seed in range(repeats):
        first, last = geodesic_pair(count, dimension, np.random.default_rng([count, seed]))
        start, end = torch.from_numpy(first), torch.from_numpy(last)
        low = jackknife(*trace_bound(start, end - start, [dimension]))
        squares = (end - start).square().sum(-1)
        high = jackknife(float(squares.mean()), mean_without(squares))
        # With the very same particles the best assignment is the path coupling, or close to it.
        other, _ = geodesic_pair(count, dimension, np.random.default_rng([count, seed, 1]))
        cost = torch.cdist(torch.from_numpy(other), end).square().numpy()
        match = float(cost[linear_sum_assignment(cost)].mean())
        traces.append(value_of(low) / w2)
        paths.append(value_of(high) / w2)
        assigned.append(match / w2)
        floor, ceiling = _ends(low)[0], _ends(high)[1]
        bracketed += floor <= w2 <= ceiling
        faked += match > w2
        faked_rule += w2 < floor
        caught += w2 / 2 < floor
    return GaussianSize(
        count=count,
        trace=from_samples(traces),
        path=from_samples(paths),
        assignment=from_samples(assigned),
        bracketed=bracketed / repeats,
        faked_assignment=faked / repeats,
        faked_rule=faked_rule / repeats,
        caught=caught / repeats,
    )


def trained(
    task: Task, sizes: Sequence[int], *, lr: float, steps: int
) -> tuple[int, list[NetworkSize]]:
    """Train as many networks as the largest size, and judge ensembles cut from them."""
    total = max(sizes)
    model, theta = replicas(MLP, task, total)
    training = Training(lr=lr, epochs=steps, batch_size=len(task.train))
    before = evaluate(model, theta, task, task.train).loss.double()
    done = watched(model, theta, task, training, full=True)
    assert done.cost is not None, "diverged"
    moved = done.theta.double() - theta.double()
    cost = done.cost.learning_time * (before - done.loss.double())
    blocks = [size for _, size in model.layout]
    return model.size, [
        _cut(theta, moved, cost, blocks, count, total // count) for count in sorted(sizes)
    ]


def _cut(
    theta: Tensor, moved: Tensor, cost: Tensor, blocks: list[int], count: int, ensembles: int
) -> NetworkSize:
    values, widths, by_path, by_trace = [], [], [], []
    verdicts = {"consistent": 0, "inconclusive": 0, "violated": 0}
    squares = moved.square().sum(-1)
    for k in range(ensembles):
        rows = slice(k * count, (k + 1) * count)
        own = cost[rows] / squares[rows]
        found = jackknife(float(own.mean()), mean_without(own))
        low, high = _ends(found)
        values.append(value_of(found))
        widths.append((high - low) / 2 / value_of(found))
        paid = jackknife(float(cost[rows].mean()), mean_without(cost[rows]))
        upper = jackknife(float(squares[rows].mean()), mean_without(squares[rows]))
        lower = jackknife(*trace_bound(theta[rows], moved[rows], blocks))
        by_path.append(value_of(paid) / value_of(upper))
        by_trace.append(value_of(paid) / value_of(lower))
        verdicts[_verdict(paid, lower, upper)] += 1
    several = len(values) > 1
    return NetworkSize(
        count=count,
        ensembles=ensembles,
        inefficiency=from_samples(values),
        half_width=math.fsum(widths) / ensembles,
        spread=float(np.std(values, ddof=1) / np.mean(values)) if several else None,
        by_path=from_samples(by_path),
        by_trace=from_samples(by_trace),
        verdicts=verdicts,
    )


def _verdict(paid: Estimate, lower: Estimate, upper: Estimate) -> str:
    if _ends(paid)[1] < _ends(lower)[0]:
        return "violated"
    return "consistent" if _ends(paid)[0] >= _ends(upper)[1] else "inconclusive"


def _ends(estimate: Estimate) -> tuple[float, float]:
    assert estimate.interval is not None
    return estimate.interval
