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

from capacity.base.differential import pushforward, slope_of
from capacity.base.interruption import check
from capacity.base.random_streams import stream_seed
from capacity.forecasting.budget import FEWEST_TESTS
from capacity.forecasting.kernel_flow import POWER_STEPS, Flow, integrate, largest_eigenvalue
from capacity.forecasting.plan_time import Clock, FlowPlan, flow_plan
from capacity.forecasting.task_reading import Reading, drawn, rightly, targets_of
from capacity.networks.flat_model import FlatModel
from capacity.products.feature_rows import features, hashed
from capacity.products.output_sketches import every_output, summed_outputs
from capacity.products.output_space import residual, task_outputs
from capacity.products.row_sets import Features, LayerFeatures, RowFeatures
from capacity.recipe.config import Training
from capacity.records.estimate import Estimate, Status, not_defined
from capacity.records.intervals import Z90
from capacity.records.jackknife import jackknife, mean_without
from capacity.tasks.losses import sample_losses
from capacity.tasks.task import Split, Task

SAMPLES = 400
"""Samples of the new task that drive the flow."""
TESTS = 200
"""Test samples of a task that are read."""
_ROWS = 1000
"""Most rows of an exact kernel, where the pseudo-kernel does not apply."""
_NUMBERS = 1 << 22
"""Most numbers that the flow moves at a time."""
_FEWEST = 16
"""Samples below which no kernel is worth its name."""
_HASHED = 2048
"""Numbers that a row of more parameters is hashed to."""
_MOMENTS = 200
"""Samples behind the squares of gradients."""
_GROUPS = 4
"""Parts of B's samples that each flow by themselves, for the spread: a quarter of them all costs a
sixteenth."""
_TOLERANCE, _ROUGH = 3e-3, 1e-2
"""Error of B's outputs per step of the flow; and of a part of the samples, for its spread."""
_ROUNDING = 5e-4
"""Most that rounding to single precision may move B's outputs."""

NOTE = (
    "Gradient flow of the linearised network on some of B's samples; the interval covers which "
    "samples of A and B were taken, not the error of the linearisation."
)
LOST = (
    "The flow left the range of the numbers, or the learning time is so long against the fastest "
    "mode's that the training itself could not be stable: a smaller lr usually helps."
)


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
class _Side:
    """Test samples of a task at theta: outputs (m, C), kernel with B's rows, what decay moves."""

    task: Task
    split: Split
    f: Tensor
    cross: Tensor
    pull: Tensor | None
    new: bool


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

    def at(self, side: _Side) -> Tensor:
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
        side = _Sides(model, theta, old, new, plan, samples=samples, tests=tests, seed=seed)
    f, y = side.outputs, targets_of(side.split)
    # Counting looks at every operation; those of the flow, thousands of small ones, are known.
    end = _march(side.kernel, new, f, y, plan, side, _TOLERANCE)
    groups, kept = list[_End](), list[Tensor]()
    if end.there and len(f) >= _GROUPS * _FEWEST:
        kept = [torch.arange(len(f), device=f.device) % _GROUPS == g for g in range(_GROUPS)]
        groups = [_alone(side, plan, keep, y) for keep in kept]
    with counter:
        delta = side.displacement(end)
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


