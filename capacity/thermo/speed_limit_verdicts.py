"""Verdicts on T Sigma >= W2^2: what cannot fail is called an identity, what can is judged.

Where Sigma is the action of deterministic paths, the limit is Cauchy-Schwarz: no training can break
it, and that it holds checks the meter alone. What can fail is the free energy of Langevin dynamics,
and the loss drop where it stands for the action.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

import torch
from torch import Tensor

from capacity.optimizers.dynamics import Dynamics
from capacity.records.estimate import Estimate, not_defined
from capacity.records.intervals import BOUND_LEVEL
from capacity.records.jackknife import Statistic, widened
from capacity.thermo.action import STILL, path_ratio
from capacity.thermo.dissipation import Cost, heat_of
from capacity.thermo.ensemble_record import EnsembleRecord
from capacity.thermo.regime import marked
from capacity.thermo.wasserstein import Distance

VIOLATION_LEVEL = 0.9999
"""Coverage of the two intervals that must not meet for a violation: on a geodesic both sides are
equal, and at 95 % one ensemble in forty would be called a violation by chance."""
_ROUNDING = 1e-6
_ENERGY_ROUNDING = 1e-6
_OTHER_SIGMA = (
    "Sigma is not defined for this optimiser; length and action of its path are geometry."
)


class Verdict(StrEnum):
    """What a measured ensemble says about T Sigma >= W2^2."""

    IDENTITY = "identity"
    """Every deterministic path obeys its own limit, as any path does: the meter is right. Nothing
    about the training could have made it otherwise."""
    CONSISTENT = "consistent"
    """T Sigma is at least the upper bound of W2^2, within the interval of the difference."""
    INCONCLUSIVE = "inconclusive"
    """T Sigma lies between the bounds, or one of them is missing."""
    VIOLATED = "violated"
    """T Sigma lies below the lower bound, beyond both intervals; of a deterministic path: the
    meter, or the learning time that was claimed, is wrong."""
    LOSS_ROSE = "loss rose"
    """A deterministic training that ended with a higher loss than it began with: its path obeys the
    identity, but it is no learning that was paid for."""
    DIVERGED = "diverged"
    """Replicas stopped being finite; the others are a selection, and no law is judged by them."""


def rule(
    cost: Cost,
    moved: Distance,
    time: float,
    *,
    replicas: int,
    level: float = VIOLATION_LEVEL,
) -> tuple[Verdict, str]:
    """Apply the rule of `judge` to a Sigma that can fall short.

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
        return Verdict.INCONCLUSIVE, f"Sigma is not known here: {missing_sigma(cost)}"
    if replicas < 2:
        return Verdict.INCONCLUSIVE, (
            "One replica has no law, and nothing can be said about an ensemble. Train at least 4."
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
    slack = widened((paid - moved.upper).estimate(), BOUND_LEVEL)[0]
    if cost.certain and slack >= -_ROUNDING * abs(moved.upper.value):
        return Verdict.CONSISTENT, "T Sigma is at least the path coupling, which bounds W2^2."
    if not cost.certain:
        why = cost.routes.free_energy.note
        return Verdict.INCONCLUSIVE, f"Sigma is uncalibrated here; read its routes. {why}"
    return (
        Verdict.INCONCLUSIVE,
        "T Sigma is not below the lower bound of W2^2, nor surely above the upper one.",
    )


def identity(
    record: EnsembleRecord, action: Tensor, moved: Distance, time: float
) -> tuple[Verdict, str]:
    """Check the meter on every deterministic path, and say where the training was none.

    Args:
        record: Of the ensemble.
        action: sum |d theta_k|^2/dt_k of every replica (N,), in the time of the limit.
        moved: W2^2.
        time: T.

    Returns:
        The verdict, and why.
    """
    ratio = path_ratio(time, action, moved.squared)
    if not len(ratio):
        return Verdict.INCONCLUSIVE, STILL
    smallest = float(ratio.min())
    if smallest < 1:
        return Verdict.VIOLATED, (
            f"The path of a replica has T times its action at {smallest:.4g} of its squared "
            "displacement, and no path is below 1: the learning time, or the meter, is wrong."
        )
    before, drop = float(record.energy_start.mean()), heat_of(record)
    rise, rose = -float(drop.mean()), int((drop < -loss_rounding(record)).sum())
    if rise > loss_rounding(record):
        return Verdict.LOSS_ROSE, (
            f"E[L] rose by {rise:.4g} from {before:.4g}, in {rose} of {len(drop)} replicas: the "
            "steps are too long or too noisy. The path obeys its identity, as any path does, but "
            "it is no learning that was paid for."
        )
    other = f" {_OTHER_SIGMA}" if record.dynamics is Dynamics.OTHER else ""
    return Verdict.IDENTITY, (
        f"Every path has T times its action at {smallest:.4g} of its squared displacement or more; "
        "at least 1 is an identity (Cauchy-Schwarz): it checks the meter, and no training could "
        f"have failed it.{other}"
    )


def loss_rounding(record: EnsembleRecord) -> float:
    """Give the rise of a loss that float32 does not tell from none.

    Args:
        record: Of the ensemble.

    Returns:
        Nats.
    """
    scale = torch.stack([record.energy_start, record.end.energy]).abs().mean()
    return _ENERGY_ROUNDING * float(scale)


def judge_loss_drop(
    record: EnsembleRecord,
    cost: Cost,
    moved: Distance,
    time: float,
    level: float,
    violation_level: float,
) -> tuple[Estimate, Verdict]:
    """Take T dL/|d theta|^2 under its own name, and judge the form that it belongs to.

    Args:
        record: Of the ensemble.
        cost: Sigma by every route.
        moved: W2^2.
        time: T.
        level: Nominal coverage of the ratio's interval.
        violation_level: As for `rule`.

    Returns:
        The ratio, `out_of_regime` where it does not agree with the action's; and the verdict on
        T E[dL] >= W2^2, inconclusive there.
    """
    if record.dynamics.noisy or record.dynamics is Dynamics.OTHER:
        return not_defined(cost.routes.loss_drop.note), Verdict.INCONCLUSIVE
    squared = moved.squared
    went = (squared > 0) & torch.isfinite(squared)
    if not bool(went.any()):
        return not_defined(STILL), Verdict.INCONCLUSIVE
    action = path_ratio(time, record.series.action[-1] / record.time_scale, squared)
    by_drop = time * cost.drop[went] / squared[went]
    ratio = marked(Statistic.mean(by_drop).estimate(level=level), action, by_drop)
    if not ratio.resolved:
        return ratio, Verdict.INCONCLUSIVE
    paid = replace(cost, sigma=Statistic.mean(cost.drop))
    count = len(record.replicas)
    verdict, reason = rule(paid, moved, time, replicas=count, level=violation_level)
    return replace(ratio, note=f"By the loss drop: {verdict}. {reason}"), verdict


def missing_sigma(cost: Cost) -> str:
    """Say why there is no Sigma.

    Args:
        cost: Its routes.

    Returns:
        A sentence.
    """
    free = cost.routes.free_energy
    return free.note or cost.routes.action.note
