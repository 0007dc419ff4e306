"""W2^2 between where an ensemble was and where it is, from below and from above.

With N samples in P dimensions the distance itself is out of reach; its two sides are not
(theory.md#wasserstein-bounds). From above: the coupling that the paths themselves are. From below:
the trace bound of Gelbrich, per block of theta, with the unbiased square of the mean displacement.
Assignment across samples, Bures distances of sample covariances and Sinkhorn divergences lie on
neither side.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from capacity.records.estimate import Estimate, Status
from capacity.records.intervals import BOUND_LEVEL
from capacity.records.jackknife import Statistic
from capacity.records.plain import Plain
from capacity.thermo.ensemble_record import Start
from capacity.thermo.gram_matrices import LayerGrams

FEWEST = 4
"""Replicas below which a trace without one of them says nothing."""


@dataclass(frozen=True, kw_only=True)
class Bracket(Plain):
    """A number that is known from both sides.

    Attributes:
        lower: Estimate of something that is at most the number.
        upper: Estimate of something that is at least the number.
    """

    lower: Estimate
    upper: Estimate

    @property
    def interval(self) -> tuple[float, float] | None:
        """Lower end of `lower` to upper end of `upper`; None where a side has none."""
        ends = [_end(self.lower, 0), _end(self.upper, 1)]
        return None if None in ends else (ends[0], ends[1])  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True, eq=False)
class Distance:
    """Both sides of W2^2, as statistics of the ensemble.

    Attributes:
        upper: Path coupling: mean |theta_t - theta_0|^2.
        lower: Trace bound, its bias taken off; None for fewer than 4 replicas.
        squared: |theta_t - theta_0|^2 of every replica (N,).
        exact: Whether W2^2 is the path coupling, since all replicas start at one point.
    """

    upper: Statistic
    lower: Statistic | None
    squared: Tensor
    exact: bool

    def bracket(self, level: float = BOUND_LEVEL) -> Bracket:
        """Give both sides their jackknife intervals.

        Args:
            level: Nominal coverage of each side.

        Returns:
            W2^2 between its sides.
        """
        upper = self.upper.estimate(level=level, note="Path coupling: W2^2 is at most this.")
        if self.exact:
            note = "Every replica starts at one point: W2^2 is the mean squared displacement."
            return Bracket(lower=self.upper.estimate(level=level, note=note), upper=upper)
        if self.lower is None:
            few = f"{len(self.squared)} replicas do not bound W2^2 from below; take at least 4."
            return Bracket(
                lower=Estimate(value=None, status=Status.NOT_RESOLVED, note=few), upper=upper
            )
        lower = self.lower.estimate(level=level, note="Trace bound: W2^2 is at least this.")
        if lower.interval is not None and lower.interval[0] <= 0:
            lower = self.lower.estimate(
                level=level,
                status=Status.NOT_RESOLVED,
                note="The trace bound is not told from 0: these replicas do not pin W2^2 from "
                "below.",
            )
        return Bracket(lower=lower, upper=upper)


def distance(grams: LayerGrams, *, start: Start = Start.COLD) -> Distance:
    """Bound W2^2 of an ensemble's displacement.

    Args:
        grams: Gram matrices of [theta_0 - mean; displacement], per block.
        start: Law of theta_0.

    Returns:
        Both sides.
    """
    squared = grams.moved.diagonal(dim1=-2, dim2=-1).sum(0)
    return Distance(
        upper=Statistic.mean(squared),
        lower=trace_bound(grams).unbiased() if grams.count >= FEWEST else None,
        squared=squared,
        exact=start is Start.DELTA,
    )


def trace_bound(grams: LayerGrams) -> Statistic:
    """Sum |d mu|^2 + (sqrt tr S_0 - sqrt tr S_t)^2 over the blocks of theta.

    |d mu|^2 is the U-statistic (|sum_i d_i|^2 - sum_i |d_i|^2)/(N (N-1)), which is unbiased.

    Args:
        grams: Gram matrices, of at least 4 replicas.

    Returns:
        The bound, as it comes; the squared difference of roots is biased upward by O(1/N).
    """
    n, moved = grams.count, grams.moved
    whole, rows = moved.sum((-2, -1)), moved.sum(-1)
    own = moved.diagonal(dim1=-2, dim2=-1)
    drift = (whole - own.sum(-1)) / (n * (n - 1))
    # Without i the double sum loses row and column i, and the squares lose |d_i|^2.
    left = whole[:, None] - 2 * rows + own - (own.sum(-1, keepdim=True) - own)
    drift_left = left / ((n - 1) * (n - 2))
    end = grams.start + grams.cross + grams.cross.mT + moved
    (first, first_left), (last, last_left) = _root_trace(grams.start), _root_trace(end)
    return Statistic(
        float((drift + (last - first).square()).sum()),
        (drift_left + (last_left - first_left).square()).sum(0),
    )


def assignment(grams: LayerGrams) -> Estimate:
    """Exact assignment of the end's samples to the start's, for comparison only.

    Its mean is at least W2^2, and far above it in many dimensions: 20 times at P = 1e5 with N = 100
    (theory.md#wasserstein-bounds). On the same replicas it is at most the path coupling. No verdict
    reads it.

    Args:
        grams: Gram matrices.

    Returns:
        The mean cost of the best assignment; uncalibrated.
    """
    from scipy.optimize import linear_sum_assignment  # a run without ensembles never asks

    g = grams.total()
    a, cross, d = g.start[0], g.cross[0], g.moved[0]
    b = a + cross + cross.T + d
    cost = a.diagonal()[:, None] + b.diagonal()[None, :] - 2 * (a + cross)
    rows, columns = linear_sum_assignment(cost.numpy())
    return Estimate(
        value=float(cost[rows, columns].mean()),
        n=grams.count,
        status=Status.UNCALIBRATED,
        note="Cross-sample assignment is biased upward by up to many times W2^2: no bound to test "
        "against.",
    )


def _root_trace(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Root of the trace of the sample covariance per block (L,), and without each row (L, N)."""
    n, whole, rows = gram.shape[-1], gram.sum((-2, -1)), gram.sum(-1)
    own = gram.diagonal(dim1=-2, dim2=-1)
    trace = (own.sum(-1) - whole / n) / (n - 1)
    left = whole[:, None] - 2 * rows + own
    trace_left = (own.sum(-1, keepdim=True) - own - left / (n - 1)) / (n - 2)
    return trace.clamp(min=0).sqrt(), trace_left.clamp(min=0).sqrt()


def _end(estimate: Estimate, side: int) -> float | None:
    if estimate.value is None:
        return None
    return estimate.value if estimate.interval is None else estimate.interval[side]
