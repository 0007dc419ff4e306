"""Thermodynamics of a sequence of tasks: each task, all of them together, and the old ones.

Along a sequence T and Sigma add up, and W2 is measured from the very first start, so that the speed
limit holds for the whole way as for its parts. Detours that cancel each other show in the whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from capacity.optimizers.dynamics import Dynamics
from capacity.records.estimate import Estimate, not_defined
from capacity.records.intervals import BOUND_LEVEL
from capacity.records.jackknife import Statistic
from capacity.records.plain import Plain, plain
from capacity.thermo.dissipation import Cost, cost_of, heat_of
from capacity.thermo.ensemble_record import EnsembleRecord, Series
from capacity.thermo.gram_matrices import layer_grams
from capacity.thermo.reachable import ReachableSet
from capacity.thermo.speed_limit import SpeedLimit, settle
from capacity.thermo.wasserstein import distance


@dataclass(frozen=True, kw_only=True)
class OldTask(Plain):
    """What learning a new task did to an old one, as a bill.

    Attributes:
        old: Name of the old task.
        new: Name of the task that was learned.
        forgetting: Rise of the old task's mean training loss over the ensemble.
        lost_share: That rise over the Sigma that was spent on learning the old task: the part of
            the investment that the new task wrote off.
        keeping: The cheapest way to learn the new task, free and keeping the old one, with the
            transport cost C and the extra Sigma that not forgetting costs at least
            (theory.md#transport-cost); None if it was not asked for.
    """

    WRITTEN = ("old", "new", "forgetting", "lost_share")

    old: str
    new: str
    forgetting: Estimate
    lost_share: Estimate
    keeping: ReachableSet | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types.

        Returns:
            The numbers; of `keeping` the transport cost, the extra dissipation and the verdicts.
        """
        record = super().to_dict()
        if self.keeping is not None:
            record |= plain({
                "transport_cost": self.keeping.transport_cost,
                "extra_dissipation": self.keeping.extra_dissipation,
                "free_inside": self.keeping.free.verdict,
                "preserving_inside": self.keeping.preserving.verdict,
            })
        return record


def judge_sequence(records: Sequence[EnsembleRecord], *, level: float = BOUND_LEVEL) -> SpeedLimit:
    """Judge the speed limit on consecutive phases of one ensemble, as one way.

    Args:
        records: Of the phases, in order, all of one kind of dynamics.
        level: Nominal coverage of the intervals.

    Returns:
        The verdict over the whole way.

    Raises:
        ValueError: If there is no record, or their dynamics differ.
    """
    if not records:
        raise ValueError("records is empty; pass those of at least one phase")
    kinds = {(r.dynamics, r.temperature) for r in records}
    if len(kinds) > 1:
        raise ValueError(
            f"records are of {sorted(str(k) for k, _ in kinds)} at temperatures "
            f"{sorted(t for _, t in kinds)}; their Sigma add up for one kind of dynamics only"
        )
    first, last = records[0], records[-1]
    whole = _whole(records)
    grams = layer_grams(
        first.theta_start,
        last.theta[-1],
        dict(last.layout),
        rows=torch.tensor(last.replicas),
    )
    displaced = grams.moved.diagonal(dim1=-2, dim2=-1).sum(0)
    end = replace(whole.end, grams=grams, leg_sq=displaced)
    whole = replace(whole, checkpoints=(end,))
    return settle(
        whole,
        cost_of(whole, level=level),
        distance(grams, start=first.start),
        whole.learning_time,
        level=level,
    )


def old_task(*, old: str, new: str, before: Tensor, after: Tensor, spent: Cost | None) -> OldTask:
    """Bill an old task for what a new one did to it.

    Args:
        old: Name of the old task.
        new: Name of the new one.
        before: Its loss per replica before the new task (N,).
        after: The same after it (N,).
        spent: Cost of learning the old task, by the same replicas.

    Returns:
        The bill.
    """
    rise = Statistic.mean(after.double() - before.double())
    share = not_defined("There is no Sigma of the old task to compare with.")
    if spent is not None and spent.sigma is not None:
        if len(spent.sigma.without) == len(rise.without):
            share = (rise / spent.sigma).estimate(level=BOUND_LEVEL)
        else:
            share = Estimate(
                value=rise.value / spent.sigma.value,
                note="Replicas diverged in between; no interval.",
            )
    return OldTask(old=old, new=new, forgetting=rise.estimate(level=BOUND_LEVEL), lost_share=share)


def _whole(records: Sequence[EnsembleRecord]) -> EnsembleRecord:
    """The last record with everything that adds up added up, for its replicas."""
    first, last = records[0], records[-1]
    rows = [_rows(record, last) for record in records]

    def added(name: str) -> Tensor:
        ends = [getattr(r.series, name)[-1:, at] for r, at in zip(records, rows, strict=True)]
        return torch.stack(ends).sum(0)

    probed = all(r.series.log_det is not None for r in records)
    steps = sum(int(r.series.step[-1]) for r in records)
    time = math.fsum(float(r.series.time[-1]) for r in records)
    heat = torch.stack([heat_of(r)[at] for r, at in zip(records, rows, strict=True)]).sum(0)
    series = Series(
        step=torch.tensor([steps]),
        time=torch.tensor([time], dtype=torch.float64),
        loss=last.series.loss[-1:],
        action=added("action"),
        length=added("length"),
        trapezoid=added("trapezoid"),
        noise_free=added("noise_free"),
        heat=heat[None],
        log_det=added("log_det") if probed else None,
        drive=added("drive") if all(r.series.drive is not None for r in records) else None,
    )
    same = len(first.replicas) == len(last.replicas)
    kinetic = [r.last_kinetic for r in records]
    balance = None
    if all(k is not None for k in kinetic):
        # Every phase starts at rest: what each had left in its last step was not dissipated.
        parts = [k[at] for k, at in zip(kinetic, rows, strict=True) if k is not None]
        balance = torch.stack(parts).sum(0) if last.dynamics is Dynamics.HEAVY_BALL else parts[-1]
    folds = [r.folds[at] for r, at in zip(records, rows, strict=True) if r.folds is not None]
    return replace(
        last,
        folds=torch.stack(folds).sum(0) if folds else None,
        start=first.start,
        learning_time=math.fsum(r.learning_time for r in records),
        last_kinetic=balance,
        energy_start=first.energy_start[rows[0]],
        entropy_start=first.entropy_start,
        entropy_start_bound=first.entropy_start_bound if same else None,
        series=series,
        checkpoints=(replace(last.end, step=steps, time=time),),
        theta_start=first.theta_start,
    )


def _rows(record: EnsembleRecord, last: EnsembleRecord) -> Tensor:
    """Positions in a record of the replicas that are still there at the end."""
    at = {replica: k for k, replica in enumerate(record.replicas)}
    return torch.tensor([at[replica] for replica in last.replicas])
