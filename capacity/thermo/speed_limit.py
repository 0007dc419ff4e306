"""The Epistemic Speed Limit T Sigma >= W2^2 of an ensemble, judged (theory.md#speed-limit)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.base.checks import positive_float
from capacity.records.estimate import Estimate, Status, not_defined
from capacity.records.intervals import BOUND_LEVEL
from capacity.records.jackknife import Statistic
from capacity.records.notebook import InNotebook
from capacity.records.plain import Plain
from capacity.thermo.action import STILL, at_least_one, path_ratio
from capacity.thermo.dissipation import FOLDED, Cost, Dissipation, cost_of, heat_of
from capacity.thermo.ensemble_record import EnsembleRecord, Start
from capacity.thermo.free_energy import FreeEnergy, free_energy
from capacity.thermo.irreversibility import Irreversibility, irreversibility
from capacity.thermo.noisy_limit import NoisyLimit, noisy_limit
from capacity.thermo.signatures import Signature, signatures
from capacity.thermo.speed_limit_verdicts import (
    VIOLATION_LEVEL,
    Verdict,
    identity,
    judge_loss_drop,
    loss_rounding,
    missing_sigma,
    rule,
)
from capacity.thermo.wasserstein import Bracket, Distance, distance

COARSE = 0.1
"""Share of the action that checkpoints may miss without a warning."""


@dataclass(frozen=True, kw_only=True)
class SpeedLimit(Plain, InNotebook):
    """What it cost to move an ensemble, and what it would have cost at least.

    Attributes:
        verdict: For deterministic training `identity`, which no path can fail; what could have
            failed is judged consistent, inconclusive or violated (see `Verdict`).
        reason: Why, in one sentence.
        dynamics: What moved the ensemble.
        optimizer: Name of the update map.
        start: Law of the initial positions.
        replicas: N, without those that diverged.
        excluded: Which replicas diverged and when, in a sentence; empty if none did.
        learning_time: T, in the time in which the limit is meant.
        sigma: The Sigma that the verdict reads.
        route: Name of its route.
        dissipation: Sigma by every route.
        free_energy: F, E[L] and H at both ends.
        w2_squared: W2^2 from both sides.
        speed_limit: T_SL = W2^2/Sigma, from both sides.
        inefficiency: T Sigma/W2^2, from both sides.
        excess_cost: Sigma - W2^2/T, from both sides.
        per_replica: The inefficiency T sum |d theta_k|^2/dt_k / |theta_T - theta_0|^2, each replica
            a delta distribution, where W2 is exact; never below 1. The primary figure for random
            initialisation.
        per_replica_spread: Standard deviation of it over replicas.
        loss_drop_ratio: T dL/|theta_T - theta_0|^2 ([S] eq. 12), mean over replicas: what
            `per_replica` is for gradient flow; `out_of_regime` where the two do not agree.
        loss_drop_verdict: The limit with T E[dL] for T Sigma, which can fail; inconclusive out of
            its regime.
        length_over_chord: Curve length over |theta_T - theta_0|, mean over replicas.
        headline: `per_replica` or `inefficiency`: the figure to read first.
        signatures: The four failure signatures.
        noisy: The limit of training with thermal noise, for Langevin dynamics from one point.
        irreversibility: R in nats by three routes, for Langevin dynamics from a law with a density:
            how much the divergence from the Gibbs law fell.
        note: What else must be known; empty if nothing.
    """

    verdict: Verdict
    reason: str
    dynamics: str
    optimizer: str
    start: str
    replicas: int
    excluded: str
    learning_time: float
    sigma: Estimate
    route: str
    dissipation: Dissipation
    free_energy: FreeEnergy
    w2_squared: Bracket
    speed_limit: Bracket
    inefficiency: Bracket
    excess_cost: Bracket
    per_replica: Estimate
    per_replica_spread: float | None
    loss_drop_ratio: Estimate
    loss_drop_verdict: Verdict
    length_over_chord: Estimate
    headline: str
    signatures: tuple[Signature, ...]
    noisy: NoisyLimit | None = None
    irreversibility: Irreversibility | None = None
    note: str = ""


def judge(
    record: EnsembleRecord,
    *,
    level: float = BOUND_LEVEL,
    learning_time: float | None = None,
    violation_level: float = VIOLATION_LEVEL,
) -> SpeedLimit:
    """Judge the speed limit on one phase of an ensemble.

    Rule for what can fail, free energies and loss drops: violated only if the upper end of T Sigma
    lies below the lower end of the lower bound of W2^2, both at `violation_level`; consistent if T
    Sigma less the upper bound is not below 0; else inconclusive. For the action of deterministic
    paths the limit is an identity.

    Args:
        record: What was measured.
        level: Nominal coverage of the intervals that are shown.
        learning_time: T, if it is another than the record's: what a user claims, say.
        violation_level: Coverage of the two intervals that must not meet for a violation.

    Returns:
        The verdict with everything that it rests on.
    """
    if learning_time is not None:
        positive_float("learning_time", learning_time)
    cost = cost_of(record, level=level)
    moved = distance(record.end.grams, start=record.start)
    _warn_coarse(record, cost)
    time = learning_time or record.learning_time
    return settle(record, cost, moved, time, level=level, violation_level=violation_level)


def settle(
    record: EnsembleRecord,
    cost: Cost,
    moved: Distance,
    time: float,
    *,
    level: float = BOUND_LEVEL,
    violation_level: float = VIOLATION_LEVEL,
) -> SpeedLimit:
    """Hold a cost against a distance.

    Args:
        record: The last phase of what is judged; says who moved and how.
        cost: Sigma.
        moved: W2^2.
        time: T.
        level: Nominal coverage of the intervals that are shown.
        violation_level: Coverage of the two intervals that must not meet for a violation.

    Returns:
        The verdict with everything that it rests on.
    """
    w2 = moved.bracket(level)
    count = len(record.replicas)
    own = None if record.dynamics.noisy else record.series.action[-1] / record.time_scale
    if own is None:
        verdict, reason = rule(cost, moved, time, replicas=count, level=violation_level)
    else:
        verdict, reason = identity(record, own, moved, time)
    if record.excluded:
        reason = f"{record.excluded_note} Of the others: {verdict}. {reason}"
        verdict = Verdict.DIVERGED
    ratio = None if own is None else path_ratio(time, own, moved.squared)
    by_drop, drop_verdict = judge_loss_drop(record, cost, moved, time, level, violation_level)
    sigma = _sigma(cost, level)
    ratios = _ratios(cost.sigma, moved, time, level)
    primary = record.start is Start.COLD and ratio is not None and len(ratio) > 0
    return SpeedLimit(
        verdict=verdict,
        reason=reason,
        dynamics=str(record.dynamics),
        optimizer=record.optimizer,
        start=str(record.start),
        replicas=count,
        excluded=record.excluded_note,
        learning_time=time,
        sigma=sigma,
        route=cost.route,
        dissipation=cost.routes,
        free_energy=free_energy(record, level=level),
        w2_squared=w2,
        **ratios,
        per_replica=_per_replica(ratio, count, level),
        per_replica_spread=None if ratio is None or len(ratio) < 2 else float(ratio.std()),
        loss_drop_ratio=by_drop,
        loss_drop_verdict=drop_verdict,
        length_over_chord=_length_ratio(record, moved, level),
        headline="per_replica" if primary else "inefficiency",
        signatures=signatures(
            violated=verdict is Verdict.VIOLATED,
            sigma=sigma,
            w2=w2,
            inefficiency=ratios["inefficiency"],
        ),
        noisy=noisy_limit(record, moved, level=level, violation_level=violation_level),
        irreversibility=irreversibility(record, level=level),
        note=_note(record),
    )


def _ratios(
    sigma: Statistic | None, moved: Distance, time: float, level: float
) -> dict[str, Bracket]:
    """T_SL, inefficiency and excess cost, each from both sides of W2^2."""
    if sigma is None:
        none = not_defined("There is no Sigma.")
        nothing = Bracket(lower=none, upper=none)
        return dict.fromkeys(("speed_limit", "inefficiency", "excess_cost"), nothing)
    if not bool((moved.squared > 0).any()):
        still = not_defined(STILL)
        ratio = Bracket(lower=still, upper=still)
        paid_all = sigma.estimate(level=level)
        spent = Bracket(lower=paid_all, upper=paid_all)
        return {"speed_limit": ratio, "inefficiency": ratio, "excess_cost": spent}
    upper, lower = moved.upper, moved.upper if moved.exact else moved.lower
    open_end = Estimate(
        value=None,
        status=Status.NOT_RESOLVED,
        note="W2^2 is not held above 0, so this side is open.",
    )
    pinned = lower is not None and moved.bracket(level).lower.resolved

    def of(value: Statistic) -> Estimate:
        return value.estimate(level=level)

    paid = sigma * time
    return {
        "speed_limit": Bracket(
            lower=of(lower / sigma) if pinned and lower is not None else open_end,
            upper=of(upper / sigma),
        ),
        "inefficiency": Bracket(
            lower=of(paid / upper),
            upper=of(paid / lower) if pinned and lower is not None else open_end,
        ),
        "excess_cost": Bracket(
            lower=of(sigma - upper * (1 / time)),
            upper=of(sigma if lower is None else sigma - lower * (1 / time)),
        ),
    }


def _per_replica(ratio: Tensor | None, count: int, level: float) -> Estimate:
    if ratio is None:
        return not_defined(
            "A single replica of Langevin dynamics has no free energy: Sigma is a property of the "
            "ensemble."
        )
    if not len(ratio):
        return not_defined(STILL)
    stayed = count - len(ratio)
    note = f"{stayed} of {count} replicas did not move." if stayed else ""
    return at_least_one(Statistic.mean(ratio).estimate(level=level, note=note))


def _length_ratio(record: EnsembleRecord, moved: Distance, level: float) -> Estimate:
    if record.dynamics.noisy:
        return not_defined("The length of a noisy path grows with the number of steps.")
    went = moved.squared > 0
    if not bool(went.any()):
        return not_defined(STILL)
    ratio = record.series.length[-1][went] / moved.squared[went].sqrt()
    return at_least_one(Statistic.mean(ratio).estimate(level=level))


def _sigma(cost: Cost, level: float) -> Estimate:
    if cost.route == "free energy":
        return cost.routes.free_energy
    if cost.sigma is None:
        return not_defined(missing_sigma(cost))
    return cost.sigma.estimate(level=level, note=cost.routes.action.note)


def _note(record: EnsembleRecord) -> str:
    parts = [record.excluded_note]
    rose = int((heat_of(record) < -loss_rounding(record)).sum())
    if rose and not record.dynamics.noisy:
        parts.append(f"{rose} of {len(record.replicas)} replicas ended with a higher loss.")
    if record.folded and record.dynamics.noisy:
        parts.append(FOLDED)
    elif record.folded and record.series.log_det is not None:
        parts.append(
            "Some steps fold (lr times curvature above 1): the log-volume is an upper bound of the "
            "change of entropy."
        )
    return " ".join(part for part in parts if part)


def _warn_coarse(record: EnsembleRecord, cost: Cost) -> None:
    if len(record.checkpoints) < 2 or record.dynamics.noisy or cost.sigma is None:
        return
    coarse = cost.routes.checkpoints.value
    true = float(torch.mean(record.series.action[-1])) / record.time_scale
    if coarse is not None and coarse < (1 - COARSE) * true:
        warnings.warn(
            f"checkpoints are too coarse for an action: {len(record.checkpoints)} of them miss "
            f"{1 - coarse / true:.1%} of it. The sum over every step is reported; do not compute "
            "Sigma from these checkpoints.",
            stacklevel=3,
        )
