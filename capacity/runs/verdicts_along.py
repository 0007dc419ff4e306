"""Verdicts on the task to come, at the end of the training before it and along that training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from capacity.criterion.criterion import assess_transition
from capacity.criterion.criterion_verdicts import FormVerdict, Verdicts
from capacity.criterion.critical_period import ClosurePoint, closure_of
from capacity.criterion.transition import CapacityRecord
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from capacity.records.estimate import Estimate
from capacity.records.intervals import Z90
from capacity.runs.journal import Entry
from capacity.tasks.task import Task

# Effort of a verdict on the way; the one at the end takes the default.
_SAMPLES, _ROOM_SAMPLES, _GROUPS = 200, 32, 4


class Moment(NamedTuple):
    """Where a training stood.

    Attributes:
        time: Learning time since its start.
        theta: Parameters of replica 0 (P,).
        statistics: The running statistics of its network (`FlatModel.statistics`).
    """

    time: float
    theta: Tensor
    statistics: Mapping[str, Tensor] = MappingProxyType({})


class Along:
    """Moments of a training at which the task to come is judged: most of them early on.

    Args:
        theta: Parameters of the replicas before it (R, P).
        epochs: Its epochs.
        points: How many moments before its end to keep.
        statistics: Gives the network's running statistics of now.

    Attributes:
        moments: The moments, in the order of time.
    """

    def __init__(
        self,
        theta: Tensor,
        epochs: int,
        points: int,
        statistics: Callable[[], Mapping[str, Tensor]] = dict,
    ) -> None:
        self._statistics = statistics
        self.moments = [self._now(0.0, theta[0])] if points else []
        # In equal steps of log(epoch): most of what a training does it does early.
        steps = (epochs ** (k / max(points - 1, 1)) for k in range(points - 1))
        self._epochs = {round(epoch) for epoch in steps} - {epochs}

    def epoch(self, epoch: int, time: float, theta: Tensor) -> None:
        """See the end of an epoch.

        Args:
            epoch: Its number, from 1.
            time: Learning time so far.
            theta: Parameters of the replicas (R, P).
        """
        if epoch in self._epochs:
            self.moments.append(self._now(time, theta[0]))

    def _now(self, time: float, theta: Tensor) -> Moment:
        own = {n: t.clone() for n, t in self._statistics().items() if n.startswith("0/")}
        return Moment(time, theta.clone(), own)

    def tensors(self) -> dict[str, Tensor]:
        """Give the moments for a record, which `moments_of` reads.

        Returns:
            Tensors by name.
        """
        made = {f"along.{k}": moment.theta for k, moment in enumerate(self.moments)}
        for k, moment in enumerate(self.moments):
            made |= {f"along.{k}.{name}": t for name, t in moment.statistics.items()}
        return made


def moments_of(kept: Entry, device: torch.device) -> list[Moment]:
    """Read the moments of a training.

    Args:
        kept: A record with the times as `along`.
        device: Where theta is wanted.

    Returns:
        The moments, in the order of time.
    """
    parts = kept.part("along", device)
    return [
        Moment(
            time,
            parts[str(k)],
            {n.removeprefix(f"{k}."): t for n, t in parts.items() if n.startswith(f"{k}.")},
        )
        for k, time in enumerate(kept.record["along"])
    ]


def judge_transition(
    model: FlatModel,
    theta: Tensor,
    old: Sequence[Task],
    new: Task,
    training: Training,
    record: CapacityRecord,
    *,
    along: Along,
    time: float,
    strategy: str = "",
    seed: int,
) -> CapacityRecord:
    """Add the verdicts of every form of the criterion to a transition's record.

    Args:
        model: The network.
        theta: Its parameters before the new task (P,).
        old: Every task learned so far.
        new: The task to come.
        training: Its planned training.
        record: What was measured in parameter space.
        along: The training of the last old task, which is learned only in part along it.
        time: Learning time of that training.
        strategy: Name of a strategy that the planned training does not show; empty for none.
        seed: Seed of the random combinations of outputs.

    Returns:
        The record with `verdicts` and `closures`.
    """
    tolerance = record.preserving.allowances or record.preserving.tolerance
    ways = [
        assess_transition(
            model.at(moment.statistics), moment.theta, old, new, training,
            tolerance=tolerance, seed=seed,
            samples=_SAMPLES, room_samples=_ROOM_SAMPLES, groups=_GROUPS,
        )
        for moment in along.moments
    ]  # fmt: skip
    last = assess_transition(
        model, theta, old, new, training,
        tolerance=tolerance, convergence=record.convergence, seed=seed,
    )  # fmt: skip
    times = [*(moment.time for moment in along.moments), time]
    return replace(
        record,
        verdicts=_words(last, strategy),
        closures=_closures(times, [*ways, last]) if ways else {},
    )


def _words(verdicts: Verdicts, strategy: str) -> dict[str, Any]:
    """Write the verdicts down; the literal form is the record's own, with J_t in it."""
    made = verdicts.to_dict()
    del made["literal"]
    if strategy:
        said = f"The verdict is on training without the strategy {strategy!r}, which it leaves out."
        made["warnings"] = [*made["warnings"], said]
    return made


def _closures(times: Sequence[float], ways: Sequence[Verdicts]) -> Mapping[str, Any]:
    """Follow every form but the literal one, which hardly ever closes, along the training."""
    made: dict[str, Any] = {}
    for forms in zip(*(verdicts.forms for verdicts in ways), strict=True):
        if forms[0].form == "literal":
            continue
        curve = closure_of([_point(*pair) for pair in zip(times, forms, strict=True)])
        made[forms[0].form] = {
            "threshold": forms[-1].threshold,
            "fires_above": forms[-1].fires_above,
            **curve.to_dict(),
        }
    return made


def _point(time: float, form: FormVerdict) -> ClosurePoint:
    """Read a form as room and need: on which side its threshold stands is its own matter."""
    value, threshold = form.value, Estimate(value=form.threshold)
    if value.value is not None:
        # What the verdict is judged by, which may be wider than the estimate's own error.
        value = replace(value, stderr=form.half_width / Z90)
    if form.fires_above:
        return ClosurePoint(time=time, capacity=threshold, need=value)
    return ClosurePoint(time=time, capacity=value, need=threshold)
