"""Whether training took the steps that were observed: a path not taken has another J_t."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from capacity.base.on_host import read
from capacity.jacobian.trajectory import TrainingStep
from capacity.jacobian.unexplained_share import Evidence, Unexplained
from capacity.optimizers.conditioner import conditioned
from capacity.optimizers.optimizer import stated
from capacity.optimizers.update_map import State
from capacity.products.hessian_products import Loss

_TOLERANCE = 0.2
"""Accepted error of a step, relative to what the gradient adds to it: above the rounding of a
mixed-precision forward pass, below a clipping or a missed step that matters."""

_FAINT = 0.1
"""Gradients fainter than this part of the largest so far are compared with that part instead: late
in training a gradient is a small difference of large terms, and in bfloat16 mostly rounding."""

_KERNELS = 16.0
"""Rounding of a gradient by other kernels than ours, relative to ours."""


@dataclass(frozen=True)
class _Expected:
    """A step about to be taken.

    Attributes:
        step: The step.
        ahead: The state that it leads to.
        still: The state without the gradient.
        gradient: The gradient that the optimiser is to be fed, clipped (P,); None where the step is
            no function of one.
        noise: Rounding of it, as a norm.
    """

    step: TrainingStep
    ahead: State
    still: State
    gradient: Tensor | None
    noise: float


class PathCheck:
    """Compares the steps that were taken with those that the observed loss makes.

    One gradient per step, or none where it is at hand; and a few in float64, which say how much is
    rounding: at steps 1, 2, 4, 8 ... and while something is unexplained. Clipping that was not
    announced, accumulation, a penalty that is not in the loss, other masks, and batches that
    were not observed all lead somewhere else.
    """

    def __init__(self, loss: Loss, *, moments_read: bool = True) -> None:
        self._loss, self._moments_read = loss, moments_read
        self._expected: _Expected | None = None
        self._gradients, self._rest = Evidence(), Evidence()
        self._start: Tensor | None = None
        self._noise = 0.0
        self._suspicious = False

    @torch.no_grad()
    def expect(self, step: TrainingStep, gradient: Tensor | None = None) -> State:
        """Work out where a step leads.

        Args:
            step: The step about to be taken.
            gradient: That of its batch loss (P,), where it is known; ignored by steps of one's own
                that are no function of it.

        Returns:
            The state that it leads to.
        """
        theta, update = step.state[0], stated(step.update)
        if self._start is None:
            self._start = theta
        if not update.from_gradient:
            ahead = update.advance(self._loss, step.state, step.x, step.y, step.lr, step.count)
            self._expected = _Expected(step, ahead, step.state, None, 0.0)
            return ahead
        if gradient is None:
            gradient = torch.func.grad(self._loss)(theta, step.x, step.y)
        if step.count & (step.count - 1) == 0 or self._suspicious:
            self._noise = max(self._noise, self._rounding(step, gradient))
        gradient = conditioned(update.conditioner, theta, step.x, gradient)
        ahead = update.step(step.state, gradient, step.lr, step.count)
        still = update.step(step.state, torch.zeros_like(theta), step.lr, step.count)
        self._expected = _Expected(step, ahead, still, update.fed(gradient), self._noise)
        return ahead

    def compare(self, state: State) -> None:
        """Check the state after the step that was expected.

        Args:
            state: Optimiser state now.

        Raises:
            ValueError: If it is not where the observed step leads.
        """
        expected, self._expected = self._expected, None
        if expected is not None and not self._take(expected, state):
            raise ValueError(
                f"step {expected.step.count} was not the observed one: the optimizer did not move "
                "by the gradient of loss on the batch given to observe, so J_t would be that of "
                "another training. Observe every batch before its optimizer.step(), with the loss "
                "that is stepped on; a loop that clips gradients says so with clip_norm; "
                "accumulated gradients, penalties outside the loss and draws between observe and "
                "the network's call are not tracked"
            )

    def unexplained(self, state: State | None, steps: int) -> Unexplained:
        """Say how much of the steps is unexplained.

        Args:
            state: Optimiser state now, which may be that after the last observed step; None where
                it is not known.
            steps: Steps observed.

        Returns:
            The share over the steps that can be compared.
        """
        gradients, rest = self._gradients, self._rest
        expected = self._expected
        if expected is not None and state is not None:
            theta = expected.step.state[0]
            if state[0].shape == theta.shape and not torch.equal(state[0], theta):
                looker = copy.copy(self)
                looker._gradients, looker._rest = (copy.deepcopy(e) for e in (gradients, rest))
                # A state far away is not that after the step: the training went on without us.
                if looker._take(expected, state):
                    gradients, rest = looker._gradients, looker._rest
        size = 0 if self._start is None else self._start.numel()
        one, other = gradients.verdict(steps, size), rest.verdict(steps, size)
        if other.systematic and not one.systematic:
            return other
        return one if one.checked else other

    @torch.no_grad()
    def _take(self, expected: _Expected, state: State) -> bool:
        """Add a step that was taken to the evidence; tell whether it can be the expected one."""
        step, theta = expected.step, expected.step.state[0]
        assert self._start is not None
        moved = state[0] - theta
        eps = torch.finfo(theta.dtype).eps
        implied = None
        inner = stated(step.update).unclipped
        if expected.gradient is not None and (self._moments_read or len(state) == 1):
            implied = inner.implied_gradient(step.state, state, step.lr)
        if implied is None or expected.gradient is None:
            residual, added = state[0] - expected.ahead[0], expected.ahead[0] - expected.still[0]
            fed = added if expected.gradient is None else expected.gradient
            span, size, slope = read(theta.norm() + moved.norm(), added.norm(), fed.norm())
            floor = 4 * eps * span + _KERNELS * eps * size
            if expected.gradient is not None:
                floor += expected.noise / max(slope, 1e-300) * size
            return self._judge(self._rest, residual, added, floor, theta, rate=1.0)
        gradient, rounding = implied
        # Read back from our own step in the same way: what rounding does to both is no difference.
        ours = inner.implied_gradient(step.state, expected.ahead, step.lr)
        assert ours is not None
        rounded, way, slope = read(rounding.norm(), moved.norm(), gradient.norm())
        floor, rate = rounded + expected.noise, way / max(slope, 1e-300)
        good = self._judge(
            self._gradients, gradient - ours[0], expected.gradient, floor, theta, rate=rate
        )
        led = inner.step(step.state, gradient, step.lr, step.count)[0]
        added = led - expected.still[0]
        span, size = read(theta.norm(), added.norm())
        floor = 4 * eps * span + 64 * eps * size
        return good and self._judge(self._rest, state[0] - led, added, floor, theta, rate=1.0)

    def _judge(
        self,
        evidence: Evidence,
        residual: Tensor,
        added: Tensor,
        floor: float,
        theta: Tensor,
        *,
        rate: float,
    ) -> bool:
        assert self._start is not None
        size, explained = evidence.add(
            residual, added, floor, theta=theta, start=self._start, rate=rate
        )
        self._suspicious |= size > floor
        explained = max(explained, _FAINT * evidence.peak)
        # Not `size > bound`: training that has diverged is not a wrong observation.
        return not size > _TOLERANCE * explained + floor

    def _rounding(self, step: TrainingStep, gradient: Tensor) -> float:
        """Estimate how much other kernels may differ from ours in a batch's gradient."""
        size, eps = float(gradient.norm()), torch.finfo(gradient.dtype).eps
        if gradient.dtype == torch.float64:
            return 1e-10 * size
        x = step.x.double() if step.x.is_floating_point() else step.x
        y = step.y.double() if step.y.is_floating_point() else step.y
        try:
            exact = torch.func.grad(self._loss)(step.state[0].double(), x, y)
        except (RuntimeError, TypeError):
            return 1e3 * eps * size  # tensors of single precision inside the loss
        return _KERNELS * (float((gradient.double() - exact).norm()) + eps * size)
