"""F = E[L] - tau H of an ensemble at both ends of a phase, and how its entropy changed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from capacity.optimizers.dynamics import Dynamics
from capacity.records.estimate import Estimate, Status, not_defined
from capacity.records.jackknife import Statistic
from capacity.records.plain import Plain
from capacity.thermo.ensemble_record import SINGULAR, EnsembleRecord, GaussianBound


@dataclass(frozen=True, kw_only=True)
class FreeEnergy(Plain):
    """Energy, entropy and free energy at both ends.

    Attributes:
        energy_start: E[L] at the start.
        energy_end: E[L] at the end.
        entropy_start: H at the start: known, or its Gaussian upper bound.
        entropy_end: H at the end, Gaussian upper bound.
        entropy_change: H_T - H_0 through the log-volume, E log|det J|; deterministic training with
            probes only.
        free_energy_start: E[L] - tau H.
        free_energy_end: The same at the end, a lower bound of F: H is bounded from above.
    """

    energy_start: Estimate
    energy_end: Estimate
    entropy_start: Estimate
    entropy_end: Estimate
    entropy_change: Estimate
    free_energy_start: Estimate
    free_energy_end: Estimate


def free_energy(record: EnsembleRecord, *, level: float) -> FreeEnergy:
    """Read energies and entropies off a record.

    Args:
        record: The ensemble's record.
        level: Nominal coverage of the intervals.

    Returns:
        Both ends.
    """
    tau = record.temperature
    start, end = Statistic.mean(record.energy_start), Statistic.mean(record.end.energy)
    first, last = _bound(record.entropy_start_bound), _bound(record.end.entropy)
    known = record.entropy_start
    if record.singular:
        first_record = not_defined(SINGULAR)
    elif known is not None:
        first_record = Estimate(value=known, note="Known from the law of the start.")
    else:
        first_record = _entropy(record.entropy_start_bound, first, level)

    def free(energy: Statistic, entropy: Statistic | None, exact: float | None) -> Estimate:
        if not tau:
            return energy.estimate(level=level, note="At temperature 0, F = E[L].")
        if exact is not None:
            return (energy - tau * exact).estimate(level=level)
        if entropy is None:
            return Estimate(
                value=None, status=Status.NOT_RESOLVED, note="The entropy is not resolved."
            )
        return (energy - entropy * tau).estimate(
            level=level, note="Lower bound: the entropy is bounded from above."
        )

    return FreeEnergy(
        energy_start=start.estimate(level=level),
        energy_end=end.estimate(level=level),
        entropy_start=first_record,
        entropy_end=_entropy(record.end.entropy, last, level),
        entropy_change=_change(record, level),
        free_energy_start=not_defined(SINGULAR) if record.singular else free(start, first, known),
        free_energy_end=free(end, last, None),
    )


def _bound(bound: GaussianBound | None) -> Statistic | None:
    if bound is None or not math.isfinite(bound.value):
        return None
    return Statistic(bound.value, bound.without)


def _entropy(bound: GaussianBound | None, value: Statistic | None, level: float) -> Estimate:
    if bound is None:
        return Estimate(
            value=None,
            status=Status.NOT_RESOLVED,
            note="Fewer than 4 replicas have no variances to bound an entropy with.",
        )
    if value is None:
        return not_defined(
            f"{bound.frozen} coordinates do not vary over the ensemble: its law has no density."
        )
    return value.estimate(
        level=level, note="Upper bound: a Gaussian with the same variances of every coordinate."
    )


def _change(record: EnsembleRecord, level: float) -> Estimate:
    volumes = record.series.log_det
    if record.dynamics not in {Dynamics.GRADIENT, Dynamics.MINIBATCH}:
        return not_defined(
            "E log|det J| is the change of the entropy for deterministic training only; read the "
            "Gaussian bounds."
        )
    if volumes is None:
        return not_defined("Ask for log_volume probes to have it.")
    return Statistic.mean(volumes[-1]).estimate(
        level=level,
        status=Status.UNCALIBRATED if record.folded else Status.OK,
        note="Upper bound of the change: some steps fold (lr times curvature above 1)."
        if record.folded
        else "",
    )
