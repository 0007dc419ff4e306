"""Sigma, what the transport of an ensemble cost, by every route that its dynamics has.

Sigma = int E|v|^2 dt = F_0 - F_T + work, so that T Sigma >= W2^2 (theory.md#sigma). No route is
good for all dynamics; where one is not defined, its estimate says so and names what to read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.optimizers.dynamics import Dynamics
from capacity.records.estimate import Estimate, Status, not_defined
from capacity.records.jackknife import Statistic
from capacity.records.plain import Plain
from capacity.thermo.ensemble_record import SINGULAR, EnsembleRecord, GaussianBound
from capacity.thermo.regime import marked

_NOISY = (
    "Sums over a path with thermal noise grow like 2 tau P t/dt: they measure the step, not the "
    "transport. Read the free-energy route."
)
_OTHER = (
    "{optimizer} does not follow the gradient of a free energy, so Sigma is not defined for it. "
    "Reported instead: length and action of its path, as geometry, and the per-replica path ratio."
)

FOLDED = (
    "Some steps fold (lr times curvature above 1): they are no Langevin dynamics in continuous "
    "time, whose free energy bounds the distance; use smaller steps."
)


@dataclass(frozen=True, kw_only=True)
class Dissipation(Plain):
    """Sigma by route, each with interval and status.

    Attributes:
        action: sum |d theta_k|^2/dt_k, every step; the path's own bound, whatever the step size.
        loss_drop: E[L_0] - E[L_T] (plus the kinetic balance of heavy ball); O(lr) from the action,
            `out_of_regime` where it does not agree with it.
        trapezoid: -sum d theta_k . (g_k + g_{k+1})/2; recovers the loss drop; the same.
        free_energy: E[V_0 - V_T] + work + tau (H_T - H_0), H_T bounded from above: an upper bound
            of Sigma. At tau = 0 the loss drop.
        noise: What minibatch noise adds to the action; None for full batches.
        checkpoints: The action as one would have it from the checkpoints alone.
    """

    action: Estimate
    loss_drop: Estimate
    trapezoid: Estimate
    free_energy: Estimate
    noise: Estimate | None
    checkpoints: Estimate


@dataclass(frozen=True, kw_only=True, eq=False)
class Cost:
    """Sigma as statistics, for whoever goes on computing.

    Attributes:
        sigma: The route that the verdict reads; None where Sigma is not defined.
        route: Its name.
        certain: Whether it is at least the true Sigma, so that a violation would mean something.
        replicas: Sigma of every replica (N,), where the route has it.
        drop: E_0 - E_T + work of every replica (N,).
        routes: All of them, as records.
    """

    sigma: Statistic | None
    route: str
    certain: bool
    replicas: Tensor | None
    drop: Tensor
    routes: Dissipation


def cost_of(record: EnsembleRecord, *, level: float) -> Cost:
    """Read every route to Sigma off a record.

    Args:
        record: The ensemble's record.
        level: Nominal coverage of the intervals.

    Returns:
        The cost.
    """
    kind, series = record.dynamics, record.series
    drop = heat_of(record)
    action = series.action[-1] / record.time_scale
    if kind is Dynamics.HEAVY_BALL:
        assert record.last_kinetic is not None
        drop = drop - record.last_kinetic
    path_note = (
        "Minibatch noise is part of the path: it bounds W2^2, but it is not the thermodynamic "
        "Sigma; its part is named as noise."
        if not record.full
        else ""
    )
    free, certain = free_energy_drop(record, drop)
    noisy, other = kind.noisy, kind is Dynamics.OTHER
    none = not_defined(_OTHER.format(optimizer=record.optimizer))
    path_action = Statistic.mean(action).estimate(
        level=level,
        status=Status.UNCALIBRATED if other else Status.OK,
        note=_OTHER.format(optimizer=record.optimizer) if other else path_note,
    )
    routes = Dissipation(
        action=not_defined(_NOISY) if noisy else path_action,
        loss_drop=(
            not_defined("Sigma of Langevin dynamics is the drop of the free energy, not of E[L].")
            if noisy
            else none
            if other
            else marked(
                Statistic.mean(drop).estimate(level=level, note=_drop_note(kind)), action, drop
            )
        ),
        trapezoid=(
            not_defined(_NOISY)
            if noisy
            else none
            if other or kind is Dynamics.HEAVY_BALL
            else marked(
                Statistic.mean(series.trapezoid[-1]).estimate(level=level, note=path_note),
                action,
                series.trapezoid[-1],
            )
        ),
        free_energy=(
            none
            if other
            else _free_energy(record, free, certain, level)
            if noisy
            else marked(
                Statistic.mean(drop).estimate(
                    level=level, note="At temperature 0 this is the drop of E[L]."
                ),
                action,
                drop,
            )
        ),
        noise=_noise(record, level),
        checkpoints=_from_checkpoints(record, level),
    )
    if other:
        return Cost(
            sigma=None, route="none", certain=False, replicas=None, drop=drop, routes=routes
        )
    if noisy:
        return Cost(
            sigma=free,
            route="free energy",
            certain=certain,
            replicas=None,
            drop=drop,
            routes=routes,
        )
    return Cost(
        sigma=Statistic.mean(action),
        route="action",
        certain=True,
        replicas=action,
        drop=drop,
        routes=routes,
    )


def heat_of(record: EnsembleRecord) -> Tensor:
    """E_0 - E_T plus the work of a moving energy, of every replica (N,).

    Args:
        record: The ensemble's record.

    Returns:
        What the replicas gave away.
    """
    if record.series.heat is not None:
        return record.series.heat[-1]
    return record.energy_start - record.end.energy


def free_energy_drop(record: EnsembleRecord, drop: Tensor) -> tuple[Statistic | None, bool]:
    """F_0 - F_T + work, and whether it is certainly not too small.

    Args:
        record: The ensemble's record.
        drop: E_0 - E_T + work of every replica (N,).

    Returns:
        The statistic, None where there are too few replicas for an entropy; and whether H_0 is
        known, so that the upper bound of H_T makes it an upper bound.
    """
    if not record.temperature:
        return Statistic.mean(drop), True
    last, first = record.end.entropy, record.entropy_start_bound
    if last is None or math.isinf(last.value) or record.singular:
        return None, False
    change = _statistic(last)
    known = record.entropy_start is not None
    if known:
        assert record.entropy_start is not None
        change = change - record.entropy_start
    elif first is None or math.isinf(first.value):
        return None, False
    else:
        change = change - _statistic(first)
    total = Statistic.mean(drop) + change * record.temperature
    if record.dynamics is Dynamics.UNDERDAMPED:
        total = total + _kinetic_part(record)
    return total, known and record.full and not record.folded


def _kinetic_part(record: EnsembleRecord) -> Statistic:
    """E[K_0 - K_T] + tau (H[p_T] - H[p_0]) from above: no law of the same K has more entropy."""
    assert record.last_kinetic is not None
    thermal = 0.5 * record.size * record.temperature
    ratio = Statistic.mean(record.last_kinetic / thermal)

    def part(r: Tensor) -> Tensor:
        return thermal * (1 - r + r.clamp(min=torch.finfo(r.dtype).tiny).log())

    return Statistic(
        float(part(torch.tensor(ratio.value, dtype=torch.float64))), part(ratio.without)
    )


def _statistic(bound: GaussianBound) -> Statistic:
    return Statistic(bound.value, bound.without)


def _drop_note(kind: Dynamics) -> str:
    if kind is Dynamics.HEAVY_BALL:
        return (
            "Loss drop less the kinetic energy of the last step; the continuous limit of heavy "
            "ball, in the time K lr/(1 - mu)."
        )
    return "Differs from the action by O(lr times curvature)."


def _free_energy(
    record: EnsembleRecord, free: Statistic | None, certain: bool, level: float
) -> Estimate:
    if record.singular:
        return not_defined(SINGULAR)
    if free is None:
        return Estimate(
            value=None,
            status=Status.NOT_RESOLVED,
            note="The entropy needs at least 4 replicas whose every coordinate varies.",
        )
    if not record.full:
        return free.estimate(
            level=level,
            status=Status.UNCALIBRATED,
            note="Minibatch noise heats the ensemble beyond its temperature.",
        )
    if record.folded:
        return free.estimate(level=level, status=Status.UNCALIBRATED, note=FOLDED)
    if not certain:
        return free.estimate(
            level=level,
            status=Status.UNCALIBRATED,
            note="H_0 is not known, and both entropies are upper bounds: their difference is "
            "neither. Pass entropy_start.",
        )
    return free.estimate(
        level=level,
        note="Upper bound: H_T is bounded by that of a Gaussian with the same variances.",
    )


def _noise(record: EnsembleRecord, level: float) -> Estimate | None:
    if record.full or record.dynamics is not Dynamics.MINIBATCH:
        return None
    part = record.series.action[-1] - record.series.noise_free[-1]
    return Statistic.mean(part).estimate(
        level=level,
        note="Action less -sum d theta . g on the next, independent batch: to first order in lr "
        "what minibatch noise adds.",
    )


def _from_checkpoints(record: EnsembleRecord, level: float) -> Estimate:
    if record.dynamics.noisy:
        return not_defined(_NOISY)
    times = [0.0, *(c.time for c in record.checkpoints)]
    legs = [
        c.leg_sq / ((c.time - before) * record.time_scale)
        for c, before in zip(record.checkpoints, times, strict=False)
    ]
    coarse = Statistic.mean(torch.stack(legs).sum(0))
    true = Statistic.mean(record.series.action[-1] / record.time_scale)
    part = (coarse / true).value
    return coarse.estimate(
        level=level,
        status=Status.UNCALIBRATED,
        note=f"From {len(record.checkpoints)} checkpoints alone: {1 - part:.1%} below the sum over "
        "every step.",
    )
