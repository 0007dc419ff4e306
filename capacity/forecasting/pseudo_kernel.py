"""Forecast by the pseudo-kernel flow: B's training as gradient flow of the linearised network.

A few hundred samples of B and of every task's test split are seen once at theta_A, one gradient
each, that of the sum of its outputs over sqrt(C); the Gram matrix of these times the identity over
outputs stands for the kernel (Mohamadi et al. 2023). In it B's loss flows for the learning time of
the plan, and carries the old tasks' outputs along (theory.md#pseudo-kernel-flow). Tasks with heads
of their own, and tables of outputs, take the exact kernel, on fewer samples. What the flow says of
itself is measured: where it takes theta, the network's own outputs are held against the linear
ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from capacity.base.interruption import check
from capacity.forecasting.kernel_flow import (
    LOST,
    NOTE,
    POWER_STEPS,
    Flow,
    integrate,
    largest_eigenvalue,
)
from capacity.forecasting.plan_time import Clock, FlowPlan, flow_plan
from capacity.forecasting.task_kernels import FEWEST, TaskKernels, TaskSide, square_of_batch
from capacity.forecasting.task_reading import Reading, rightly, targets_of
from capacity.networks.flat_model import FlatModel
from capacity.products.output_space import residual, task_outputs
from capacity.recipe.config import Training
from capacity.records.estimate import Estimate, Status, not_defined
from capacity.records.intervals import Z90
from capacity.records.jackknife import jackknife, mean_without
from capacity.tasks.losses import sample_losses
from capacity.tasks.task import Task

SAMPLES = 400
"""Samples of the new task that drive the flow."""
TESTS = 200
"""Test samples of a task that are read."""
_GROUPS = 4
"""Parts of B's samples that each flow by themselves, for the spread: a quarter of them all costs a
sixteenth."""
_TOLERANCE, _ROUGH = 3e-3, 1e-2
"""Error of B's outputs per step of the flow; and of a part of the samples, for its spread."""
_ROUNDING = 5e-4
"""Most that rounding to single precision may move B's outputs."""


@dataclass(frozen=True, kw_only=True)
class FlowForecast:
    """What the flow says, and what it says of itself.

    Attributes:
        old: Every old task, on linear outputs.
        new: The new task, on its test split; drop and rise are accuracy and loss themselves.
        moved: The same tasks, the new one last, as the network itself has them where the flow
            takes theta.
        off_line: How far its outputs there are from the linear ones, over how far these moved.
        learned: Share of B's loss, on the samples of the flow, that is gone in the end.
        displacement: |theta_B - theta_A|.
        delta: theta_B - theta_A (P,).
        samples: Samples of B that drove the flow.
        time: Learning time.
        spent: Operations.
    """

    old: tuple[Reading, ...]
    new: Reading
    moved: tuple[Reading, ...]
    off_line: float
    learned: float
    displacement: float
    delta: Tensor
    samples: int
    time: float
    spent: float


@dataclass(frozen=True)
class _End:
    """Where the flow ends: the dual variable, and the share of theta that decayed."""

    flow: Flow
    shrunk: float
    time: float
    spent: float

    @property
    def there(self) -> bool:
        return self.flow.finite and self.flow.arrived

    def at(self, side: TaskSide) -> Tensor:
        """Say where a task's outputs are (m, C)."""
        moved = side.f + self.flow.moved(side.cross).view_as(side.f)
        return moved if side.pull is None else moved + self.shrunk * side.pull


