"""Gradient flow of the linearised network on a task, in function space (theory.md#gradient-flow).

Linearise at theta_A. Gradient flow on B's mean loss over n samples moves theta by Phi_B' a / n and
any outputs g by K_gB a / n, where the dual variable a(t) = int_0^t r dt (n, C) gathers B's
residuals and follows da/dt = r(f_0 + K_BB a / n). Theta never appears. The learning time t is the
sum of the learning rates. For a network that is linear in theta and small learning rates this is
the training; for the half squared error it is r_0-linear and has the closed form of B5.

The flow is stiff: its rates run over as many decades as the kernel's eigenvalues. They are real and
non-positive, so the stabilised explicit Runge-Kutta-Chebyshev method (second order, with error
control; Sommeijer, Shampine & Verwer 1997) takes steps that grow with the square of its stages and
needs products with K only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from capacity.base.interruption import check
from capacity.optimizers.from_recipe import from_training
from capacity.products.output_space import metric, residual
from capacity.recipe.config import Training
from capacity.tasks.task import Task

MOST_PRODUCTS = 20_000
"""A training that stays stable takes some thousand."""

_MAX_STAGES = 200
POWER_STEPS = 20
"""Products that finding the largest eigenvalue takes."""
_DAMPING = 2 / 13
_METRIC_BOUND = {"cross_entropy": 0.5, "mse": 1.0}
"""Largest eigenvalue that H_out of a loss can have."""

NOTE = (
    "Gradient flow of the linearised network on some of B's samples; the interval covers which "
    "samples of A and B were taken, not the error of the linearisation."
)
"""What an estimate by the flow covers."""
LOST = (
    "The flow left the range of the numbers, or the learning time is so long against the fastest "
    "mode's that the training itself could not be stable: a smaller lr usually helps."
)
"""Why there is none where the flow did not arrive."""


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Where the flow is at some learning time.

    Attributes:
        time: t, the sum of the learning rates.
        dual: a = int_0^t r dt (n, C).
        outputs: B's outputs on the n samples (n, C).
        products: Products with the kernel spent so far.
        finite: Whether the numbers are finite.
        arrived: Whether the flow came so far within `most` products.
        step: Time step that the error control would take next.
    """

    time: float
    dual: Tensor
    outputs: Tensor
    products: int
    finite: bool
    arrived: bool = True
    step: float = 0.0

    def moved(self, cross: Tensor) -> Tensor:
        """Say how far other outputs were moved.

        Args:
            cross: Kernel between their rows and B's: (m, n) of a pseudo-kernel, or (m C', n C).

        Returns:
            Their displacement: (m, C) for a pseudo-kernel, else (m C',).
        """
        return kernel_product(cross, self.dual) / len(self.dual)

    def distance(self, kernel: Tensor) -> float:
        """Say how far theta was moved.

        Args:
            kernel: The kernel that the flow ran on.

        Returns:
            |Phi' a / n|.
        """
        pushed = kernel_product(kernel, self.dual).reshape(self.dual.shape)
        return math.sqrt(max(float((self.dual * pushed).sum()), 0.0)) / len(self.dual)


def kernel_product(kernel: Tensor, dual: Tensor) -> Tensor:
    """Multiply a kernel with a dual variable.

    Args:
        kernel: (m, n), meant times the identity over outputs; or (m', n C) with all outputs.
        dual: a (n, C).

    Returns:
        (m, C) or (m',).
    """
    if kernel.shape[1] == len(dual):
        # The same as kernel @ dual, and up to three times faster on a CPU for a few columns.
        return functional.linear(dual.T, kernel).T
    return kernel @ dual.flatten()


def learning_time(training: Training, samples: int) -> float | None:
    """Sum the learning rates of a planned training, as gradient flow counts time.

    Args:
        training: The training.
        samples: Samples of the task.

    Returns:
        S; for heavy ball in its continuous limit S/(1 - mu). None for steps that are scaled by
        gradient history or clipped, where gradient flow is no model of the training.
    """
    return from_training(training).learning_time(math.fsum(training.learning_rates(samples)))


