"""How far learning B will carry A's outputs, in function space: the directional measure (ours).

B's gradient flow moves A's outputs by df_A = K_AB a / n (see `kernel_flow`), for the learning time
that B's training will have. A sample of A is lost when df_A exceeds its margin, so the share of A
that is lost is a number with a meaning and a natural threshold. Unlike dimensions, it sees where B
goes, not only how much room there is: a task that pulls the same way as A moves A's outputs far and
forgets nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from capacity.base.checks import positive_float, positive_int
from capacity.base.interruption import check
from capacity.forecasting.kernel_flow import (
    LOST,
    NOTE,
    Flow,
    integrate,
    largest_eigenvalue,
)
from capacity.networks.flat_model import FlatModel
from capacity.products.feature_rows import features
from capacity.products.output_sketches import every_output, summed_outputs
from capacity.products.output_space import loss_on_outputs, metric, residual, task_outputs
from capacity.products.row_sets import Features
from capacity.records.estimate import Estimate, Status, not_defined
from capacity.records.intervals import Z90
from capacity.records.jackknife import jackknife
from capacity.records.plain import Plain
from capacity.tasks.losses import sample_losses
from capacity.tasks.task import Split, Task

_ROWS = 1000
"""Most rows of an exact kernel, where the pseudo-kernel does not apply."""
_TOLERANCE = 1e-3
"""Error of B's outputs per step of the flow, relative to how far they move."""
_ROUNDING = 0.015
"""Share of the tolerance per step that rounding may take; from 0.02 on it made steps smaller."""


@dataclass(frozen=True, kw_only=True)
class Drift(Plain):
    """What B's gradient flow does to A, the average over the old tasks.

    Attributes:
        lost: Expected drop of A's accuracy: share of samples whose margin is crossed, net of those
            that are won.
        loss_rise: Expected rise of A's loss on the moved outputs.
        second_order: The same to second order, 1/2 df'H df - r'df, which knows no saturation.
        distance: Root mean square displacement |df| of A's output vectors.
        first_order: The same if the residual never shrank: S |K_AB r_0| / n per output vector.
        displacement: Expected |theta_B - theta_A|.
        new_loss: B's expected training loss at the end.
        time: Learning time S.
    """

    lost: Estimate
    loss_rise: Estimate
    second_order: Estimate
    distance: Estimate
    first_order: Estimate
    displacement: Estimate
    new_loss: Estimate
    time: float


@dataclass(frozen=True)
class _Old:
    """One old task at theta_A: its held-out samples, outputs, and kernel with B's rows."""

    task: Task
    split: Split
    f: Tensor
    cross: Tensor