@torch.no_grad()
def forecast_by_flow(
    model: FlatModel,
    theta: Tensor,
    old: tuple[Task, ...],
    new: Task,
    training: Training,
    *,
    samples: int = SAMPLES,
    tests: int = TESTS,
    seed: int = 0,
) -> FlowForecast:
    """Forecast by the flow.

    Args:
        model: The network.
        theta: Its parameters after the old tasks (P,).
        old: The old tasks.
        new: The new task.
        training: Its planned training.
        samples: Most samples of the new task that drive the flow.
        tests: Most test samples of each task that are read.
        seed: Seed of the samples drawn.

    Returns:
        The forecast, `uncalibrated`; `diverged` where the flow goes nowhere. It is a ValueError
        that names what no flow is known to stand for: optimiser, strategy, layers that train
        otherwise than they are evaluated, too many outputs.
    """
    plan = _plan(model, new, training)
    with FlopCounterMode(display=False) as counter:
        side = TaskKernels(model, theta, old, new, plan, samples=samples, tests=tests, seed=seed)
    f, y = side.outputs, targets_of(side.split)
    # Counting looks at every operation; those of the flow, thousands of small ones, are known.
    end = _march(side.kernel, new, f, y, plan, side, _TOLERANCE)
    groups, kept = list[_End](), list[Tensor]()
    if end.there and len(f) >= _GROUPS * FEWEST:
        kept = [torch.arange(len(f), device=f.device) % _GROUPS == g for g in range(_GROUPS)]
        groups = [_alone(side, plan, keep, y) for keep in kept]
    with counter:
        delta = side.displacement(end.flow, end.shrunk)
        after = [task_outputs(model, theta + delta, s.task, s.split.x) for s in side.tests]
    linear = [end.at(s) for s in side.tests]
    off = [float((a - b).square().sum()) for a, b in zip(after, linear, strict=True)]
    went = [float((b - s.f).square().sum()) for b, s in zip(linear, side.tests, strict=True)]
    ends = [
        [group.at(_columns(s, keep, side.width)) for group, keep in zip(groups, kept, strict=True)]
        for s in side.tests
    ]
    read = [
        _reading(s, here, spread, end.there)
        for s, here, spread in zip(side.tests, linear, ends, strict=True)
    ]
    before, now = (float(sample_losses(new, g, y).mean()) for g in (f, end.flow.outputs.double()))
    return FlowForecast(
        old=tuple(read[:-1]),
        new=read[-1],
        moved=tuple(_reading(s, a, [], end.there) for s, a in zip(side.tests, after, strict=True)),
        off_line=math.sqrt(math.fsum(off) / max(math.fsum(went), 1e-300)),
        learned=1 - now / before if before > 0 else 0.0,
        displacement=float(delta.norm()),
        delta=delta,
        samples=len(f),
        time=end.time,
        spent=counter.get_total_flops() + math.fsum(each.spent for each in (end, *groups)),
    )


def _plan(model: FlatModel, new: Task, training: Training) -> FlowPlan:
    if training.strategy.name != "naive":
        raise ValueError(
            f"strategy = {training.strategy.name!r} adds to the training what the flow of the new "
            "task's loss does not have; forecast it with a budget"
        )
    if model.two_modes:
        raise ValueError(
            f"{model.modes.named} trains otherwise than it is evaluated, and the flow knows one "
            "network; put it into evaluation mode, or forecast with a budget"
        )
    plan = flow_plan(training, len(new.train), model.layout)
    if any(plan.shrinks) and not model.transforms:
        raise ValueError(
            "weight_decay moves outputs by a forward derivative, which a torch.autograd.Function "
            "of the model does not let through; write it with setup_context, or take weight_decay=0"
        )
    return plan


def _size(kernel: Tensor, task: Task, f: Tensor, y: Tensor, plan: FlowPlan, samples: int) -> float:
    """Mean square of a batch's gradient in the kernel's metric."""
    n, r = len(f), residual(task, f, y)
    rows = r.to(kernel).reshape(len(kernel), -1)
    own = kernel.diagonal()[:, None] * rows.square()
    mean = (rows * (kernel @ rows)).sum() / n**2
    if len(kernel) > n:  # an exact kernel has a block per sample
        wide = len(kernel) // n
        blocks = kernel.view(n, wide, n, wide).diagonal(dim1=0, dim2=2)
        own = torch.einsum("abn,na,nb->n", blocks, r.to(kernel), r.to(kernel))
    return float(square_of_batch(mean.clamp(min=0).sqrt(), own.sum() / n, n, plan.batch, samples))


