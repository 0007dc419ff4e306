"""The Epistemic Speed Limit T Sigma >= W2^2, judged on a measured ensemble (theory, section 5)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from capacity.checks import positive_float
from capacity.estimate import Estimate, Status, not_defined
from capacity.notebook import InNotebook
from capacity.thermo.dissipation import Cost, Dissipation, cost_of
from capacity.thermo.ensemble_record import Dynamics, EnsembleRecord, Start
from capacity.thermo.free_energy import FreeEnergy, free_energy
from capacity.thermo.jackknife import LEVEL, Statistic, widened
from capacity.thermo.signatures import Signature, signatures
from capacity.thermo.wasserstein import Bracket, Distance, distance

VIOLATION_LEVEL = 0.9999
"""Coverage of the two intervals that must not meet for a violation: on a geodesic both sides are
equal, and at 95 % one ensemble in forty would be called a violation by chance."""
COARSE = 0.1
"""Share of the action that checkpoints may miss without a warning."""
_ROUNDING = 1e-6


class Verdict(StrEnum):
    """What a measured ensemble says about T Sigma >= W2^2."""

    CONSISTENT = "consistent"
    """T Sigma is at least the upper bound of W2^2, within the interval of the difference."""
    INCONCLUSIVE = "inconclusive"
    """T Sigma lies between the bounds, or one of them is missing."""
    VIOLATED = "violated"
    """T Sigma lies below the lower bound, beyond both intervals."""


@dataclass(frozen=True, kw_only=True)
class SpeedLimit(InNotebook):
    """What it cost to move an ensemble, and what it would have cost at least.

    Attributes:
        verdict: Consistent, inconclusive or violated.
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
        per_replica: T Sigma_i/|theta_T - theta_0|^2, each replica a delta distribution, where W2 is
            exact ([S] eq. 12); with the loss drop for plain gradients, the action else. The
            primary figure for random initialisation.
        per_replica_spread: Standard deviation of it over replicas.
        length_over_chord: Curve length over |theta_T - theta_0|, mean over replicas.
        headline: `per_replica` or `inefficiency`: the figure to read first.
        signatures: The four failure signatures.
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
    length_over_chord: Estimate
    headline: str
    signatures: tuple[Signature, ...]
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types.

        Returns:
            One entry per attribute.
        """
        made: dict[str, Any] = {}
        for name, value in vars(self).items():
            if name == "signatures":
                made[name] = [s.to_dict() for s in value]
            else:
                made[name] = value.to_dict() if hasattr(value, "to_dict") else value
        return {**made, "verdict": str(self.verdict)}


def judge(
    record: EnsembleRecord,
    *,
    level: float = LEVEL,
    learning_time: float | None = None,
    violation_level: float = VIOLATION_LEVEL,
) -> SpeedLimit:
    """Judge the speed limit on one phase of an ensemble.

    Rule: violated only if the upper end of T Sigma lies below the lower end of the lower bound of
    W2^2, both at `violation_level`; consistent if T Sigma less the upper bound is not below 0; else
    inconclusive.

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
    level: float = LEVEL,
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
    verdict, reason = rule(cost, moved, time, replicas=len(record.replicas), level=violation_level)
    sigma = _sigma(cost, level)
    ratios = _ratios(cost.sigma, moved, time, level)
    own = _per_replica(record, cost, moved, time)
    primary = record.start is Start.COLD and own is not None
    return SpeedLimit(
        verdict=verdict,
        reason=reason,
        dynamics=str(record.dynamics),
        optimizer=record.optimizer,
        start=str(record.start),
        replicas=len(record.replicas),
        excluded=record.excluded_note,
        learning_time=time,
        sigma=sigma,
        route=cost.route,
        dissipation=cost.routes,
        free_energy=free_energy(record, level=level),
        w2_squared=w2,
        **ratios,
        per_replica=_over_replicas(own, record, level),
        per_replica_spread=None if own is None or len(own) < 2 else float(own.std()),
        length_over_chord=_length_ratio(record, moved, level),
        headline="per_replica" if primary else "inefficiency",
        signatures=signatures(
            violated=verdict is Verdict.VIOLATED,
            sigma=sigma,
            w2=w2,
            inefficiency=ratios["inefficiency"],
        ),
        note=_note(record),
    )