@torch.no_grad()
def expected_drift(
    model: FlatModel,
    theta: Tensor,
    old: Sequence[Task],
    new: Task,
    *,
    time: float,
    new_samples: int = 400,
    old_samples: int = 400,
    groups: int = 5,
) -> Drift:
    """Estimate what learning B will do to A's outputs, before B is learned.

    Where all tasks read the same outputs the pseudo-kernel is used; tasks with heads of their own
    have different kernels for different pairs of outputs and take the exact one, on fewer samples.

    Args:
        model: The network.
        theta: Where it is linearised (P,).
        old: The old tasks; scored on their held-out samples.
        new: The new task B; its training samples drive the flow.
        time: Learning time S of B's training.
        new_samples: Most samples of B.
        old_samples: Most samples of all old tasks together.
        groups: Groups of B's samples, left out one by one for the standard error; 0 gives none.

    Returns:
        The record.
    """
    positive_float("time", time)
    positive_int("new_samples", new_samples)
    positive_int("old_samples", old_samples)
    pseudo = all(task.outputs == new.outputs for task in old)
    per_task = math.ceil(old_samples / len(old))
    split = new.train.first(new_samples)
    f = task_outputs(model, theta, new, split.x[:1])
    if not pseudo:
        split = new.train.first(min(new_samples, max(2, _ROWS // f.shape[1])))
    f = task_outputs(model, theta, new, split.x)

    def rows_of(task: Task, x: Tensor, outputs: int) -> Features:
        choose = summed_outputs if pseudo else every_output
        return features(model, theta, task, x, choose(len(x), outputs, theta))

    rows = rows_of(new, split.x, f.shape[1])
    kernel = rows.gram(rows)
    parts = []
    for task in old:
        held = task.test.first(per_task)
        f_old = task_outputs(model, theta, task, held.x)
        cross = rows_of(task, held.x, f_old.shape[1]).gram(rows)
        parts.append(_Old(task, held, f_old, cross))

    width = len(kernel) // len(f)
    flow = integrate(kernel, new, f, split.y, [time], tolerance=_TOLERANCE)[0]
    whole, samples_error = _measure(flow, kernel, parts, new, f, split.y)
    left_out = []
    if flow.finite and flow.arrived and groups >= 2 and len(f) >= 2 * groups:
        # For the spread alone a looser tolerance does, and single precision at half the price.
        tolerance = 3 * _TOLERANCE
        precision = torch.float32 if _single_does(kernel, flow, f, tolerance) else torch.float64
        rough = kernel.to(precision)
        crosses = [part.cross.to(precision) for part in parts]
        for g in range(groups):
            check()
            keep = (torch.arange(len(f)) % groups != g).to(f.device)
            r = keep.repeat_interleave(width)
            some = [
                replace(part, cross=cross[:, r]) for part, cross in zip(parts, crosses, strict=True)
            ]
            without, rest, y = rough[r][:, r], f[keep], split.y[keep]
            flow = integrate(without, new, rest, y, [time], tolerance=tolerance)[0]
            left_out.append(_measure(flow, without, some, new, rest, y)[0])
    made = {
        name: _estimate(value, [part[name] for part in left_out], samples_error.get(name, 0.0))
        for name, value in whole.items()
    }
    if not all(task.classifies for task in old):
        made["lost"] = not_defined("Accuracy is not defined for regression; read the loss.")
    return Drift(**made, time=time)


def _estimate(value: float, left_out: list[float], error: float) -> Estimate:
    """Add the error from A's samples to the jackknife over B's."""
    made = jackknife(value, left_out)
    if made.value is None:
        return Estimate(value=None, status=Status.DIVERGED, note=LOST)
    stderr = math.hypot(made.stderr or 0.0, error)
    # The quantile of the coarser part: a few groups of B's samples.
    wide = (
        0.0
        if made.interval is None or not made.stderr
        else ((made.interval[1] - made.interval[0]) / 2 / made.stderr)
    )
    half = max(wide, Z90) * stderr
    return Estimate(
        value=value,
        stderr=stderr,
        interval=(value - half, value + half),
        status=Status.UNCALIBRATED,
        n=made.n,
        note=NOTE,
    )


def _single_does(kernel: Tensor, flow: Flow, f: Tensor, tolerance: float) -> bool:
    """Whether rounding to single precision stays far below the error allowed per step."""
    # Rounding of the dual variable reaches the outputs through the kernel. Where it comes near the
    # tolerance the step size control takes it for error, and steps get ever smaller.
    dual = float(flow.dual.square().mean().sqrt())
    moved = float((flow.outputs - f).square().mean().sqrt())
    rounding = torch.finfo(torch.float32).eps * largest_eigenvalue(kernel) / len(f) * dual
    return rounding <= _ROUNDING * tolerance * (1 + moved)


def _measure(
    flow: Flow, kernel: Tensor, parts: Sequence[_Old], new: Task, f: Tensor, y: Tensor
) -> tuple[dict[str, float], dict[str, float]]:
    """Measure everything once, and its standard errors from the draw of A's samples."""
    start = residual(new, f, _double(y)).to(kernel)
    first = Flow(time=flow.time, dual=flow.time * start, outputs=f, products=1, finite=True)
    sums = dict.fromkeys(("lost", "loss_rise", "second_order"), 0.0)
    squares, variances = [0.0, 0.0], dict.fromkeys(sums, 0.0)
    for part in parts:
        moved = flow.moved(part.cross).double().view_as(part.f)
        for name, values in _per_sample(part, moved).items():
            sums[name] += float(values.mean()) / len(parts)
            spread = float(values.var()) / len(values) if len(values) > 1 else 0.0
            variances[name] += spread / len(parts) ** 2
        early = first.moved(part.cross).view_as(part.f)
        for i, shift in enumerate((moved, early)):
            squares[i] += float(shift.square().sum(1).mean()) / len(parts)
    whole = {
        **sums,
        "distance": math.sqrt(squares[0]),
        "first_order": math.sqrt(squares[1]),
        "displacement": flow.distance(kernel),
        "new_loss": float(loss_on_outputs(new)(flow.outputs.double(), _double(y))),
    }
    if not (flow.finite and flow.arrived):
        whole = dict.fromkeys(whole, math.nan)
    return whole, {name: math.sqrt(v) for name, v in variances.items()}


def _per_sample(part: _Old, moved: Tensor) -> dict[str, Tensor]:
    """Give the measures of every sample of an old task; losses become per-sample ones."""
    y = _double(part.split.y)
    after = part.f + moved
    if part.task.classifies:
        lost = (part.f.argmax(1) == y).double() - (after.argmax(1) == y).double()
        lost = lost[part.task.counted(y)]
    else:
        lost = torch.zeros(len(y), dtype=torch.float64, device=moved.device)
    curved = torch.einsum("nc,ncd,nd->n", moved, metric(part.task, part.f, y), moved)
    slope = (residual(part.task, part.f, y) * moved).sum(1)
    return {
        "lost": lost,
        "loss_rise": sample_losses(part.task, after, y) - sample_losses(part.task, part.f, y),
        "second_order": 0.5 * curved - slope,
    }


def _double(y: Tensor) -> Tensor:
    return y.double() if y.is_floating_point() else y
