"""The speed limit of training with thermal noise, whose path has no finite action.

Of a chain theta <- theta - lr g + sqrt(2 tau lr) xi from one point, sum lr E|g|^2/(4 tau) is the
divergence of its paths from those of free diffusion; that of their ends is no more. With
V = 2 tau T it is KL(q_T || N(theta_0, V)), the Schroedinger bridge from a point. H[q_T] is bounded
from above, so what is compared with is no more than the truth (theory.md#noisy-limit).

No Sinkhorn: from one point the plan is known, and H[q_T] is all that is missing, of which samples
give no plan. Between N samples a plan carries at most ln N nats, whatever P is; the bridge of a
network's laws has some per parameter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from capacity.optimizers.dynamics import Dynamics
from capacity.records.estimate import Estimate
from capacity.records.jackknife import Statistic
from capacity.records.plain import Plain
from capacity.thermo.ensemble_record import EnsembleRecord, Start
from capacity.thermo.speed_limit_verdicts import Verdict, widened
from capacity.thermo.wasserstein import Distance


@dataclass(frozen=True, kw_only=True)
class NoisyLimit(Plain):
    """What Langevin training spent, against the least that ends in the same law; both in nats.

    Attributes:
        spent: sum lr E|g|^2/(4 tau).
        least: KL(q_T || N(theta_0, 2 tau T)), with the upper bound of H[q_T]: a lower bound.
        efficiency: least/spent, at most 1; below 0 where the bound says nothing.
        verdict: `consistent`, `violated` or `inconclusive`, as `Verdict` has them.
    """

    spent: Estimate
    least: Estimate
    efficiency: Estimate
    verdict: Verdict


def noisy_limit(
    record: EnsembleRecord, moved: Distance, *, level: float, violation_level: float
) -> NoisyLimit | None:
    """Hold Langevin training from one point against the limit of training with noise.

    Args:
        record: The ensemble's record.
        moved: Its displacement.
        level: Nominal coverage of the intervals.
        violation_level: Coverage of the two intervals that must not meet for a violation.

    Returns:
        The limit; None for other dynamics, other starts, or too few replicas for an entropy.
    """
    drive, last = record.series.drive, record.end.entropy
    of_langevin = record.dynamics is Dynamics.LANGEVIN and record.start is Start.DELTA
    if not of_langevin or drive is None or last is None or math.isinf(last.value):
        return None
    tau, size = record.temperature, record.size
    spread = 2 * tau * record.learning_time
    spent = Statistic.mean(drive[-1] / (4 * tau))
    least = Statistic.mean(moved.squared / (2 * spread)) - Statistic(last.value, last.without)
    least = least + 0.5 * size * math.log(2 * math.pi * spread)
    verdict = Verdict.INCONCLUSIVE
    if (
        widened(spent.estimate(), violation_level)[1]
        < widened(least.estimate(), violation_level)[0]
    ):
        verdict = Verdict.VIOLATED
    elif widened((spent - least).estimate(), level)[0] >= 0:
        verdict = Verdict.CONSISTENT
    return NoisyLimit(
        spent=spent.estimate(level=level),
        least=least.estimate(level=level),
        efficiency=(least / spent).estimate(level=level),
        verdict=verdict,
    )
