"""J_t = d theta_t / d theta_0 as an operator: exact products in both directions.

A step is psi = step(state, gradient(theta)). Forward, the tangent of the state goes through the
JVP of the algebra along (v, H v_theta); backward, the cotangent goes through its VJP, and the part
that reaches the gradient comes back as one more product with the same symmetric H. So the products
are exact for every update map, and cost one Hessian product per step and direction. For plain SGD
they are 1 - lr H both ways. Phases compose on theta: each starts with optimiser moments that do not
depend on theta.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import vmap

from capacity.differential import pullback, pushforward
from capacity.dynamics.updates import SGD, Adam, Momentum, RMSprop, State
from capacity.transport.trajectory import TrainingStep, Trajectory


class TrainingJacobian:
    """The Jacobian of training, composed over phases.

    Attributes:
        trajectories: The phases, first to last.
        size: P.
        products: Vectors pushed forward, and pulled back, so far, and `gradients`, the Hessian
            products that this took.
    """

    def __init__(self, trajectories: Sequence[Trajectory], *, chunk: int = 64) -> None:
        if not trajectories:
            raise ValueError("trajectories is empty; J_t needs at least one trained phase")
        sizes = {trajectory.size for trajectory in trajectories}
        if len(sizes) > 1:
            raise ValueError(
                f"trajectories have {sorted(sizes)} parameters; phases compose on the same theta"
            )
        self.trajectories = tuple(trajectories)
        self.size = sizes.pop()
        self.products = {"forward": 0, "adjoint": 0, "gradients": 0}
        self._chunk = chunk

    @property
    def like(self) -> Tensor:
        """A vector of theta's size, dtype and device."""
        return self.trajectories[0].like

    @torch.no_grad()
    def forward(self, tangents: Tensor) -> Tensor:
        """Push tangents of theta_0 to theta_t.

        Rows of the wrong length are a ValueError; a product that is not finite is a
        FloatingPointError that names phase and step.

        Args:
            tangents: V, one per row (K, P).

        Returns:
            J V, one per row (K, P).
        """
        self._check("tangents", tangents)
        self._count("forward", len(tangents))
        return torch.cat([self._forward(part) for part in tangents.split(self._chunk)])

    @torch.no_grad()
    def adjoint(self, cotangents: Tensor) -> Tensor:
        """Pull cotangents of theta_t back to theta_0. Errors are those of `forward`.

        Args:
            cotangents: U, one per row (K, P).

        Returns:
            J' U, one per row (K, P).
        """
        self._check("cotangents", cotangents)
        self._count("adjoint", len(cotangents))
        return torch.cat([self._adjoint(part) for part in cotangents.split(self._chunk)])

    def _forward(self, tangents: Tensor) -> Tensor:
        for phase, trajectory in enumerate(self.trajectories):
            state = _seed(trajectory, tangents)
            for step in trajectory.forwards():
                state = push(trajectory, step, state)
                _check_finite(state[0], phase, step.count)
            tangents = state[0]
        return tangents

    def _adjoint(self, cotangents: Tensor) -> Tensor:
        for phase, trajectory in reversed(list(enumerate(self.trajectories))):
            state = _seed(trajectory, cotangents)
            for step in trajectory.backwards():
                state = pull(trajectory, step, state)
                _check_finite(state[0], phase, step.count)
            cotangents = state[0]
        return cotangents

    def _check(self, name: str, rows: Tensor) -> None:
        if rows.dim() != 2 or rows.shape[1] != self.size:
            raise ValueError(
                f"{name} has shape {tuple(rows.shape)}; pass rows of length P, (K, {self.size})"
            )

    def _count(self, direction: str, rows: int) -> None:
        self.products[direction] += rows
        self.products["gradients"] += rows * sum(map(len, self.trajectories))


