"""Before a task is learned: the room the old tasks leave, and the room the new one needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from capacity.base.slow_paths import noting
from capacity.criterion.compatible_capacity import CapacityAtScale, literal_capacity
from capacity.criterion.convergence import Convergence, convergence
from capacity.criterion.plasticity import Plasticity, plasticity
from capacity.criterion.preserving import (
    Preserving,
    default_allowances,
)
from capacity.criterion.preserving_union import shared_projectors
from capacity.criterion.sensitivity import FACTORS, SensitivityRow, sensitivity
from capacity.criterion.symmetries import rescalings
from capacity.criterion.task_dimension import Dimension, literal_dimension
from capacity.jacobian.projected_maps import SquareMap
from capacity.networks.flat_model import FlatModel
from capacity.products.curvature_operators import ggn, hessian, loss_gradient
from capacity.recipe.config import Measure
from capacity.records.estimate import with_note
from capacity.records.intervals import Z90
from capacity.records.notebook import InNotebook
from capacity.records.plain import Plain, plain
from capacity.tasks.scoring import said_scores
from capacity.tasks.task import Task

_PRODUCTS = 512
"""Most products with the old tasks' curvature, where its basis would be larger than"""
_BASIS_NUMBERS = 1 << 24
"""so many numbers."""

_LITERAL_NOTE = (
    "Literal criterion of [II]: forgetting is inevitable when m_B > R_A. In an over-parameterised "
    "network R_A is about P and m_B a few dozen, so it almost never fires, and it does not see "
    "how the tasks are aligned; the other forms of the criterion decide."
)


@dataclass(frozen=True, kw_only=True)
class Verdict(Plain):
    """The literal criterion m_B > R_A.

    Attributes:
        fires: Whether m_B > R_A beyond both uncertainties.
        margin: R_A - m_B in directions; None where one of them is not defined.
        stderr: Its standard error, what lies too close to the projector's cut included.
        verdict: `forgetting predicted`, `room left` or `undecided`.
        note: What the reader must know to read it.
    """

    fires: bool
    margin: float | None
    stderr: float | None = None
    verdict: str
    note: str = _LITERAL_NOTE


