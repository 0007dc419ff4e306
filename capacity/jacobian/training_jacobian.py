"""J_t = d theta_t / d theta_0 as an operator: exact products in both directions.

A step is psi = step(state, gradient(theta)). Forward, the tangent of the state goes through the
JVP of the algebra along (v, H v_theta); backward, the cotangent goes through its VJP, and the part
that reaches the gradient comes back as one more product with the same symmetric H. So the products
are exact for every update map, and cost one Hessian product per step and direction. For SGD and
Langevin dynamics they are 1 - lr H both ways. A step that is no function of the gradient alone goes
through its own JVP and VJP. Phases compose on theta: each starts with optimiser moments that do not
depend on theta.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from capacity.base.checks import positive_int
from capacity.base.differential import pullback, pushforward, vmap
from capacity.jacobian.elementwise_steps import DIFFERENTIATED, carry
from capacity.jacobian.memory_budget import Footprint, activation_bytes, footprint
from capacity.jacobian.precision import CastProducts, Path, Products, in_precision
from capacity.jacobian.trajectory import Layout, TrainingStep, Trajectory
from capacity.jacobian.unexplained_share import Unexplained
from capacity.krylov.lanczos import random_signs
from capacity.optimizers.conditioner import conditioned
from capacity.optimizers.optimizer import AddHessian, stated
from capacity.optimizers.update_map import State, UpdateMap
from capacity.records.estimate import Estimate, from_samples, not_defined


class TrainingJacobian:
    """The Jacobian of training, composed over phases.

    Args:
        trajectories: The phases, first to last.
        budget: Bytes for products beside their result (K, P), from which follows how many tangents
            go through training together (`capacity.jacobian.memory_budget`); None takes 2 GiB
            on the CPU, half of the free memory of a GPU.
        chunk: Tangents that go through together, in place of a budget.
        precision: That of the Hessian products, bfloat16, float32 or float64; tangents are float32
            at least. None takes that of the training. `precision_error` says what it costs.

    Attributes:
        trajectories: The phases, first to last.
        size: P.
        products: Vectors pushed forward, and pulled back, so far, and `gradients`, the Hessian
            products that this took.
        unexplained: What of the steps is not known of, where a tracker compared them with what an
            optimiser did; else None.
    """

    def __init__(
        self,
        trajectories: Sequence[Trajectory],
        *,
        budget: int | None = None,
        chunk: int | None = None,
        precision: torch.dtype | None = None,
    ) -> None:
        if not trajectories:
            raise ValueError("trajectories is empty; J_t needs at least one trained phase")
        sizes = {trajectory.size for trajectory in trajectories}
        if len(sizes) > 1:
            raise ValueError(
                f"trajectories have {sorted(sizes)} parameters; phases compose on the same theta"
            )
        self.trajectories = tuple(trajectories)
        self.size = sizes.pop()
        self.unexplained: Unexplained | None = None
        self.products = {"forward": 0, "adjoint": 0, "gradients": 0}
        self._budget = None if budget is None else positive_int("budget", budget)
        self._chunk = None if chunk is None else positive_int("chunk", chunk)
        self._paths = [in_precision(trajectory, precision) for trajectory in trajectories]
        self._footprint: Footprint | None = None

    @property
    def like(self) -> Tensor:
        """A vector of theta's size and device, in the tangents' precision."""
        return self._paths[0].like

    @torch.no_grad()
    def forward(self, tangents: Tensor, *, out: Tensor | None = None) -> Tensor:
        """Push tangents of theta_0 to theta_t.

        Rows of the wrong length, a result that does not fit, and a budget too small for one row are
        a ValueError; a product that is not finite is a FloatingPointError that names phase and
        step.

        Args:
            tangents: V, one per row (K, P).
            out: Where the result goes (K, P), in the precision of `like`. May be the tangents: at
                P = 1e8 and K = 32 a second copy of them takes 13 GB. None makes a new tensor.

        Returns:
            J V, one per row (K, P).
        """
        return self._carry("forward", self._checked("tangents", tangents, out), out)

    @torch.no_grad()
    def adjoint(self, cotangents: Tensor, *, out: Tensor | None = None) -> Tensor:
        """Pull cotangents of theta_t back to theta_0. Errors are those of `forward`.

        Args:
            cotangents: U, one per row (K, P).
            out: As in `forward`.

        Returns:
            J' U, one per row (K, P).
        """
        return self._carry("adjoint", self._checked("cotangents", cotangents, out), out)

    @torch.no_grad()
    def precision_error(
        self, *, tangents: int = 4, generator: torch.Generator | None = None
    ) -> Estimate:
        """Measure what the precision of the products costs: the same products in float64, beside.

        Args:
            tangents: How many random tangents v, at least 2.
            generator: Source of them, on theta's device; None makes one.

        Returns:
            |J v - (J v in float64)| / |J v|, or the same of J', whichever is larger: its mean over
            tangents. `not_defined` where the products are in float64. The path is the recorded one
            in both.
        """
        positive_int("tangents", tangents, minimum=2)
        if self.like.dtype == torch.float64:
            return not_defined("Products are in float64 already; there is nothing to compare with.")
        generator = generator or torch.Generator(self.like.device).manual_seed(0)
        v = random_signs(tangents, self.like, generator)
        exact = TrainingJacobian(
            self.trajectories, budget=self._budget, chunk=self._chunk, precision=torch.float64
        )
        found: list[tuple[Tensor, Tensor]] = []
        for direction in ("forward", "adjoint"):
            truth = getattr(exact, direction)(v.double())
            off = (getattr(self, direction)(v).double() - truth).norm(dim=-1)
            found.append((off / truth.norm(dim=-1), off / (truth - v).norm(dim=-1)))
        whole, change = max(found, key=lambda pair: float(pair[0].mean()))
        return from_samples(
            whole.tolist(),
            cost=4.0 * tangents * sum(map(len, self.trajectories)),
            note=f"Relative to what training changed, |J v - v|, it is {float(change.mean()):.1e}.",
        )

    def _carry(self, direction: str, rows: Tensor, out: Tensor | None) -> Tensor:
        # Worked on in place, chunk by chunk: at P = 1e8 another copy of all rows would not fit.
        result = torch.empty_like(rows, dtype=self.like.dtype) if out is None else out
        if result is not rows:
            result.copy_(rows)
        if not len(rows):
            return result
        chunk = self._chunk or self._chunk_in_budget()
        self.products[direction] += len(rows)
        self.products["gradients"] += len(rows) * sum(map(len, self.trajectories))
        for part in result.tensor_split(math.ceil(len(rows) / chunk)):
            if direction == "forward":
                self._forward(part)
            else:
                self._adjoint(part)
        return result

    def _forward(self, rows: Tensor) -> None:
        for phase, path in enumerate(self._paths):
            state = _seed(path, rows)
            for step in path.forwards():
                state = push(path, step, state, in_place=True)
                _check_finite(state[0], phase, step.count, self.trajectories[phase].layout)
            if state[0] is not rows:
                rows.copy_(state[0])

    def _adjoint(self, rows: Tensor) -> None:
        for phase, path in reversed(list(enumerate(self._paths))):
            state = _seed(path, rows)
            for step in path.backwards():
                state = pull(path, step, state, in_place=True)
                _check_finite(state[0], phase, step.count, self.trajectories[phase].layout)
            if state[0] is not rows:
                rows.copy_(state[0])

    def _chunk_in_budget(self) -> int:
        device = self.like.device
        if self._footprint is None:
            parts = [footprint_of(p, next(p.forwards()), p.like) for p in self._paths]
            self._footprint = Footprint(
                fixed=max(part.fixed for part in parts), each=max(part.each for part in parts)
            )
        return self._footprint.chunk(self._budget, device)

    def _checked(self, name: str, rows: Tensor, out: Tensor | None) -> Tensor:
        if rows.dim() != 2 or rows.shape[1] != self.size:
            raise ValueError(
                f"{name} has shape {tuple(rows.shape)}; pass rows of length P, (K, {self.size})"
            )
        like = self.like
        wanted = (rows.shape, like.dtype, rows.device)
        if out is not None and (out.shape, out.dtype, out.device) != wanted:
            raise ValueError(
                f"out has shape {tuple(out.shape)}, {out.dtype} on {out.device}; pass a tensor of "
                f"shape {tuple(rows.shape)}, {like.dtype} on {rows.device}, or None"
            )
        return rows


def push(trajectory: Path, step: TrainingStep, tangents: State, *, in_place: bool = False) -> State:
    """Push tangents of the optimiser state through one step.

    Args:
        trajectory: The phase.
        step: The step.
        tangents: One tensor (K, P) per part of the state.
        in_place: Let the images take the tangents' place, where the step allows it.

    Returns:
        Their images, in the same form.
    """
    update, products = stated(step.update), trajectory.products
    theta, v = step.state[0], tangents[0]
    decay = update.symmetric_decay
    if decay is not None:
        kept = 1 - step.lr * decay
        if not kept:
            return (products(theta, step.x, step.y, v).mul_(-step.lr),)
        # One array of the tangents' size, and no other: H v is added piece by piece.
        v = v if in_place else v.clone()
        products.add_to(v, theta, step.x, step.y, scale=-step.lr / kept)
        return (v.mul_(kept) if decay else v,)
    if not update.from_gradient:
        whole = _whole(trajectory, step)
        # What such a step draws it has seeded (`capacity.strategies.step`).
        along = vmap(lambda *t: pushforward(whole, step.state, t)[1], seeded=True)
        return along(*tangents)
    if update.linear:
        return update.push(_owned(tangents, in_place), step.lr, _adding(products, step))
    gradient, moved = products.with_gradient(theta, step.x, step.y, v)
    conditioner = update.conditioner
    if conditioner is not None:
        gradient, moved = conditioner.push(theta, step.x, gradient, v, moved)
    if update.elementwise:
        images = tangents if in_place else tuple(map(torch.empty_like, tangents))
        carry(update, step, gradient, (*tangents, moved), images)
        return images
    algebra = _algebra(step)

    def one(*tangent: Tensor) -> State:
        return pushforward(algebra, (*step.state, gradient), tangent)[1]

    return vmap(one)(*tangents, moved)


def push_rows(path: Path, step: TrainingStep, tangents: State, *, chunk: int) -> None:
    """Push tangents through one step in place, some rows at a time.

    Args:
        path: The phase.
        step: The step.
        tangents: One tensor (K, P) per part of the state; overwritten by their images.
        chunk: Rows that go through together.
    """
    pieces = math.ceil(len(tangents[0]) / chunk)
    for rows in zip(*(part.tensor_split(pieces) for part in tangents), strict=True):
        images = push(path, step, rows, in_place=True)
        for row, image in zip(rows, images, strict=True):
            if image is not row:
                row.copy_(image)


def pull(
    trajectory: Path, step: TrainingStep, cotangents: State, *, in_place: bool = False
) -> State:
    """Pull cotangents of the optimiser state back through one step: the adjoint of `push`.

    Args:
        trajectory: The phase.
        step: The step.
        cotangents: One tensor (K, P) per part of the state.
        in_place: Let the images take the cotangents' place, where the step allows it.

    Returns:
        Their images, in the same form.
    """
    update, products = stated(step.update), trajectory.products
    theta = step.state[0]
    if update.symmetric_decay is not None:
        return push(trajectory, step, cotangents, in_place=in_place)  # 1 - lr H is symmetric
    if not update.from_gradient:
        _, transpose = pullback(_whole(trajectory, step), *step.state)
        return vmap(transpose)(cotangents)
    if update.linear:
        return update.pull(_owned(cotangents, in_place), step.lr, _adding(products, step))
    gradient = torch.func.grad(trajectory.loss)(theta, step.x, step.y)
    conditioner = update.conditioner
    gradient = conditioned(conditioner, theta, step.x, gradient)
    if update.elementwise:
        state = list(cotangents) if in_place else list(map(torch.empty_like, cotangents))
        through = torch.empty_like(cotangents[0])
        carry(update, step, gradient, cotangents, (*state, through), transposed=True)
    else:
        _, transpose = pullback(_algebra(step), *step.state, gradient)
        *state, through = vmap(transpose)(cotangents)
        state[0] = state[0].clone()  # it may be the cotangent itself, handed through
    if conditioner is not None:
        through, beside = conditioner.pull(theta, step.x, gradient, through)
        state[0].add_(beside)
    state[0].add_(products(theta, step.x, step.y, through))
    return tuple(state)


def _owned(rows: State, in_place: bool) -> State:
    return rows if in_place else tuple(part.clone() for part in rows)


def _adding(products: Products, step: TrainingStep) -> AddHessian:
    theta = step.state[0]
    return lambda v, into: products.add_to(v, theta, step.x, step.y, scale=1.0, into=into)


def _whole(trajectory: Path, step: TrainingStep) -> Callable[..., State]:
    """See a step as a function of the state alone."""
    update = stated(step.update)

    def whole(*state: Tensor) -> State:
        return update.advance(trajectory.loss, state, step.x, step.y, step.lr, step.count)

    return whole


def _algebra(step: TrainingStep) -> Callable[..., State]:
    """See a step as a function of the state and the gradient."""
    update = step.update

    def algebra(*arguments: Tensor) -> State:
        return update.step(arguments[:-1], arguments[-1], step.lr, step.count)

    return algebra


def _seed(path: Path, rows: Tensor) -> State:
    """Tangent of a phase's first (or last) state: theta only, moments are fixed (or not read)."""
    return (rows, *(torch.zeros_like(rows) for _ in range(_parts(path.update) - 1)))