def push(trajectory: Trajectory, step: TrainingStep, tangents: State) -> State:
    """Push tangents of the optimiser state through one step.

    Args:
        trajectory: The phase.
        step: The step.
        tangents: One tensor (K, P) per part of the state.

    Returns:
        Their images, in the same form.
    """
    update, products = step.update, trajectory.products
    theta = step.state[0]
    if update.plain:
        v = tangents[0]
        return (torch.add(v, products(theta, step.x, step.y, v), alpha=-step.lr),)
    gradient, moved = products.with_gradient(theta, step.x, step.y, tangents[0])
    if isinstance(update, _ELEMENTWISE):
        rows = (*tangents, moved)
        return tuple(_mix(row, rows) for row in _diagonals(step, gradient))
    algebra = _algebra(step)

    def one(*tangent: Tensor) -> State:
        return pushforward(algebra, (*step.state, gradient), tangent)[1]

    return vmap(one)(*tangents, moved)


def pull(trajectory: Trajectory, step: TrainingStep, cotangents: State) -> State:
    """Pull cotangents of the optimiser state back through one step: the adjoint of `push`.

    Args:
        trajectory: The phase.
        step: The step.
        cotangents: One tensor (K, P) per part of the state.

    Returns:
        Their images, in the same form.
    """
    update, products = step.update, trajectory.products
    theta = step.state[0]
    if update.plain:
        return push(trajectory, step, cotangents)  # 1 - lr H is symmetric
    gradient = torch.func.grad(trajectory.loss)(theta, step.x, step.y)
    if isinstance(update, _ELEMENTWISE):
        columns = zip(*_diagonals(step, gradient), strict=True)
        *state, through = (_mix(column, cotangents) for column in columns)
    else:
        _, transpose = pullback(_algebra(step), *step.state, gradient)
        *state, through = vmap(transpose)(cotangents)
    state[0] = state[0] + products(theta, step.x, step.y, through)
    return tuple(state)


_ELEMENTWISE = (SGD, Momentum, Adam, RMSprop)
"""Update maps that treat every parameter on its own: their derivative is a few diagonals, which are
several times cheaper than a vmapped JVP. Clipping is none: its norm couples the parameters."""


def _algebra(step: TrainingStep) -> Callable[..., State]:
    def algebra(*arguments: Tensor) -> State:
        return step.update.step(arguments[:-1], arguments[-1], step.lr, step.count)

    return algebra


def _diagonals(step: TrainingStep, gradient: Tensor) -> list[tuple[Tensor | None, ...]]:
    """Differentiate every part of the next state by every part of (state, gradient)."""
    with torch.enable_grad():
        inputs = [part.detach().requires_grad_() for part in (*step.state, gradient)]
        parts = _algebra(step)(*inputs)
    ones = torch.ones_like(gradient)
    return [
        torch.autograd.grad(part, inputs, ones, retain_graph=True, allow_unused=True)
        for part in parts
    ]


def _mix(diagonals: Sequence[Tensor | None], rows: Sequence[Tensor]) -> Tensor:
    """Add rows (K, P), each scaled by a diagonal (P,); None is 0."""
    total: Tensor | None = None
    for diagonal, row in zip(diagonals, rows, strict=True):
        if diagonal is not None:
            total = diagonal * row if total is None else torch.addcmul(total, diagonal, row)
    return torch.zeros_like(rows[0]) if total is None else total


def _seed(trajectory: Trajectory, rows: Tensor) -> State:
    """Tangent of a phase's first (or last) state: theta only, moments are fixed (or not read)."""
    moments = len(trajectory.update.init(trajectory.like)) - 1
    return (rows, *(torch.zeros_like(rows) for _ in range(moments)))


def _check_finite(rows: Tensor, phase: int, step: int) -> None:
    # One reduction: a sum is finite unless a term is not (or the norm itself overflows).
    if not bool(torch.isfinite(rows.sum())):
        raise FloatingPointError(
            f"a tangent of J_t is no longer finite at step {step} of phase {phase}; "
            "the training map expands too fast for this precision: try float64 or a smaller lr"
        )