def _march(
    kernel: Tensor,
    task: Task,
    f: Tensor,
    y: Tensor,
    plan: FlowPlan,
    side: TaskKernels,
    tolerance: float,
    pull: Tensor | None = None,
) -> _End:
    """Let the plan's time pass, segment by segment where it depends on the gradients."""
    pull = side.pull if pull is None else pull
    clock, samples = Clock(plan, side.norm), len(task.train)
    first = 0.0 if plan.steady else _size(kernel, task, f, y, plan, samples)
    largest = largest_eigenvalue(kernel)
    rounding = torch.finfo(torch.float32).eps * largest / len(f) * math.fsum(plan.times)
    # The metric of normalised steps speeds up; a decade is room enough.
    single = rounding * (10 if plan.normalised else 1) < min(_ROUNDING, tolerance / 5)
    used = kernel.float() if single else kernel
    flow, shrunk, time, products = None, 0.0, 0.0, POWER_STEPS
    for steps in plan.segments():
        check()
        size = 1.0
        if flow is not None:
            size = _size(kernel, task, flow.outputs.double(), y, plan, samples) / max(first, 1e-300)
            products += 1
        passed, half = clock.passed(steps, size), math.fsum(plan.shrinks[steps]) / 2
        # Strang's splitting: half of the decay, the flow, the other half.
        flow, shrunk = _shrink(flow, shrunk, half)
        start = f if pull is None else f + shrunk * pull
        (flow,) = integrate(
            used, task, start, y, [passed], tolerance=tolerance, begin=flow, largest=largest
        )
        products += flow.products
        flow, shrunk = _shrink(flow, shrunk, half)
        assert flow is not None
        time += passed
        if not (flow.finite and flow.arrived):
            break
    assert flow is not None
    columns = f.numel() // len(kernel)
    double = replace(flow, dual=flow.dual.double(), outputs=flow.outputs.double())
    return _End(double, shrunk, time, 2.0 * products * columns * len(kernel) ** 2)


def _shrink(flow: Flow | None, shrunk: float, by: float) -> tuple[Flow | None, float]:
    if by == 0:
        return flow, shrunk
    left = math.exp(-by)
    made = None if flow is None else replace(flow, dual=flow.dual * left)
    return made, (1 + shrunk) * left - 1


def _alone(side: TaskKernels, plan: FlowPlan, keep: Tensor, y: Tensor) -> _End:
    """Run the flow on some of the samples."""
    rows = keep.repeat_interleave(side.width)
    kernel, f = side.kernel[rows][:, rows], side.outputs[keep]
    pull = None if side.pull is None else side.pull[keep]
    return _march(kernel, side.tests[-1].task, f, y[keep], plan, side, _ROUGH, pull)


def _columns(side: TaskSide, keep: Tensor, width: int) -> TaskSide:
    return replace(side, cross=side.cross[:, keep.repeat_interleave(width)])


def _reading(side: TaskSide, after: Tensor, parts: Sequence[Tensor], there: bool) -> Reading:
    """Read a task off its outputs; the error is of its own samples and of B's."""
    whole = _measured(side, after)
    apart = [_measured(side, outputs) for outputs in parts]
    made = {
        part: _estimate(values, [float(each[part].mean()) for each in apart], there)
        for part, values in whole.items()
    }
    if not side.task.scored:
        nothing = not_defined("Accuracy is not defined without a class per sample; read the loss.")
        made["drop"] = made["accuracy"] = nothing
    if side.new:
        made["drop"], made["rise"] = made["accuracy"], made["loss"]
    return Reading(**made)


def _measured(side: TaskSide, after: Tensor) -> dict[str, Tensor]:
    """One number per sample for each part of a reading."""
    task, y = side.task, targets_of(side.split)
    end, start = (sample_losses(task, f, y) for f in (after, side.f))
    made = {"rise": end - start, "loss": end}
    if task.scored:
        accuracy, before = (rightly(task, f, y) for f in (after, side.f))
        made |= {"drop": before - accuracy, "accuracy": accuracy}
    return made


def _estimate(values: Tensor, parts: list[float], there: bool) -> Estimate:
    value = float(values.mean())
    if not (there and math.isfinite(value)):
        return Estimate(value=None, status=Status.DIVERGED, note=LOST)
    own = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    made = jackknife(value, mean_without(torch.tensor(parts)) if parts else [])
    stderr = math.hypot(made.stderr or 0.0, own)
    # The quantile of the coarser part: a few groups of B's samples.
    wide = 0.0
    if made.interval is not None and made.stderr:
        wide = (made.interval[1] - made.interval[0]) / 2 / made.stderr
    half = max(wide, Z90) * stderr
    return Estimate(
        value=value,
        stderr=stderr,
        interval=(value - half, value + half),
        status=Status.UNCALIBRATED,
        n=len(values),
        note=NOTE,
    )
