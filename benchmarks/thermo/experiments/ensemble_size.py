"""How many replicas does the speed limit need? Estimates of W2 and verdicts from N = 10 to 200.

Two ensembles. A Gaussian that a Langevin protocol takes along the Wasserstein geodesic, so that
T Sigma = W2^2 exactly: any estimator that puts W2^2 above the truth fakes a violation there, and
with T Sigma understated by half there is one to be found. And networks: an MLP on digits by
gradient descent from random initialisations, one ensemble of 200 cut into smaller ones. (The
networks' paths obey their own limit whatever they do, so only the Gaussian's verdicts are counted.)

Everything is measured with the package's own ensembles, bounds and rule (`capacity.thermo`).
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
from thermo_training import MLP, digits, first_samples, replicas

from capacity.optimizers.sgd import SGD
from capacity.records.estimate import Estimate, from_samples, not_defined
from capacity.records.intervals import BOUND_LEVEL
from capacity.records.jackknife import Statistic
from capacity.tasks.task import Task
from capacity.thermo.dissipation import Cost, Dissipation, cost_of
from capacity.thermo.ensemble import Ensemble
from capacity.thermo.ensemble_record import EnsembleRecord
from capacity.thermo.gram_matrices import layer_grams
from capacity.thermo.landscape import TaskLandscape
from capacity.thermo.speed_limit_verdicts import rule
from capacity.thermo.wasserstein import Distance, distance

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
        loss_drop_ratio: Mean over the ensembles of the mean of T dL/|d theta|^2.
        half_width: Mean half-width of the 95 % interval, relative to the value.
        spread: Standard deviation of the ensembles' values, relative to their mean; None for one.
        by_path: T Sigma over the path coupling.
        by_trace: T Sigma over the trace bound.
    """

    count: int
    ensembles: int
    loss_drop_ratio: Estimate
    half_width: float
    spread: float | None
    by_path: Estimate
    by_trace: Estimate


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
        moved = distance(layer_grams(start, end, {"theta": dimension}))
        sides = moved.bracket()
        # With the very same particles the best assignment is the path coupling, or close to it.
        other, _ = geodesic_pair(count, dimension, np.random.default_rng([count, seed, 1]))
        cost = torch.cdist(torch.from_numpy(other), end).square().numpy()
        match = float(cost[linear_sum_assignment(cost)].mean())
        traces.append(value_of(sides.lower) / w2)
        paths.append(value_of(sides.upper) / w2)
        assigned.append(match / w2)
        ends = sides.interval
        bracketed += ends is not None and ends[0] <= w2 <= ends[1]
        faked += match > w2
        faked_rule += verdict(known_cost(w2 / DURATION, count), moved, DURATION) == "violated"
        caught += verdict(known_cost(w2 / DURATION / 2, count), moved, DURATION) == "violated"
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


def known_cost(sigma: float, count: int) -> Cost:
    """A Sigma that is known, with nothing to estimate."""
    none = not_defined("Sigma is known here.")
    return Cost(
        sigma=Statistic(sigma, torch.full((count,), sigma, dtype=torch.float64)),
        route="known",
        certain=True,
        replicas=None,
        drop=torch.full((count,), sigma, dtype=torch.float64),
        routes=Dissipation(
            action=none,
            loss_drop=none,
            trapezoid=none,
            free_energy=none,
            noise=None,
            checkpoints=none,
        ),
    )


def verdict(cost: Cost, moved: Distance, time: float) -> str:
    """Apply the package's rule."""
    return str(rule(cost, moved, time, replicas=len(moved.squared))[0])


def trained(
    task: Task, sizes: Sequence[int], *, lr: float, steps: int
) -> tuple[int, list[NetworkSize]]:
    """Train as many networks as the largest size, and judge ensembles cut from them."""
    total = max(sizes)
    model, theta = replicas(MLP, task, total)
    landscape = TaskLandscape(model=model, task=task, batch_size=len(task.train))
    record = Ensemble(theta).learn(landscape, SGD(), [lr] * steps)
    assert not record.excluded, record.excluded_note
    return model.size, [_cut(record, count, total // count) for count in sorted(sizes)]


def _cut(record: EnsembleRecord, count: int, ensembles: int) -> NetworkSize:
    values, widths, by_path, by_trace = [], [], [], []
    time, whole = record.learning_time, cost_of(record, level=BOUND_LEVEL)
    assert whole.replicas is not None
    for k in range(ensembles):
        rows = torch.arange(k * count, (k + 1) * count)
        paid = whole.replicas[rows]
        grams = layer_grams(record.theta_start, record.theta[-1], dict(record.layout), rows=rows)
        moved = distance(grams)
        found = Statistic.mean(time * whole.drop[rows] / moved.squared).estimate()
        assert found.interval is not None
        values.append(value_of(found))
        widths.append((found.interval[1] - found.interval[0]) / 2 / value_of(found))
        by_path.append(time * float(paid.mean()) / moved.upper.value)
        assert moved.lower is not None
        by_trace.append(time * float(paid.mean()) / moved.lower.value)
    return NetworkSize(
        count=count,
        ensembles=ensembles,
        loss_drop_ratio=from_samples(values),
        half_width=math.fsum(widths) / ensembles,
        spread=float(np.std(values, ddof=1) / np.mean(values)) if ensembles > 1 else None,
        by_path=from_samples(by_path),
        by_trace=from_samples(by_trace),
    )