def _parts(update: UpdateMap) -> int:
    return len(update.init(torch.zeros(1)))


def footprint_of(path: Path, step: TrainingStep, like: Tensor) -> Footprint:
    """Say what `push` and `pull` hold at once, for the model of `capacity.jacobian.memory_budget`.

    Args:
        path: The phase.
        step: One of its steps.
        like: A vector (P,) of the tangents' dtype, on their device.

    Returns:
        The footprint of the tangents of its state.
    """
    parts = _parts(path.update)
    copies, vectors = 4.0 * (parts + 1), 4.0 * (parts + 1)  # inputs, outputs, what lies between
    update = stated(path.update)
    if update.symmetric_decay is not None:
        copies, vectors = 0, 4  # in place; theta, its gradient, H v of a tangent
    elif update.linear:
        copies, vectors = parts, 5  # moments; backwards or with Nesterov what reaches the gradient
    elif update.elementwise:
        copies = parts + 1  # moments, H v; backwards what reaches the gradient, too
        # The state, the gradient, H v of a tangent; diagonals and the graph that they come from.
        vectors = parts + 3 + 3 * (parts + 1) ** 2 * min(1, DIFFERENTIATED / len(like))
    if like.device.type != "cpu":
        copies += 2  # H v of all at once; on the CPU it comes in small pieces
    if isinstance(path.products, CastProducts):
        copies += 1  # the tangents and H v in half of their precision
    return footprint(
        len(like),
        like.itemsize,
        copies=copies,
        vectors=vectors,
        activations=activation_bytes(path.loss, step.state[0], step.x, step.y),
        device=like.device.type,
    )


def _check_finite(rows: Tensor, phase: int, step: int, layout: Layout) -> None:
    # One reduction: a sum is finite unless a term is not (or the norm itself overflows).
    if bool(torch.isfinite(rows.sum())):
        return
    broken = ~torch.isfinite(rows).all(0)
    ends = list(itertools.accumulate((size for _, size in layout)))
    first = int(broken.float().argmax())
    where = layout[bisect.bisect_right(ends, first)][0] if layout and bool(broken.any()) else ""
    raise FloatingPointError(
        f"a tangent of J_t is no longer finite at step {step} of phase {phase}"
        + (f", first in parameter {where!r}" if where else "")
        + "; the training map expands too fast for this precision: try float64 or a smaller lr"
    )