class _Sides:
    """Everything at theta_A: B's samples and their kernel, and the test samples beside them.

    Attributes:
        split: Samples of B that drive the flow.
        outputs: Their outputs (n, C).
        kernel: K_BB, (n, n) of a pseudo-kernel, else (n C, n C).
        width: Rows per sample.
        pull: What weight decay would move of their outputs (n, C); None without.
        tests: Test samples of the old tasks, then of the new one.
        norm: Root mean square norm of a batch's gradient; 1 where nobody asks.
    """

    def __init__(
        self,
        model: FlatModel,
        theta: Tensor,
        old: tuple[Task, ...],
        new: Task,
        plan: FlowPlan,
        *,
        samples: int,
        tests: int,
        seed: int,
    ) -> None:
        self._model, self._theta, self._new, self._plan = model, theta, new, plan
        self._seed = stream_seed(seed, "flow", "buckets")
        # In a table (tokens, pixels) each place's outputs move those of all other places.
        alike = all(task.outputs == new.outputs for task in old)
        self._pseudo = alike and model.table is None
        wide = task_outputs(model, theta, new, new.train.x[:1]).shape[1]
        most = min(samples, _NUMBERS // wide, *(() if self._pseudo else (_ROWS // wide,)))
        if most < min(_FEWEST, samples):
            raise ValueError(
                f"task {new.name!r} has {wide} outputs per sample, too many for a kernel over "
                f"{_FEWEST} samples; forecast it with a budget"
            )
        self.split = drawn(new.train, most, seed, f"{new.name}, flow")
        self.outputs = task_outputs(model, theta, new, self.split.x)
        self.norm, self._scale = 1.0, plan.scale
        if plan.normalised or plan.clip is not None:
            moments = self._moments()
            self.norm = math.sqrt(float(moments.sum()))
            if plan.normalised:
                # What no sample of B moves stays, though a sum of outputs would move it.
                root = (moments > 0) / (moments.sqrt() + plan.eps)
                self._scale = root if plan.scale is None else root * plan.scale.to(root)
        rows = self._rows(new, self.split.x, wide)
        self.width = rows.count // len(self.split)
        self.kernel = rows.gram(rows)
        self.pull = self._pull(new, self.split.x)
        self.tests = [
            self._side(task, drawn(task.test, max(tests, FEWEST_TESTS), seed, task.name), rows)
            for task in (*old, new)
        ]

    def displacement(self, end: _End) -> Tensor:
        """Say where the flow takes theta (P,)."""
        dual = (end.flow.dual / len(self.split)).to(self._theta)

        def moved(theta: Tensor) -> Tensor:
            f = self._new.select(self._model.outputs(theta, self.split.x))
            return (f * dual).sum()

        delta, _ = slope_of(moved)(self._theta)
        delta = delta if self._scale is None else delta * self._scale.to(delta)
        return delta + end.shrunk * self._decaying()

    def _side(self, task: Task, split: Split, rows: Features) -> _Side:
        f = task_outputs(self._model, self._theta, task, split.x)
        cross = self._rows(task, split.x, f.shape[1]).gram(rows)
        return _Side(task, split, f, cross, self._pull(task, split.x), task is self._new)

    def _rows(self, task: Task, x: Tensor, outputs: int) -> Features:
        choose = summed_outputs if self._pseudo else every_output
        model, theta = self._model, self._theta
        directions = choose(len(x), outputs, theta)
        if self._scale is None and model.transforms:
            made = features(model, theta, task, x, directions)
            if isinstance(made, LayerFeatures):
                return made
        scale = None if self._scale is None else self._scale.sqrt()
        return hashed(model, theta, task, x, directions, scale=scale, kept=_HASHED, seed=self._seed)

    def _moments(self) -> Tensor:
        """Mean square of a batch's gradient, parameter by parameter (P,)."""
        split, f = self.split, self.outputs[:_MOMENTS]
        r = residual(self._new, f, targets_of(split)[: len(f)])[:, None]
        x = split.x[: len(f)]
        rows = features(self._model, self._theta, self._new, x, r, method="rows")
        assert isinstance(rows, RowFeatures)
        total = squares = torch.zeros_like(self._theta)
        for part in rows.chunks():
            these = rows.rows(part)
            total, squares = total + these.sum(0), squares + these.square().sum(0)
        n = len(f)
        return _of_batch(total / n, squares / n, n, self._plan.batch, len(self._new.train))

    def _decaying(self) -> Tensor:
        pulled = self._plan.pulled
        return self._theta if pulled is None else self._theta * pulled.to(self._theta)

    def _pull(self, task: Task, x: Tensor) -> Tensor | None:
        if not any(self._plan.shrinks):
            return None
        _, moved = pushforward(
            lambda t: task.select(self._model.outputs(t, x)), (self._theta,), (self._decaying(),)
        )
        return moved.double()


def _of_batch(mean: Tensor, square: Tensor, n: int, batch: int, samples: int) -> Tensor:
    """Mean square of a mean over a batch, from mean and mean square over n samples, unbiased."""
    whole = ((n * mean.square() - square) / max(n - 1, 1)).clamp(min=0)
    noise = (square - whole).clamp(min=0)
    return whole + noise * (1 - batch / samples) / batch


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
    return float(_of_batch(mean.clamp(min=0).sqrt(), own.sum() / n, n, plan.batch, samples))


def _march(
    kernel: Tensor,
    task: Task,
    f: Tensor,
    y: Tensor,
    plan: FlowPlan,
    side: _Sides,
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


def _alone(side: _Sides, plan: FlowPlan, keep: Tensor, y: Tensor) -> _End:
    """Run the flow on some of the samples."""
    rows = keep.repeat_interleave(side.width)
    kernel, f = side.kernel[rows][:, rows], side.outputs[keep]
    pull = None if side.pull is None else side.pull[keep]
    return _march(kernel, side.tests[-1].task, f, y[keep], plan, side, _ROUGH, pull)


def _columns(side: _Side, keep: Tensor, width: int) -> _Side:
    return replace(side, cross=side.cross[:, keep.repeat_interleave(width)])


def _reading(side: _Side, after: Tensor, parts: Sequence[Tensor], there: bool) -> Reading:
    """Read a task off its outputs; the error is of its own samples and of B's."""
    whole = _measured(side, after)
    apart = [_measured(side, outputs) for outputs in parts]
    made = {
        part: _estimate(values, [float(each[part].mean()) for each in apart], there)
        for part, values in whole.items()
    }
    if not side.task.classifies:
        nothing = not_defined("Accuracy is not defined without a class per sample; read the loss.")
        made["drop"] = made["accuracy"] = nothing
    if side.new:
        made["drop"], made["rise"] = made["accuracy"], made["loss"]
    return Reading(**made)


def _measured(side: _Side, after: Tensor) -> dict[str, Tensor]:
    """One number per sample for each part of a reading."""
    task, y = side.task, targets_of(side.split)
    end, start = (sample_losses(task, f, y) for f in (after, side.f))
    made = {"rise": end - start, "loss": end}
    if task.classifies:
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