@dataclass(frozen=True, kw_only=True)
class CapacityRecord(Plain, InNotebook):
    """Capacity against dimension for one transition (replica 0).

    Attributes:
        preserving: The projector P_A and how it was chosen.
        capacity: R_A(t), one record per scale; the first is the headline.
        dimension: m_B; None where no new task was given.
        literal: The literal criterion's verdict; None where no new task was given.
        convergence: How far the old tasks are from being learned.
        sensitivity: R_A over tolerances and scales, smallest tolerance first.
        plasticity: Whether the network can still learn.
        parameters: P.
        verdicts: Verdicts of the other forms of the criterion, as plain JSON types.
        closures: Those forms along the training before, by name, as plain JSON types.
        scored_on: What the old tasks' scores, whose noise is the default tolerance, are scores on:
            `test`, `training`, or both; empty where it stands elsewhere (in the tasks of a run).
        scoring: The same in words.
        rescalings: Preserving directions, at least, that rescale a hidden unit and change no
            output: R_A counts them, and nothing is learned along them.
    """

    preserving: Preserving
    capacity: tuple[CapacityAtScale, ...]
    dimension: Dimension | None
    literal: Verdict | None
    convergence: Convergence
    sensitivity: tuple[SensitivityRow, ...]
    plasticity: Plasticity
    parameters: int
    verdicts: Mapping[str, Any] = field(default_factory=dict)
    closures: Mapping[str, Any] = field(default_factory=dict)
    scored_on: str = ""
    scoring: str = ""
    rescalings: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, as the result schema has them.

        Returns:
            The entries capacity, dimension, literal, verdicts, closures and plasticity of a
            transition; and what scores are scores on, where that is said.
        """
        headline, preserving = self.capacity[0], self.preserving
        return plain({
            "capacity": {
                "nats": headline.nats,
                "directions": headline.directions,
                "by_eps": self.capacity,
                "parameters": self.parameters,
                "rescalings": self.rescalings,
                "removed": preserving.removed,
                "removed_complete": preserving.converged,
                "removed_range": preserving.removed_range,
                "soft_removed": preserving.soft_removed,
                "subspace_error": preserving.subspace_error,
                "tolerance": preserving.tolerance,
                "displacement": preserving.displacement,
                "curvature_threshold": preserving.threshold,
                "convergence": self.convergence,
                "sensitivity": self.sensitivity,
            },
            "dimension": self.dimension,
            "literal": self.literal,
            "verdicts": self.verdicts or None,
            "closures": self.closures or None,
            "plasticity": self.plasticity,
            **said_scores(self),
        })


def literal_verdict(
    capacity: CapacityAtScale, dimension: Dimension, *, at_the_cut: int = 0
) -> Verdict:
    """Compare R_A with m_B; undecided where their 90 % intervals overlap.

    Args:
        capacity: R_A(t) at the headline scale.
        dimension: m_B.
        at_the_cut: Directions that lie too close to the projector's cut to be told apart.

    Returns:
        The verdict.
    """
    room, need = capacity.directions, dimension.stable_rank
    if dimension.no_demand:
        return Verdict(fires=False, margin=None, verdict="room left", note=need.note)
    if room.value is None or need.value is None:
        note = need.note if need.value is None else room.note
        return Verdict(fires=False, margin=None, verdict="undecided", note=note)
    margin = room.value - need.value
    stderr = math.hypot(room.stderr or 0.0, need.stderr or 0.0) + at_the_cut / Z90
    fires = margin < -Z90 * stderr
    verdict = "forgetting predicted" if fires else "room left"
    if abs(margin) <= Z90 * stderr:
        verdict = "undecided"
    return Verdict(fires=fires, margin=margin, stderr=stderr, verdict=verdict)


def _with_note(record: CapacityRecord, said: str) -> CapacityRecord:
    """Say something with the headlines: R_A and m_B."""
    first, *rest = record.capacity
    nats, directions = with_note(first.nats, said), with_note(first.directions, said)
    need = record.dimension
    if need is not None:
        need = replace(need, stable_rank=with_note(need.stable_rank, said))
    headline = replace(first, nats=nats, directions=directions)
    return replace(record, capacity=(headline, *rest), dimension=need)


@noting(_with_note)
def assess(
    model: FlatModel,
    theta: Tensor,
    old: Sequence[Task],
    new: Task | None,
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
        old: Every task learned so far, at least one; each keeps its own allowance.
        new: The task to come, B; None measures the capacity alone.
        jacobian: J_t of the training so far; None takes the identity.
        measure: Effort, scales, tolerance and displacement.
        displacement: Displacement scale when `measure` gives none: how far the last task moved
            theta, the most that one direction can be moved by a task like it.
        generator: Source of the probes.

    Returns:
        The record.
    """
    allowances = (
        [measure.tolerance] * len(old)
        if measure.tolerance
        else default_allowances(model, theta, old)
    )
    tolerance = math.fsum(allowances) / len(old)
    splits = [task.train.first(measure.curvature_samples) for task in old]
    pairs = list(zip(old, splits, strict=True))
    curvatures = [ggn(model, task, theta, split) for task, split in pairs]
    gradients = [loss_gradient(model, task, theta, split) for task, split in pairs]
    tolerances = [tolerance, *(tolerance * factor for factor in FACTORS)]
    projectors = shared_projectors(
        curvatures,
        theta,
        tolerances=tolerances if measure.sensitivity_eps else tolerances[:1],
        allowances=allowances,
        displacement=measure.displacement or displacement,
        generator=generator,
        max_products=_most_products(len(theta)),
    )
    preserving = projectors[0]
    # One Krylov space gives every scale: the table's come with the headline's.
    found = literal_capacity(
        jacobian,
        preserving,
        like=theta,
        eps=tuple(dict.fromkeys((*measure.eps, *measure.sensitivity_eps))),
        probes=measure.capacity_probes,
        nodes=measure.capacity_nodes,
        precision=measure.capacity_precision,
        generator=generator,
    )
    capacity = found[: len(measure.eps)]
    rows: tuple[SensitivityRow, ...] = ()
    if measure.sensitivity_eps:
        shown = sorted((at for at in found if at.eps in measure.sensitivity_eps), key=_scale)
        rows = sensitivity(jacobian, projectors, shown)
    dimension = literal = None
    if new is not None:
        split = new.train.first(measure.curvature_samples)
        dimension = literal_dimension(
            hessian(model, new, theta, split), preserving, like=theta, generator=generator
        )
        low, high = preserving.removed_range or (0, 0)
        literal = literal_verdict(capacity[0], dimension, at_the_cut=high - low)
    table = sorted(rows, key=lambda row: row.preserving.tolerance)
    return CapacityRecord(
        preserving=preserving,
        capacity=capacity,
        dimension=dimension,
        literal=literal,
        convergence=convergence(curvatures, gradients, preserving, [task.name for task in old]),
        sensitivity=tuple(table),
        plasticity=plasticity(model, theta, old[-1] if new is None else new),
        parameters=len(theta),
        rescalings=rescalings(model, theta, old),
    )


def _most_products(size: int) -> int:
    """Small networks can have their whole spectrum; in large ones memory bounds the basis."""
    return min(size, max(_PRODUCTS, _BASIS_NUMBERS // size))


def _scale(at: CapacityAtScale) -> float:
    return at.eps
