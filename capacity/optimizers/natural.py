"""Natural gradient descent: steps in the metric of the network's own outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.func import grad

from capacity.base.checks import one_of, positive_float, positive_int
from capacity.base.differential import pullback, pushforward, vmap
from capacity.optimizers.conditioner import Curvature, Outputs
from capacity.optimizers.dynamics import Dynamics
from capacity.optimizers.optimizer import FollowsGradient, Optimizer
from capacity.optimizers.update_map import State

if TYPE_CHECKING:
    from capacity.tasks.task import Task

CURVATURES = ("auto", "exact", "diagonal")
SMALL = 2000
"""Parameters up to which `auto` solves with the whole Gauss-Newton matrix."""
_CHUNK = 1024
_SIGNS = 20_261_130
"""Seed of the signs that the diagonal is estimated with."""


@dataclass(frozen=True)
class Natural(Optimizer):
    """theta <- theta - lr (G + damping)^{-1} g: steepest descent in the Fisher metric.

    G is the generalised Gauss-Newton matrix of the batch, which is the Fisher matrix of the
    network's predictions under cross-entropy and squared error. `exact` solves with all of it by
    conjugate gradients, some gradients' worth each; `diagonal` divides by an estimate of its
    diagonal from half of the batch: the squares of the pulled-back root of the outputs' metric
    times signs (Gauss-Newton-Bartlett without sampled labels, which no derivative goes through),
    which makes a step cost less than two gradients. The signs belong to the place in the batch, so
    that a step is a pure function of theta and the batch.

    Not Kronecker factors: J_t of a step needs the derivative of G along a tangent, and curvlinops,
    the library of the extra `bench`, collects factors by hooks from detached activations and
    gradients of a module's own parameters, of linear layers and convolutions only. Nothing can be
    differentiated through them, nor mapped over replicas.

    Attributes:
        damping: Added to G, above 0, in the unit of the loss over theta squared.
        curvature: `exact`, `diagonal`, or `auto`: exact up to 2000 parameters, else diagonal.
        groups: Parts of the batch whose squares are averaged for the diagonal, as many degrees of
            freedom; each takes another pass over the parameters.
        momentum: Of a heavy ball on the natural gradient, at least 0 and below 1.
        nesterov: Step along u + momentum m instead of m.
        metric: The network and the loss that G is read off; `bound` puts it there.
    """

    damping: float = 1e-2
    curvature: str = "auto"
    groups: int = 1
    momentum: float = 0.0
    nesterov: bool = False
    metric: Metric | None = field(default=None, init=False)
    name: str = "natural"
    conditions = True

    def __post_init__(self) -> None:
        positive_float("options.damping", self.damping)
        one_of("options.curvature", self.curvature, CURVATURES)
        positive_int("options.groups", self.groups)
        if not 0 <= self.momentum < 1:
            raise ValueError(
                f"options.momentum = {self.momentum:g}; give a number from 0 to below 1, as 0.9"
            )

    def bound(self, outputs: Outputs, task: Task, *, modes: bool = False) -> Natural:
        """Read G off a network and a task."""
        if task.loss not in _POTENTIALS:
            raise ValueError(
                f"optimizer 'natural' reads its metric off a loss by name, "
                f"{' or '.join(_POTENTIALS)}, and task {task.name!r} has one of its own; name the "
                "loss, or take another optimizer"
            )
        if modes:
            raise ValueError(
                "optimizer 'natural' reads its metric off a network that is a function of theta "
                "and the batch alone, and this one has layers that train otherwise than they are "
                "evaluated; call .eval() on them, or take another optimizer"
            )
        return self._in(Metric(outputs, task, self.damping, self.curvature, self.groups))

    def held(self, curvatures: Sequence[Curvature]) -> Natural:
        """Take a penalty's curvature in: outside, a step of lr/damping times it would diverge."""
        return self._in(self.conditioner.held(curvatures))

    def _in(self, metric: Metric) -> Natural:
        other = replace(self)
        object.__setattr__(other, "metric", metric)
        return other

    @property
    def conditioner(self) -> Metric:
        """Its metric."""
        if self.metric is None:
            raise ValueError(
                "optimizer 'natural' needs the network and the task that its metric is read off, "
                "which nothing hands it here; take another optimizer"
            )
        return self.metric

    def init(self, theta: Tensor) -> State:
        """Start from theta, at rest: (theta,), with momentum (theta, 0)."""
        return (theta, torch.zeros_like(theta)) if self.momentum else (theta,)

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step along a gradient that was conditioned."""
        del count
        theta, *moments = state
        aim = gradient
        if moments:
            moments = [self.momentum * moments[0] + gradient]
            aim = gradient + self.momentum * moments[0] if self.nesterov else moments[0]
        return (theta - lr * aim, *moments)

    def in_words(self, theta: Tensor) -> str:
        """Name its metric at a point.

        Args:
            theta: Parameters (..., P).

        Returns:
            The name.
        """
        whole = "Gauss-Newton" if self.conditioner.whole(theta) else "diagonal Gauss-Newton"
        return f"{whole}, damping {self.damping:g}"

    def learning_time(self, rates: float) -> None:
        """Steps in another metric are no gradient flow of theta."""
        del rates

    def dynamics(self, *, full: bool) -> Dynamics:
        """No free energy is dissipated at a rate E|v|^2 of theta."""
        del full
        return Dynamics.OTHER

    def compression(self) -> FollowsGradient:
        """It follows the natural gradient, as heavy ball does."""

        def heavy(mu: float, nesterov: bool) -> Natural:
            return replace(self, momentum=mu, nesterov=nesterov)

        return FollowsGradient(heavy, self.momentum, self.nesterov, euclidean=False)


@dataclass(frozen=True, eq=False)
class Metric:
    """(G + damping) of a network's outputs on a batch.

    Attributes:
        network: The network's outputs.
        task: Says which outputs are read, and by which loss.
        damping: Added to G.
        curvature: As in `Natural`.
        groups: As in `Natural`.
        penalties: Curvature of a penalty beside the loss, of each replica; none without a penalty.
    """

    network: Outputs
    task: Task
    damping: float
    curvature: str
    groups: int
    penalties: tuple[Curvature, ...] = ()

    def held(self, curvatures: Sequence[Curvature]) -> Metric:
        """Add the curvature of a penalty."""
        return replace(self, penalties=tuple(curvatures))

    def of_replica(self, replica: int) -> Metric:
        """Give the metric of one replica."""
        return replace(self, penalties=self.penalties[replica : replica + 1])

    def apply(self, theta: Tensor, x: Tensor, gradient: Tensor) -> Tensor:
        """Condition a gradient (P,)."""
        return self._solve(theta, x, gradient[None])[0]

    def push(
        self, theta: Tensor, x: Tensor, gradient: Tensor, tangents: Tensor, moved: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Differentiate along tangents (K, P)."""
        fed = self.apply(theta, x, gradient)
        image = self._image(theta, x)

        def turned(v: Tensor) -> Tensor:
            made: Tensor = pushforward(lambda t: image(t, fed), (theta,), (v,))[1]
            return made

        return fed, self._solve(theta, x, moved - vmap(turned)(tangents))

    def pull(
        self, theta: Tensor, x: Tensor, fed: Tensor, cotangents: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Pull cotangents (K, P) back."""
        reached = self._solve(theta, x, cotangents)
        image = self._image(theta, x)
        _, transpose = pullback(lambda t: image(t, fed), theta)
        return reached, -vmap(lambda w: transpose(w)[0])(reached)

    def least_sq(self, before: Tensor, after: Tensor) -> Tensor:
        """Bound the squared distance of two points from below, in the metric of all samples.

        Args:
            before: Parameters (P,).
            after: Others (P,).

        Returns:
            The mean squared distance of the samples' laws, with damping |d theta|^2; float64.
        """
        apart, x = _APART[str(self.task.loss)], self.task.train.x
        total = sum(
            apart(self._outputs(before, some).double(), self._outputs(after, some).double())
            * (len(some) / len(x))
            for some in x.split(_CHUNK)
        )
        return total + self.damping * (after.double() - before.double()).square().sum()

    def _outputs(self, theta: Tensor, x: Tensor) -> Tensor:
        return self.task.select(self.network(theta, x))

    def whole(self, theta: Tensor) -> bool:
        """Say whether G is used as it is, and not an estimate of its diagonal.

        Args:
            theta: Parameters (..., P).

        Returns:
            Whether it is.
        """
        return self.curvature == "exact" or (self.curvature == "auto" and theta.shape[-1] <= SMALL)

    def _image(self, theta: Tensor, x: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """G(theta) u, as a function of both."""
        if self.whole(theta):
            return lambda t, u: self._products(t, x)(u)
        return lambda t, u: self._diagonal(t, x) * u

    def _products(self, theta: Tensor, x: Tensor) -> Callable[[Tensor], Tensor]:
        """U to G u; what all u share is computed once."""
        slope = grad(_POTENTIALS[str(self.task.loss)])
        values, pull = pullback(lambda t: self._outputs(t, x), theta)
        _, curve = pullback(slope, values)  # symmetric
        # The transpose of the transpose: nothing runs through the network again.
        _, push = pullback(lambda f: pull(f)[0], values)

        def product(u: Tensor) -> Tensor:
            made: Tensor = pull(curve(push(u)[0])[0])[0]
            return made

        return product

    def _parts(self, x: Tensor) -> Tensor:
        """Every second sample, since half of them tell as much, in groups of one size."""
        half = x[::2]
        groups = min(self.groups, len(half))
        size = len(half) // groups  # what is left over has no part in it
        return half[: groups * size].reshape(groups, size, *x.shape[1:])

    def _signed_root(self, outputs: Tensor, group: int) -> Tensor:
        # numpy's, not torch's: torch draws nothing inside the function transforms.
        source = np.random.Generator(np.random.Philox((_SIGNS, group)))
        signs = torch.from_numpy(source.integers(0, 2, tuple(outputs.shape)) * 2 - 1)
        return _ROOTS[str(self.task.loss)](outputs, signs.to(outputs))

    def _diagonal(self, theta: Tensor, x: Tensor) -> Tensor:
        """The diagonal of G, differentiable by the function transforms."""
        parts, total = self._parts(x), torch.zeros_like(theta)
        for group, part in enumerate(parts):
            values, pull = pullback(lambda t, part=part: self._outputs(t, part), theta)
            total = total + pull(self._signed_root(values, group))[0].square()
        return total / (len(parts) * parts.shape[1])

    def _diagonal_now(self, theta: Tensor, x: Tensor) -> Tensor:
        """The same by plain autograd: a step notices overhead."""
        parts, total = self._parts(x), torch.zeros_like(theta)
        for group, part in enumerate(parts):
            with torch.enable_grad():
                leaf = theta.detach().requires_grad_()
                values = self._outputs(leaf, part)
                (pulled,) = torch.autograd.grad(
                    values, leaf, self._signed_root(values.detach(), group)
                )
            total.addcmul_(pulled, pulled)
        return total.div_(len(parts) * parts.shape[1])

    def _solve(self, theta: Tensor, x: Tensor, rows: Tensor) -> Tensor:
        """(G + damping)^{-1} rows (K, P)."""
        if not self.whole(theta):
            diagonal = self._diagonal_now(theta, x).add_(self.damping)
            for penalty in self.penalties:
                diagonal.add_(penalty.diagonal)
            return rows / diagonal
        products = vmap(self._products(theta, x))
        if not self.penalties:
            return _conjugate_gradients(products, rows, self.damping, said=self.damping)
        (penalty,) = self.penalties
        # In units in which damping and penalty's diagonal are 1: importances differ by powers of
        # ten, and conjugate gradients would take as many more steps.
        scale, beside = (penalty.diagonal + self.damping).rsqrt(), vmap(penalty.product)

        def scaled(u: Tensor) -> Tensor:
            moved = scale * u
            return scale * (products(moved) + beside(moved) - penalty.diagonal * moved)

        return scale * _conjugate_gradients(scaled, scale * rows, 1.0, said=self.damping)


def _conjugate_gradients(
    products: Callable[[Tensor], Tensor], rows: Tensor, damping: float, *, said: float
) -> Tensor:
    """Solve (G + damping) u = row for every row (K, P)."""
    eps = torch.finfo(rows.dtype).eps
    made, residual = torch.zeros_like(rows), rows.clone()
    aim, size = residual.clone(), residual.square().sum(-1, keepdim=True)
    wanted = size * eps**1.5
    limit = 20 + 3 * rows.shape[-1]  # rounding makes it longer than P
    for _ in range(limit):
        if bool((size <= wanted).all()) or not bool(torch.isfinite(size).all()):
            return made
        image = products(aim) + damping * aim
        length = size / (aim * image).sum(-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
        length = torch.where(size > wanted, length, torch.zeros_like(size))
        made, residual = made + length * aim, residual - length * image
        fresh = residual.square().sum(-1, keepdim=True)
        aim = residual + fresh / size.clamp_min(torch.finfo(rows.dtype).tiny) * aim
        size = torch.where(length > 0, fresh, size)
    if bool((size > rows.square().sum(-1, keepdim=True) * eps).any()):
        raise ValueError(
            f"options.damping = {said:g} leaves the natural gradient of {rows.dtype} unsolved "
            f"after {limit} steps of conjugate gradients: the matrix is singular to rounding; "
            "raise the damping, or take curvature = 'diagonal'"
        )
    return made


def _cross_entropy(outputs: Tensor) -> Tensor:
    return outputs.logsumexp(-1).mean()


def _mse(outputs: Tensor) -> Tensor:
    return 0.5 * outputs.square().sum(-1).mean()


def _root_of_softmax(outputs: Tensor, signs: Tensor) -> Tensor:
    p = outputs.softmax(-1)
    # S S' = diag(p) - p p', with S = diag(sqrt p) - p sqrt(p)'.
    return p.sqrt() * signs - p * (p.sqrt() * signs).sum(-1, keepdim=True)


def _angles(before: Tensor, after: Tensor) -> Tensor:
    """Mean squared Fisher-Rao distance of categorical laws: twice the angle of their roots."""
    ends = [0.5 * outputs.log_softmax(-1) for outputs in (before, after)]
    chord = (ends[0].exp() - ends[1].exp()).norm(dim=-1)
    # 2 asin(chord/2) is the angle, and keeps its digits where arccos of nearly 1 loses them.
    return (4 * (0.5 * chord).clamp(max=1.0).asin()).square().mean()


_POTENTIALS = {"cross_entropy": _cross_entropy, "mse": _mse}
"""Functions of the outputs with the loss's Hessian in them, which no target is in."""
_ROOTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": _root_of_softmax,
    "mse": lambda outputs, signs: signs * torch.ones_like(outputs),
}
"""A root of a sample's Hessian times signs (n, C)."""
_APART: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": _angles,
    "mse": lambda before, after: (before - after).square().sum(-1).mean(),
}
"""Mean squared distance of the samples' laws, of which the loss's Hessian is the metric."""
