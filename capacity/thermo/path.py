"""What the path of training cost: action, length, speed limit and inefficiency of every replica.

One replica is a delta distribution, for which W2 is exact: W2^2 = |theta_T - theta_0|^2. The
Epistemic Speed Limit T Sigma >= W2^2 (theory.md#path-identity) then holds for *any* discrete path
with Sigma = sum |d theta_k|^2 / dt_k, by Cauchy-Schwarz; `PathObserver` asserts it at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from capacity.optimizers.optimizer import Optimizer
from capacity.records.estimate import Estimate, Status, from_samples, not_defined
from capacity.records.notebook import InNotebook
from capacity.records.plain import Plain
from capacity.thermo.action import ROUNDING, STILL, ActionMeter, at_least_one, checked_ratio
from capacity.thermo.curved_metric import CurvedMeter, curved_meter
from capacity.thermo.regime import marked
from capacity.training.steps import Step

_LANGEVIN_PATH = (
    "The noise of Langevin dynamics makes every step's length grow without bound, relative to its "
    "time, as steps get shorter: sums over the path measure the step, not the transport. Sigma is "
    "E[V_0 - V_T] + tau (H_T - H_0) there."
)
_LANGEVIN_DROP = (
    "For Langevin dynamics Sigma is E[V_0 - V_T] + tau (H_T - H_0), not the drop of the loss."
)


@dataclass(frozen=True, kw_only=True)
class GeometryCost(Plain, InNotebook):
    """The cost of a path in the metric in which its steps are steepest descent.

    The flow obeys dL/dt = -|v|^2 there, so T (L_0 - L_T) >= d^2 (theory.md#geometry).

    Attributes:
        name: The metric.
        action: sum |dy_k|^2/dt_k, y coordinates in which it is flat; in a curved metric the sum of
            its |d theta_k|^2/dt_k.
        distance_sq: d^2 = |y_T - y_0|^2; in a curved metric a lower bound of it.
        inefficiency: T times action over d^2; at least 1 always. In a curved metric an upper bound,
            `out_of_regime` where steps are too long for it.
        loss_drop_ratio: T dL / d^2, which equals it for the flow; `out_of_regime` where not.
        length_sq: Square of the path's length, an upper bound of d^2; None in a flat metric.
        least_inefficiency: T times action over it, a lower bound of the inefficiency.
    """

    name: str
    action: Estimate
    distance_sq: Estimate
    inefficiency: Estimate
    loss_drop_ratio: Estimate
    length_sq: Estimate | None = None
    least_inefficiency: Estimate | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types.

        Returns:
            The fields; the last two in a curved metric only.
        """
        return {name: part for name, part in super().to_dict().items() if part is not None}


@dataclass(frozen=True, kw_only=True)
class ImplicitSteps(Plain, InNotebook):
    """How well the ends of implicit steps were found.

    Attributes:
        residual: By how much the gradient at the end of a step differs from the one that the step
            went along, over its length, in the metric of the steps: mean over steps.
        largest: The largest of a step and replica.
    """

    residual: Estimate
    largest: float


@dataclass(frozen=True, kw_only=True)
class PathCost(Plain, InNotebook):
    """The cost of learning one task, with its spread over replicas.

    Attributes:
        learning_time: T = sum of dt_k, dt_k = lr_k.
        inefficiency_path: T sum |d theta_k|^2/dt_k / |theta_T - theta_0|^2; at least 1 always.
        loss_drop_ratio: T dL / |theta_T - theta_0|^2 ([S] eq. 12), which equals the inefficiency
            for gradient flow; `out_of_regime` where the two do not agree. Defined for plain (S)GD.
        action: Sigma of the path, sum |d theta_k|^2 / dt_k. Not defined for Langevin dynamics, nor
            is anything else that the lengths of single steps enter.
        loss_drop: Training loss before minus after.
        displacement_sq: |theta_T - theta_0|^2.
        length_ratio: Curve length over chord.
        smallest_ratio: The smallest `inefficiency_path` of a replica: the path invariant says >= 1.
        geometry: The same in the optimiser's own metric; None where that is Euclid's, or not flat.
        implicit: What was left of implicit steps' equations; None where steps are explicit.
    """

    WRITTEN = (
        "learning_time",
        "inefficiency_path",
        "loss_drop_ratio",
        "action",
        "loss_drop",
        "displacement_sq",
        "length_ratio",
    )

    learning_time: float
    inefficiency_path: Estimate
    loss_drop_ratio: Estimate
    action: Estimate
    loss_drop: Estimate
    displacement_sq: Estimate
    length_ratio: Estimate
    smallest_ratio: float | None
    geometry: GeometryCost | None = None
    implicit: ImplicitSteps | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, as the result schema has them.

        Returns:
            The `.thermo` entry of a phase.
        """
        invariant = {"holds": True, "smallest_ratio": self.smallest_ratio}
        parts = {"geometry": self.geometry, "implicit": self.implicit}
        own = {name: part.to_dict() for name, part in parts.items() if part is not None}
        return super().to_dict() | {"path_invariant": invariant} | own


class PathObserver:
    """Accumulates action and length over the steps of one phase, in float64.

    Args:
        update: The optimiser, whose own metric is then measured beside Euclid's, if it has one.
        steepest: Whether it is fed with the gradient as it is, and no strategy turns its steps.
    """

    def __init__(self, update: Optimizer | None = None, *, steepest: bool = True) -> None:
        self._start: Tensor | None = None
        self._end: Tensor | None = None
        self._meter = ActionMeter()
        self._curved = curved_meter(update) if steepest else None
        update = None if update is None else update.unclipped
        self._metric = update if update is not None and update.geometry else None
        self._flat, self._moved = ActionMeter(), torch.zeros((), dtype=torch.float64)
        self._left: Tensor | None = None

    def observe(self, step: Step) -> None:
        """Add one step.

        Args:
            step: The step.
        """
        if self._start is None:
            self._start = step.before[0].double()
        self._meter.add(step.lr, step.before[0], step.after[0])
        if self._metric is not None:
            way = self._metric.flat_move(step.before[0], step.after[0])
            self._flat.add(step.lr, torch.zeros_like(way), way)
            self._moved = self._moved.to(way.device) + way
        if self._curved is not None:
            self._curved.add(step)
        if step.residual is not None:
            left = torch.stack([step.residual, step.residual, torch.ones_like(step.residual)])
            if self._left is not None:
                left = self._left + left
                left[1] = torch.maximum(self._left[1], step.residual)
            self._left = left
        self._end = step.after[0]

    @property
    def start(self) -> Tensor | None:
        """Where every replica (R, P) began, in float64; None before the first step was seen."""
        return self._start

    def state(self) -> dict[str, Tensor]:
        """Give what `restore` needs to go on from here.

        Returns:
            The sums and both ends; nothing before the first step.
        """
        if self._start is None or self._end is None:
            return {}
        kept = {
            "start": self._start,
            "end": self._end,
            "action": self._meter.action,
            "length": self._meter.length,
            "time": torch.tensor(self._meter.time, dtype=torch.float64),
        }
        if self._metric is not None:
            kept |= {"flat.action": self._flat.action, "flat.moved": self._moved}
        if self._curved is not None:
            kept |= {"curved.action": self._curved.action, "curved.length": self._curved.length}
        if self._left is not None:
            kept["implicit"] = self._left
        return kept

    def restore(self, kept: dict[str, Tensor]) -> None:
        """Go on where `state` was taken.

        Args:
            kept: What `state` gave.
        """
        if kept:
            self._start, self._end = kept["start"], kept["end"]
            self._meter.action, self._meter.length = kept["action"], kept["length"]
            self._meter.time = float(kept["time"])
        if self._curved is not None and kept:
            self._curved.action = kept["curved.action"]
            self._curved.length = kept["curved.length"]
        self._left = kept.get("implicit")
        if "flat.moved" in kept:
            self._flat.action, self._moved = kept["flat.action"], kept["flat.moved"]

    def cost(
        self,
        loss_before: Tensor,
        loss_after: Tensor,
        *,
        plain: bool,
        full: bool,
        noisy: bool = False,
        own: bool = True,
    ) -> PathCost:
        """Close the books.

        Args:
            loss_before: Full training loss of every replica (R,) at the start.
            loss_after: The same at the end.
            plain: Whether the optimiser is plain (S)GD, for which T dL is the ESL's left side.
            full: Whether every step saw all the data, so that no minibatch noise is in the path.
            noisy: Whether the steps carry the noise of Langevin dynamics.
            own: Whether the cost in the optimiser's own metric is asked for.

        Returns:
            The cost, with spread over replicas.

        Raises:
            ValueError: If no step was seen.
        """
        if self._start is None or self._end is None:
            raise ValueError("steps: none was observed; train at least one step before the cost")
        squared = (self._end.double() - self._start).square().sum(-1)
        time, action, length = self._meter.time, self._meter.action, self._meter.length
        drop = (loss_before - loss_after).double()
        ratio = checked_ratio(time, action, squared)
        moved = (squared > 0) & torch.isfinite(squared)
        by_drop = time * drop[moved] / squared[moved]

        noise = "" if full else "Minibatch noise is part of the path."
        stayed = len(squared) - len(ratio)
        if stayed:
            noise = f"{noise} {stayed} of {len(squared)} replicas did not move.".strip()

        def of_path(values: Tensor) -> Estimate:
            if noisy:
                return not_defined(_LANGEVIN_PATH)
            return _over_replicas(values, noise) if len(ratio) else not_defined(STILL)

        if noisy:
            loss_drop_ratio = not_defined(_LANGEVIN_DROP)
        elif not plain:
            loss_drop_ratio = not_defined(
                "T dL is the speed limit's left side for plain (S)GD only; read the inefficiency "
                "of the path instead."
            )
        elif not len(ratio):
            loss_drop_ratio = not_defined(STILL)
        else:
            loss_drop_ratio = marked(_over_replicas(by_drop), ratio, by_drop)
        return PathCost(
            learning_time=time,
            inefficiency_path=at_least_one(of_path(ratio)),
            loss_drop_ratio=loss_drop_ratio,
            action=not_defined(_LANGEVIN_PATH) if noisy else _over_replicas(action, noise),
            loss_drop=_over_replicas(drop),
            displacement_sq=_over_replicas(squared),
            length_ratio=at_least_one(of_path(length[moved] / squared[moved].sqrt())),
            smallest_ratio=float(ratio.min()) if len(ratio) else None,
            geometry=self._in_metric(drop, noise) if own and len(ratio) else None,
            implicit=self._of_implicit(),
        )

    def _of_implicit(self) -> ImplicitSteps | None:
        if self._left is None:
            return None
        total, largest, count = self._left
        return ImplicitSteps(residual=_over_replicas(total / count), largest=float(largest.max()))

    def _in_metric(self, drop: Tensor, noise: str) -> GeometryCost | None:
        if self._curved is not None:
            return self._in_curved_metric(self._curved, drop, noise)
        if self._metric is None:
            return None
        time, action = self._meter.time, self._flat.action
        squared = self._moved.square().sum(-1)
        ratio = checked_ratio(time, action, squared)
        by_drop = (time * drop.to(squared) / squared)[squared > 0]
        return GeometryCost(
            name=self._metric.geometry,
            action=_over_replicas(action, noise),
            distance_sq=_over_replicas(squared),
            inefficiency=at_least_one(_over_replicas(ratio, noise)),
            loss_drop_ratio=marked(_over_replicas(by_drop), ratio, by_drop),
        )

    def _in_curved_metric(self, meter: CurvedMeter, drop: Tensor, noise: str) -> GeometryCost:
        assert self._start is not None
        assert self._end is not None
        time, action, length_sq = self._meter.time, meter.action, meter.length.square()
        least, short = checked_ratio(time, action, length_sq), False
        found = meter.least_sq(self._start.to(self._end.dtype), self._end)
        note = f"Every step in the metric of its batch. {noise}".strip() if noise else ""
        if found is None:
            far = most = by_drop = not_defined(
                "The metric is an estimate of its diagonal on every batch, in which no distance is "
                "known; read the length of the path."
            )
        else:
            squared = found.to(action.device)
            ratios = (time * action / squared)[squared > 0]
            dropped = (time * drop.to(squared) / squared)[squared > 0]
            far = _over_replicas(squared, f"A lower bound. {note}".strip())
            most = _over_replicas(ratios, f"An upper bound. {note}".strip())
            by_drop = marked(_over_replicas(dropped), ratios, dropped)
            short = bool((squared > length_sq * (1 + ROUNDING)).any())
            most = _no_bound(most) if short else at_least_one(most)
        longest = _over_replicas(length_sq, f"An upper bound of d^2. {note}".strip())
        lowest = at_least_one(
            _over_replicas(least, f"A lower bound. {note}".strip())
            if len(least)
            else not_defined(STILL)
        )
        return GeometryCost(
            name=meter.update.in_words(self._end),
            action=_over_replicas(action, note),
            distance_sq=far,
            inefficiency=most,
            loss_drop_ratio=by_drop,
            length_sq=_no_bound(longest) if short else longest,
            least_inefficiency=_no_bound(lowest) if short else lowest,
        )


def _no_bound(bound: Estimate) -> Estimate:
    """Mark what follows from a length that is shorter than the distance of its ends."""
    note = (
        "No bound: the ends of a path are farther apart than it is long by its steps, which are "
        "too long for the metric at their start, or that of a batch is not that of all samples."
    )
    return replace(bound, status=Status.OUT_OF_REGIME, note=note)


def _over_replicas(values: Tensor, note: str = "") -> Estimate:
    return from_samples(values.tolist(), note=note)
