"""Kernels of tasks at theta, for the flow of a new one: its own, and those of test samples with it.

K_gB = J_g S J_B' of the outputs' Jacobians in the metric S of the optimiser (1 for steps along the
gradient, the roots of squared gradients for normalised ones); of the summed outputs alone where all
tasks read the same (theory.md#pseudo-kernel-flow).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.base.differential import pushforward, slope_of
from capacity.base.random_streams import stream_seed
from capacity.forecasting.budget import FEWEST_TESTS
from capacity.forecasting.kernel_flow import Flow
from capacity.forecasting.plan_time import FlowPlan
from capacity.forecasting.task_reading import drawn, targets_of
from capacity.networks.flat_model import FlatModel
from capacity.products.feature_rows import features, hashed
from capacity.products.output_sketches import every_output, summed_outputs
from capacity.products.output_space import residual, task_outputs
from capacity.products.row_sets import Features, LayerFeatures, RowFeatures
from capacity.tasks.task import Split, Task

_ROWS = 1000
"""Most rows of an exact kernel, where the pseudo-kernel does not apply."""
_NUMBERS = 1 << 22
"""Most numbers that the flow moves at a time."""
FEWEST = 16
"""Samples below which no kernel is worth its name."""
_HASHED = 2048
"""Numbers that a row of more parameters is hashed to."""
_MOMENTS = 200
"""Samples behind the squares of gradients."""


@dataclass(frozen=True)
class TaskSide:
    """Test samples of a task at theta.

    Attributes:
        task: The task.
        split: Its m test samples.
        f: Their outputs (m, C).
        cross: Their kernel with B's rows, (m, n) of a pseudo-kernel, else (m C, n C).
        pull: What weight decay would move of the outputs (m, C); None without.
        new: Whether it is the new task.
    """

    task: Task
    split: Split
    f: Tensor
    cross: Tensor
    pull: Tensor | None
    new: bool


class TaskKernels:
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
        if most < min(FEWEST, samples):
            raise ValueError(
                f"task {new.name!r} has {wide} outputs per sample, too many for a kernel over "
                f"{FEWEST} samples; forecast it with a budget"
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

    def displacement(self, flow: Flow, shrunk: float) -> Tensor:
        """Say where the flow takes theta.

        Args:
            flow: Where it ends.
            shrunk: Share by which weight decay pulled theta.

        Returns:
            theta_B - theta_A (P,).
        """
        dual = (flow.dual / len(self.split)).to(self._theta)

        def moved(theta: Tensor) -> Tensor:
            f = self._new.select(self._model.outputs(theta, self.split.x))
            return (f * dual).sum()

        delta, _ = slope_of(moved)(self._theta)
        delta = delta if self._scale is None else delta * self._scale.to(delta)
        return delta + shrunk * self._decaying()

    def _side(self, task: Task, split: Split, rows: Features) -> TaskSide:
        f = task_outputs(self._model, self._theta, task, split.x)
        cross = self._rows(task, split.x, f.shape[1]).gram(rows)
        return TaskSide(task, split, f, cross, self._pull(task, split.x), task is self._new)

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
        return square_of_batch(total / n, squares / n, n, self._plan.batch, len(self._new.train))

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


def square_of_batch(mean: Tensor, square: Tensor, n: int, batch: int, samples: int) -> Tensor:
    """Estimate the mean square of a mean over a batch, without bias.

    Args:
        mean: Mean over n samples, of any shape.
        square: Mean square over them.
        n: How many there are.
        batch: Samples of a batch.
        samples: Samples that batches are drawn from.

    Returns:
        The mean square.
    """
    whole = ((n * mean.square() - square) / max(n - 1, 1)).clamp(min=0)
    noise = (square - whole).clamp(min=0)
    return whole + noise * (1 - batch / samples) / batch
