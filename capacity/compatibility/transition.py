"""Before a task is learned: the room the old tasks leave, and the room the new one needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from capacity.compatibility.capacity import CapacityAtScale, compatible_capacity
from capacity.compatibility.dimension import Dimension, task_dimension
from capacity.compatibility.preserving import Preserving, default_tolerance, preserving_projector
from capacity.config import Measure
from capacity.curvature.operators import ggn, hessian
from capacity.dynamics.flat import FlatModel
from capacity.estimate import Z90
from capacity.tasks.task import Task
from capacity.transport.maps import SquareMap

_LITERAL_NOTE = (
    "Literal criterion of [II]: forgetting is inevitable when m_B > R_A. In an over-parameterised "
    "network R_A is about P and m_B a few dozen, so it almost never fires, and it does not see "
    "how the tasks are aligned; the forecast is what decides."
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The literal criterion m_B > R_A.

    Attributes:
        fires: Whether m_B > R_A beyond both uncertainties.
        margin: R_A - m_B in directions; None where one of them is not defined.
        verdict: `forgetting predicted`, `room left` or `undecided`.
        note: What the reader must know to read it.
    """

    fires: bool
    margin: float | None
    verdict: str
    note: str = _LITERAL_NOTE

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types.

        Returns:
            One entry per attribute.
        """
        return {
            "fires": self.fires,
            "margin": self.margin,
            "verdict": self.verdict,
            "note": self.note,
        }


@dataclass(frozen=True, kw_only=True)
class CapacityRecord:
    """Capacity against dimension for one transition (replica 0).

    Attributes:
        preserving: The projector P_A and how it was chosen.
        capacity: R_A(t), one record per scale; the first is the headline.
        dimension: m_B.
        literal: The literal criterion's verdict.
        parameters: P.
    """

    preserving: Preserving
    capacity: tuple[CapacityAtScale, ...]
    dimension: Dimension
    literal: Verdict
    parameters: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, as the result schema has them.

        Returns:
            The entries capacity, dimension and literal of a transition.
        """
        headline = self.capacity[0].to_dict()
        return {
            "capacity": {
                "nats": headline["nats"],
                "directions": headline["directions"],
                "by_eps": [at_scale.to_dict() for at_scale in self.capacity],
                "parameters": self.parameters,
                "removed": self.preserving.removed,
                "removed_complete": self.preserving.converged,
                "tolerance": self.preserving.tolerance,
                "displacement": self.preserving.displacement,
                "curvature_threshold": self.preserving.threshold,
            },
            "dimension": self.dimension.to_dict(),
            "literal": self.literal.to_dict(),
        }


def literal_verdict(capacity: CapacityAtScale, dimension: Dimension) -> Verdict:
    """Compare R_A with m_B; undecided where their 90 % intervals overlap.

    Args:
        capacity: R_A(t) at the headline scale.
        dimension: m_B.

    Returns:
        The verdict.
    """
    if dimension.no_demand:
        return Verdict(fires=False, margin=None, verdict="room left")
    room, need = capacity.directions, dimension.stable_rank
    if room.value is None or need.value is None:
        return Verdict(fires=False, margin=None, verdict="undecided")
    margin = room.value - need.value
    slack = Z90 * ((room.stderr or 0.0) ** 2 + (need.stderr or 0.0) ** 2) ** 0.5
    if abs(margin) <= slack:
        return Verdict(fires=False, margin=margin, verdict="undecided")
    fires = margin < 0
    return Verdict(
        fires=fires, margin=margin, verdict="forgetting predicted" if fires else "room left"
    )


def assess(
    model: FlatModel,
    theta: Tensor,
    old: Sequence[Task],
    new: Task,
    jacobian: SquareMap | None,
    measure: Measure,
    *,
    displacement: float,
    generator: torch.Generator,
) -> CapacityRecord:
    """Measure capacity and dimension before a new task is learned.

    Args:
        model: The network.
        theta: Its parameters (P,).
        old: Every task learned so far; A is their average.
        new: The task to come, B.
        jacobian: J_t of the training so far; None takes the identity.
        measure: Effort, scales, tolerance and displacement.
        displacement: Displacement scale when `measure` gives none: how far the last task moved
            theta, the most that one direction can be moved by a task like it.
        generator: Source of the probes.

    Returns:
        The record.
    """
    tolerance = measure.tolerance or default_tolerance(model, theta, old)
    preserving = preserving_projector(
        _average([ggn(model, t, theta, t.train.first(measure.curvature_samples)) for t in old]),
        theta,
        tolerance=tolerance,
        displacement=measure.displacement or displacement,
        generator=generator,
    )
    capacity = compatible_capacity(
        jacobian,
        preserving,
        like=theta,
        eps=measure.eps,
        probes=measure.capacity_probes,
        nodes=measure.capacity_nodes,
        generator=generator,
    )
    dimension = task_dimension(
        hessian(model, new, theta, new.train.first(measure.curvature_samples)),
        preserving,
        like=theta,
        probes=_DIMENSION_PROBES,
        generator=generator,
    )
    return CapacityRecord(
        preserving=preserving,
        capacity=capacity,
        dimension=dimension,
        literal=literal_verdict(capacity[0], dimension),
        parameters=len(theta),
    )


_DIMENSION_PROBES = 16


def _average(operators: list[Callable[[Tensor], Tensor]]) -> Callable[[Tensor], Tensor]:
    def average(vectors: Tensor) -> Tensor:
        return sum(apply(vectors) for apply in operators) / len(operators)  # type: ignore[return-value]

    return average
