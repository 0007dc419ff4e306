"""Controls: numbers said to matter by themselves, turned so that more means more forgetting."""

from __future__ import annotations

import math

from capacity.criterion.compatible_capacity import literal_capacity
from capacity.criterion.plasticity import plasticity
from capacity.criterion.preserving import (
    Preserving,
    default_allowances,
)
from capacity.criterion.preserving_union import shared_projectors
from capacity.criterion.task_dimension import Dimension, literal_dimension
from capacity.predictors.predictor import Cell, Outcome, Predictor, same
from capacity.products.curvature_operators import ggn, hessian
from capacity.recipe.config import Measure

_NO_SCALE = "R_A and m_B need the displacement of the training before, which is not given."


def effective_rank(cell: Cell) -> Outcome:
    """Minus the effective rank of the last layer's features on B (Roy & Vetterli 2007), an index.

    Args:
        cell: The replica.

    Returns:
        The same for every old task.
    """
    found = plasticity(cell.model, cell.theta, cell.new).feature_rank
    return found.note if found.value is None else same(-found.value, cell)


EFFECTIVE_RANK = Predictor(
    name="effective_rank",
    title="control: effective rank of the features",
    source="Roy & Vetterli 2007",
    of=effective_rank,
)


def capacity_alone(cell: Cell) -> Outcome:
    """Minus R_A in directions, all old tasks together, an index.

    Args:
        cell: The replica.

    Returns:
        The same for every old task.
    """
    preserving = _preserving(cell)
    if preserving is None:
        return _NO_SCALE
    defaults = Measure()
    found = literal_capacity(
        cell.setting.jacobian,
        preserving,
        like=cell.theta,
        eps=defaults.eps[:1],
        probes=defaults.capacity_probes,
        nodes=defaults.capacity_nodes,
        generator=cell.generator("capacity"),
    )[0].directions
    return found.note if found.value is None else same(-found.value, cell)


CAPACITY_ALONE = Predictor(
    name="capacity_alone",
    title="control: R_A alone",
    source="theory.md#compatible-capacity; arXiv 2602.07950",
    of=capacity_alone,
)


def dimension_alone(cell: Cell) -> Outcome:
    """m_B, the stable rank of P_A H_B P_A, an index; 0 where B asks nothing of that space.

    Args:
        cell: The replica.

    Returns:
        The same for every old task.
    """
    preserving = _preserving(cell)
    if preserving is None:
        return _NO_SCALE
    split = cell.new.train.first(Measure().curvature_samples)
    found: Dimension = literal_dimension(
        hessian(cell.model, cell.new, cell.theta, split),
        preserving,
        like=cell.theta,
        generator=cell.generator("dimension"),
    )
    if found.no_demand:
        return same(0.0, cell)
    rank = found.stable_rank
    return rank.note if rank.value is None else same(rank.value, cell)


DIMENSION_ALONE = Predictor(
    name="dimension_alone",
    title="control: m_B alone",
    source="theory.md#task-dimension; arXiv 2602.07950",
    of=dimension_alone,
)


def _preserving(cell: Cell) -> Preserving | None:
    """P_A at the default tolerance, as a run has it."""
    if cell.setting.displacement is None:
        return None
    if cell.preserving is None:
        samples = Measure().curvature_samples
        allowances = default_allowances(cell.model, cell.theta, cell.old)
        cell.preserving = shared_projectors(
            [ggn(cell.model, task, cell.theta, task.train.first(samples)) for task in cell.old],
            cell.theta,
            tolerances=[math.fsum(allowances) / len(allowances)],
            allowances=allowances,
            displacement=cell.setting.displacement,
            generator=cell.generator("preserving"),
        )[0]
    return cell.preserving
