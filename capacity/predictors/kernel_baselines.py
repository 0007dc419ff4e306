"""Baselines from the kernel at theta_A: the closed-form flow behind B3 to B5, and overlaps (B6).

With the half squared error the linearised gradient flow on B has the closed form
D = Phi_B' K_BB^-1 E_t (y_B - f_B), E_t = 1 - exp(-t K_BB), t = S/n on n samples (their mean loss).
Labels are one-hot targets here, whatever loss the training has: that is what the baselines do.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from capacity.base.differential import pushforward
from capacity.predictors.predictor import Cell, Outcome, Predictor, Value, both
from capacity.products.feature_rows import features
from capacity.products.output_sketches import every_output
from capacity.products.output_space import task_outputs
from capacity.products.row_sets import Features
from capacity.strategies.gpm import GPM
from capacity.strategies.terms import HERE, of_replica
from capacity.tasks.task import Split, Task

_CHUNK = 1024
_RANK = 1e-10
"""Directions fainter than this part of the strongest are rounding, not span."""

DIRECTIONS = 20
"""k of B6: leading directions of each task's gradients."""


def displacement(cell: Cell) -> Tensor:
    """D: where the closed-form flow on the half squared error takes theta.

    Args:
        cell: The replica.

    Returns:
        D (P,), in theta's precision.
    """
    if cell.moved is not None:
        return cell.moved
    task, split = cell.new, cell.new.train.first(cell.setting.samples)
    rows = _rows(cell, task, split)
    values, vectors = torch.linalg.eigh(rows.gram(rows).double())
    f = task_outputs(cell.model, cell.theta, task, split.x)
    missing = vectors.T @ (_targets(f, split.y) - f).flatten()
    weights = vectors @ (_grown(values, cell.time / len(split)) * missing)
    cell.moved = rows.adjoint(weights[None].to(cell.theta))[0].to(cell.theta)
    return cell.moved


def _grown(values: Tensor, time: float) -> Tensor:
    """(1 - exp(-t lambda))/lambda, which is t where lambda is 0."""
    values = values.clamp(min=0)
    tiny = values <= torch.finfo(values.dtype).tiny
    safe = torch.where(tiny, torch.ones_like(values), values)
    return torch.where(tiny, torch.full_like(values, time), -torch.expm1(-time * safe) / safe)


def mse_drift(cell: Cell) -> Outcome:
    """B5: half of (|r_A + Phi_A D|^2 - |r_A|^2)/N_A, r_A = f_A - y_A, over A's test split.

    With K_AB K_BB^-1 E_t (y_B - f_B) = Phi_A D (2606.18024). The half goes with this package's
    squared error. The accuracy is that of the drifted outputs.

    Args:
        cell: The replica.

    Returns:
        A value per old task: the loss in its unit for the half squared error.
    """
    moved, made = displacement(cell), []
    for task in cell.old:
        f, change = _drift(cell, task, moved)
        y = task.test.y
        read, off = task.select(f), task.select(change)
        r = read - _targets(read, y)
        rise = 0.5 * float(((r + off).square() - r.square()).sum()) / len(f)
        drop = float(task.accuracy_of(f, y) - task.accuracy_of(f + change, y))
        made.append(Value(drop, rise))
    return made


def _drift_units(task: Task) -> frozenset[str]:
    return both(task) if task.loss == "mse" else frozenset({"accuracy_drop"})


MSE_DRIFT = Predictor(
    name="mse_drift",
    code="B5",
    title="closed-form drift of the squared error",
    source="arXiv 2606.18024",
    of=mse_drift,
    in_units=_drift_units,
)


def subspace_overlap(cell: Cell) -> Outcome:
    """B6: |V_A' V_B|_F^2/k, V the leading k directions of the outputs' gradients (0 to 1).

    Args:
        cell: The replica.

    Returns:
        A value per old task.
    """
    new = _rows(cell, cell.new, cell.new.train.first(cell.setting.samples))
    basis_b, strength_b = _leading(new)
    made = []
    for task in cell.old:
        old = _rows(cell, task, task.train.first(cell.setting.samples))
        basis_a, strength_a = _leading(old)
        inner = basis_a.T @ old.gram(new).double() @ basis_b
        inner = inner / strength_a[:, None] / strength_b
        index = float(inner.square().sum()) / min(inner.shape)
        made.append(Value(index, index))
    return made


SUBSPACE_OVERLAP = Predictor(
    name="subspace_overlap",
    code="B6",
    title="overlap of the leading gradient directions",
    source="Doan et al. 2021 (arXiv 2010.04003)",
    of=subspace_overlap,
)


def input_overlap(cell: Cell) -> Outcome:
    """B6, GPM's residual: the share of |g_B|^2 within the old inputs' spaces, 1 - residual.

    Args:
        cell: The replica.

    Returns:
        A value per old task.
    """
    gpm, made = GPM(samples=cell.setting.samples), []
    size = float(cell.gradient.double().square().sum())
    for task in cell.old:
        try:
            bases = gpm.prepare(cell.model, cell.theta[None], (task,), None, HERE)
        except ValueError as error:
            return f"{error}."
        plan = gpm.contribution(cell.model, (task,), cell.new, cell.training, bases, HERE)
        assert plan.projector is not None
        left = plan.projector.apply(cell.gradient, of_replica(plan.projector.private, 0))
        index = 1 - float(left.double().square().sum()) / max(size, 1e-300)
        made.append(Value(index, index))
    return made


INPUT_OVERLAP = Predictor(
    name="input_overlap",
    code="B6",
    title="share of B's gradient in A's input spaces",
    source="Saha et al. 2021 (arXiv 2103.09762)",
    of=input_overlap,
)


def _rows(cell: Cell, task: Task, split: Split) -> Features:
    width = task_outputs(cell.model, cell.theta, task, split.x[:1]).shape[1]
    every = every_output(len(split), width, cell.theta)
    return features(cell.model, cell.theta, task, split.x, every)


def _leading(rows: Features) -> tuple[Tensor, Tensor]:
    """Left singular vectors (m, k) and singular values (k,) of Phi, the largest k."""
    values, vectors = torch.linalg.eigh(rows.gram(rows).double())
    values, vectors = values.flip(0)[:DIRECTIONS], vectors.flip(1)[:, :DIRECTIONS]
    strong = values > _RANK * values[0]
    return vectors[:, strong], values[strong].sqrt()


def _targets(outputs: Tensor, y: Tensor) -> Tensor:
    if y.is_floating_point():
        return y.reshape(outputs.shape).to(outputs)
    return one_hot(y, outputs.shape[-1]).to(outputs)


@torch.no_grad()
def _drift(cell: Cell, task: Task, moved: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs on A's test split and their linear change, float64."""
    parts = [
        pushforward(lambda t, x=x: cell.model.outputs(t, x), (cell.theta,), (moved,))
        for x in task.test.x.split(_CHUNK)
    ]
    f, change = (torch.cat([part[i] for part in parts]).double() for i in range(2))
    return f, change