def rule(
    cost: Cost,
    moved: Distance,
    time: float,
    *,
    replicas: int,
    level: float = VIOLATION_LEVEL,
) -> tuple[Verdict, str]:
    """Apply the rule of `judge`.

    Args:
        cost: Sigma.
        moved: W2^2.
        time: T.
        replicas: N.
        level: Coverage of the two intervals that must not meet for a violation.

    Returns:
        The verdict, and why.
    """
    if cost.sigma is None:
        return Verdict.INCONCLUSIVE, f"Sigma is not known here: {_missing(cost)}"
    if replicas < 2:
        return Verdict.INCONCLUSIVE, (
            "One replica has no law: its own path obeys T Sigma >= |d theta|^2, and nothing can be "
            "said about an ensemble. Train at least 4."
        )
    paid = cost.sigma * time
    lower = moved.upper if moved.exact else moved.lower
    if lower is not None and cost.certain:
        high = widened(paid.estimate(), level)[1]
        low = widened(lower.estimate(), level)[0]
        if high < low - _ROUNDING * abs(low):
            return Verdict.VIOLATED, (
                f"T Sigma is at most {high:.4g}, W2^2 at least {low:.4g} (each at {level:.2%})."
            )
    slack = widened((paid - moved.upper).estimate(), LEVEL)[0]
    if cost.certain and slack >= -_ROUNDING * abs(moved.upper.value):
        return Verdict.CONSISTENT, "T Sigma is at least the path coupling, which bounds W2^2."
    if not cost.certain:
        return Verdict.INCONCLUSIVE, "Sigma is uncalibrated here; read its routes."
    return (
        Verdict.INCONCLUSIVE,
        "T Sigma is not below the lower bound of W2^2, nor surely above the upper one.",
    )


def _ratios(
    sigma: Statistic | None, moved: Distance, time: float, level: float
) -> dict[str, Bracket]:
    """T_SL, inefficiency and excess cost, each from both sides of W2^2."""
    if sigma is None:
        none = not_defined("There is no Sigma.")
        nothing = Bracket(lower=none, upper=none)
        return dict.fromkeys(("speed_limit", "inefficiency", "excess_cost"), nothing)
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


def _per_replica(record: EnsembleRecord, cost: Cost, moved: Distance, time: float) -> Tensor | None:
    """T Sigma_i/|d_i|^2 of every replica that moved."""
    if record.dynamics.noisy:
        return None
    plain = record.dynamics in {Dynamics.GRADIENT, Dynamics.MINIBATCH}
    own = cost.drop if plain else record.series.action[-1] / record.time_scale
    went = moved.squared > 0
    return time * own[went] / moved.squared[went] if bool(went.any()) else None


def _over_replicas(own: Tensor | None, record: EnsembleRecord, level: float) -> Estimate:
    if record.dynamics.noisy:
        return not_defined(
            "A single replica of Langevin dynamics has no free energy: Sigma is a property of the "
            "ensemble."
        )
    if own is None:
        return not_defined("No replica moved.")
    return Statistic.mean(own).estimate(level=level)


def _length_ratio(record: EnsembleRecord, moved: Distance, level: float) -> Estimate:
    if record.dynamics.noisy:
        return not_defined("The length of a noisy path grows with the number of steps.")
    went = moved.squared > 0
    if not bool(went.any()):
        return not_defined("No replica moved.")
    ratio = record.series.length[-1][went] / moved.squared[went].sqrt()
    return Statistic.mean(ratio).estimate(level=level)


def _sigma(cost: Cost, level: float) -> Estimate:
    if cost.route == "free energy":
        return cost.routes.free_energy
    if cost.sigma is None:
        return not_defined(_missing(cost))
    return cost.sigma.estimate(level=level, note=cost.routes.action.note)


def _missing(cost: Cost) -> str:
    free = cost.routes.free_energy
    return free.note or cost.routes.action.note


def _note(record: EnsembleRecord) -> str:
    parts = [record.excluded_note]
    if record.folds is not None and bool((record.folds > 0).any()):
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