def integrate(
    kernel: Tensor,
    task: Task,
    start: Tensor,
    targets: Tensor,
    times: Sequence[float],
    *,
    tolerance: float = 1e-3,
    most: int = MOST_PRODUCTS,
    begin: Flow | None = None,
    largest: float | None = None,
) -> list[Flow]:
    """Run the flow and stop at some learning times.

    Args:
        kernel: K_BB, symmetric positive semi-definite: (n, n) of a pseudo-kernel, or (n C, n C)
            with all outputs. The flow is computed in its precision; float32 does for tolerances of
            1e-4 and more.
        task: Gives the loss.
        start: Outputs f_0 (n, C).
        targets: Targets (n, ...).
        times: Learning times, ascending.
        tolerance: Error of the outputs allowed per step, relative to 1 + their root mean square
            displacement.
        most: Products with the kernel to spend at most. A learning time many decades beyond the
            fastest mode's is no training that would stay stable; the flow stops on the way.
        begin: A state to go on from, at its own dual variable; the times count from there.
        largest: The kernel's largest eigenvalue, where it is known.

    Returns:
        The state at each of the times.
    """
    start = start.to(kernel)
    targets = targets.to(kernel) if targets.is_floating_point() else targets
    samples = len(start)
    count = 0

    def outputs(dual: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return start + kernel_product(kernel, dual).view_as(start) / samples

    def rate(dual: Tensor) -> Tensor:
        return residual(task, outputs(dual), targets)

    largest = (largest_eigenvalue(kernel) if largest is None else largest) / samples
    if not math.isfinite(largest):
        lost = torch.full_like(start, math.nan)
        return [_state(t, lost, start + lost, count, False) for t in times]
    dual, step = (torch.zeros_like(start), 0.0) if begin is None else (begin.dual, begin.step)
    slope = residual(task, start, targets) if begin is None else rate(dual)
    made: list[Flow] = []
    now = 0.0
    for end in times:
        while now < end * (1 - 1e-12):
            check()
            if count >= most:
                late = _state(now, dual, outputs(dual), count, True)
                return [*made, *(replace(late, arrived=False) for _ in times[len(made) :])]
            radius = largest * _metric_bound(task, outputs, dual, targets)
            limit = _stable(_MAX_STAGES) / max(radius, 1e-300)
            free = min(step or 1 / max(radius, 1e-300), limit)
            step = min(free, end - now)
            stages = _stages(step * radius)
            after = _chebyshev_step(rate, dual, slope, step, stages)
            next_slope = rate(after)
            # The method's own estimate of its local error, taken to the outputs.
            error = (12 * (dual - after) + 6 * step * (slope + next_slope)) / 15
            off = kernel_product(kernel, error).view_as(start) / samples
            shift = outputs(after) - start
            scale = tolerance * (1 + float(shift.square().mean().sqrt()))
            ratio = float(off.square().mean().sqrt()) / scale
            if not math.isfinite(ratio):
                return [*made, *(_state(t, dual, start, count, False) for t in times[len(made) :])]
            if ratio <= 1:
                now, dual, slope = now + step, after, next_slope
            step *= min(5.0, max(0.1, 0.8 / max(ratio, 1e-12) ** (1 / 3)))
            # A step cut short by an end says little of the next one.
            step = max(step, free) if ratio <= 1 and now >= end * (1 - 1e-12) else step
        made.append(replace(_state(now, dual, outputs(dual), count, True), step=step))
    return made


def _state(time: float, dual: Tensor, outputs: Tensor, products: int, finite: bool) -> Flow:
    return Flow(time=time, dual=dual, outputs=outputs, products=products, finite=finite)


def _metric_bound(
    task: Task, outputs: Callable[[Tensor], Tensor], dual: Tensor, targets: Tensor
) -> float:
    if isinstance(task.loss, str) and task.loss in _METRIC_BOUND:
        return _METRIC_BOUND[task.loss]
    # Another loss: its curvature here, with room for what it becomes within the step.
    return 2.0 * float(torch.linalg.eigvalsh(metric(task, outputs(dual), targets)).abs().max())


def largest_eigenvalue(kernel: Tensor) -> float:
    """Bound the largest eigenvalue from a few power iterations.

    Args:
        kernel: Symmetric, positive semi-definite (m, m).

    Returns:
        What they found and 5 % for what they did not.
    """
    v = torch.ones(len(kernel), dtype=kernel.dtype, device=kernel.device)
    # No symmetry of the data may hide the top eigenvector from the start.
    v += 0.1 * torch.linspace(-1, 1, len(kernel), dtype=torch.float32).to(v)
    value = 0.0
    for _ in range(POWER_STEPS):
        image = kernel @ (v / v.norm().clamp(min=1e-300))
        value, v = float(image.norm()), image
    return 1.05 * value


def _stable(stages: int) -> float:
    return 2 / 3 * (stages**2 - 1) * (1 - 2 / 15 * _DAMPING)


def _stages(stiffness: float) -> int:
    return max(2, math.ceil(math.sqrt(1 + stiffness * 1.5 / (1 - 2 / 15 * _DAMPING))))


def _chebyshev_step(
    rate: Callable[[Tensor], Tensor], y: Tensor, slope: Tensor, step: float, stages: int
) -> Tensor:
    """Take one step of the Runge-Kutta-Chebyshev method (RKC2)."""
    w0 = 1 + _DAMPING / stages**2
    t, dt, ddt = [1.0, w0], [0.0, 1.0], [0.0, 0.0]
    for _ in range(2, stages + 1):
        t.append(2 * w0 * t[-1] - t[-2])
        dt.append(2 * t[-2] + 2 * w0 * dt[-1] - dt[-2])
        ddt.append(4 * dt[-2] + 2 * w0 * ddt[-1] - ddt[-2])
    w1 = dt[stages] / ddt[stages]
    b = [ddt[j] / dt[j] ** 2 for j in range(2, stages + 1)]
    b = [b[0], b[0], *b]
    before, now = y, y + b[1] * w1 * step * slope
    for j in range(2, stages + 1):
        mu, nu = 2 * b[j] * w0 / b[j - 1], -b[j] / b[j - 2]
        forced = 2 * b[j] * w1 / b[j - 1] * step
        pulled = -(1 - b[j - 1] * t[j - 1]) * forced
        after = (1 - mu - nu) * y + mu * now + nu * before + forced * rate(now) + pulled * slope
        before, now = now, after
    return now
