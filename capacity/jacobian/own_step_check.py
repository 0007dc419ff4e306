"""Whether a user's own step can be tracked: a pure function with the derivative that it claims.

A step that detaches a tensor, or passes it through numpy, has a derivative as far as torch can
tell: 0. Its Jacobian would be wrong without a word, so the derivative is held against finite
differences before anything is recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from capacity.base.differential import pullback, pushforward
from capacity.jacobian.training_jacobian import pull, push
from capacity.jacobian.trajectory import TrainingStep, Trajectory
from capacity.optimizers import REGISTRY
from capacity.optimizers.beliefs import GEOMETRIES
from capacity.optimizers.grouped import Grouped
from capacity.optimizers.implicit import IMPLICIT
from capacity.optimizers.optimizer import stated
from capacity.optimizers.own_steps import GradientStep
from capacity.optimizers.update_map import State, UpdateMap
from capacity.products.hessian_products import Loss

CHECKED_STEPS = 2
"""At the first step the moments are 0, and what is multiplied with them is not seen."""

_SHIFT = 1e-7
"""Length of the finite differences, relative to what is moved; in float64."""

_NOISE = 1e-7
"""Rounding of a finite difference, relative to the result."""

_TOLERANCE = 1e-2
"""Accepted error of a derivative, relative to it."""

_TRIES = 3
"""A difference may straddle a kink of the network by chance; a wrong derivative is always wrong."""


def accepted(update: object) -> UpdateMap:
    """Check that something is an update map.

    Args:
        update: What the user gave.

    Returns:
        The update map.

    Raises:
        ValueError: If it has neither the methods of an update map nor is a `BatchStep`.
    """
    methods = (getattr(update, name, None) for name in ("init", "step"))
    if all(map(callable, methods)) and hasattr(update, "name"):
        return update  # type: ignore[return-value]
    raise ValueError(
        f"update is a {type(update).__name__}; wrap a function (state, gradient, lr, count) -> "
        "state as capacity.GradientStep(function), one that evaluates the loss itself as "
        "capacity.BatchStep(function)"
    )


def check_step(loss: Loss, step: TrainingStep) -> None:
    """Refuse a step whose Jacobian would not be that of the training.

    A step that is no pure function of its arguments, returns another form of state, or whose
    derivative fails or differs from finite differences is a ValueError that names it. The package's
    own update maps are passed over: tests have checked them.

    Args:
        loss: The tracked loss.
        step: The step about to be taken.
    """
    update = stated(step.update)
    if _of_package(update.unclipped):
        return
    name = update.name
    _check_pure(name, loss, step)
    double = tuple(part.double() for part in step.state)
    x = step.x.double() if step.x.is_floating_point() else step.x

    if not update.from_gradient:

        def whole(state: State) -> State:
            return update.advance(loss, state, x, step.y, step.lr, step.count)

        try:
            whole(double)
        except Exception:
            # A network with fixed tensors of single precision: only the form can be checked.
            _derivative(name, _as_given(loss, step), step.state, step.state)
            return
        _check_derivative(name, whole, double, moved=range(len(double)))
        return
    gradient = torch.func.grad(loss)(*(part for part in (step.state[0], step.x, step.y)))

    def algebra(arguments: State) -> State:
        return update.step(arguments[:-1], arguments[-1], step.lr, step.count)

    # Elementwise or nearly so, and far from the network's kinks: each argument by itself, however
    # little it matters beside the others.
    arguments = (*double, gradient.double())
    _check_derivative(name, algebra, arguments, moved=range(len(arguments)))
    if update.symmetric_decay is not None or update.linear or update.elementwise:
        _check_quick(name, loss, step)


def _of_package(update: object) -> bool:
    """Whether it is exactly one of the package's classes; a subclass may step otherwise."""
    kind = type(update.maps[0] if isinstance(update, Grouped) else update)
    if kind in {*GEOMETRIES.values(), *IMPLICIT.values()}:
        return True
    return f"{kind.__module__}:{kind.__qualname__}" in REGISTRY.built_in.values()


def _check_quick(name: str, loss: Loss, step: TrainingStep) -> None:
    """Compare the quick products that a class states (see `Optimizer`) with the general ones."""
    general = replace(step, update=GradientStep(step.update.step, moments=len(step.state) - 1))
    path = Trajectory(loss, step.update)
    generator, eps = torch.Generator().manual_seed(0), torch.finfo(step.state[0].dtype).eps
    rows = tuple(
        torch.randn((1, *part.shape), generator=generator, dtype=torch.float32).to(part)
        for part in step.state
    )
    for go in (push, pull):
        quick, true = go(path, step, rows), go(path, general, rows)
        for row, part, other in zip(rows, quick, true, strict=True):
            # What is left of a row as it was is no evidence, as in a derivative.
            bound = _TOLERANCE * (other - row).norm() + 100 * eps * other.norm()
            if bool((part - other).norm() > bound):
                raise ValueError(
                    f"update {name!r} states symmetric_decay, linear or elementwise, and its "
                    "Jacobian is another; leave these out, and the general products are taken"
                )


def _as_given(loss: Loss, step: TrainingStep) -> Callable[[State], State]:
    update = stated(step.update)
    return lambda state: update.advance(loss, state, step.x, step.y, step.lr, step.count)


def _check_pure(name: str, loss: Loss, step: TrainingStep) -> None:
    """Check the form of the result, and that nothing but the arguments decides about it."""
    kept = tuple(part.clone() for part in step.state)
    take = _as_given(loss, step)
    try:
        with torch.no_grad():
            made = [take(step.state) for _ in range(2)]
    except Exception as error:
        raise ValueError(f"update {name!r} failed at step {step.count}: {_said(error)}") from error
    if not all(torch.equal(a, b) for a, b in zip(kept, step.state, strict=True)):
        raise ValueError(f"update {name!r} writes to its state in place; return new tensors")
    shape, dtype = step.state[0].shape, step.state[0].dtype
    for result in made:
        good = isinstance(result, tuple) and len(result) == len(kept)
        if not good or not all(isinstance(part, Tensor) for part in result):
            raise ValueError(
                f"update {name!r} must return a tuple of {len(kept)} tensors, theta first, like "
                f"the state that it is given (moments = {len(kept) - 1}); it returned "
                f"{_described(result)}"
            )
        if any(part.shape != shape or part.dtype != dtype for part in result):
            raise ValueError(
                f"update {name!r} must return tensors of shape {tuple(shape)} and {dtype}, like "
                f"theta; it returned {_described(result)}"
            )
    if not all(torch.equal(a, b) or bool((a != a).any()) for a, b in zip(*made, strict=True)):
        raise ValueError(
            f"update {name!r} gives another result each time; make its random numbers a function "
            "of count, and keep what it remembers in the state"
        )


def _check_derivative(
    name: str, function: Callable[[State], State], point: State, moved: range
) -> None:
    generator = torch.Generator().manual_seed(0)
    for index in moved:
        wrong = ""
        for _ in range(_TRIES):
            signs = torch.randint(0, 2, point[index].shape, generator=generator) * 2 - 1
            direction = [torch.zeros_like(part) for part in point]
            # Relative to each number, so that no sign changes.
            direction[index] = point[index] * signs.to(point[index])
            wrong = _disagreement(name, function, point, tuple(direction))
            if not wrong:
                break
        if wrong:
            raise ValueError(
                f"update {name!r} has no true derivative: {wrong}; a detached tensor, a detour "
                "through numpy or a rounding hides part of the step from differentiation"
            )


def _disagreement(
    name: str, function: Callable[[State], State], point: State, direction: State
) -> str:
    ahead, behind = (
        function(tuple(p + s * _SHIFT * d for p, d in zip(point, direction, strict=True)))
        for s in (1, -1)
    )
    claimed = _derivative(name, function, point, direction)
    if bool(direction[0].any()) and not bool(claimed[0].any()):
        return "theta does not depend on theta before the step"
    for part, (a, b, jvp) in enumerate(zip(ahead, behind, claimed, strict=True)):
        seen = (a - b) / (2 * _SHIFT)
        # What is left of the state as it was is no evidence for the rest of the step.
        beyond = (seen - direction[part]).norm()
        bound = _TOLERANCE * beyond + _NOISE * a.norm()
        if bool((seen - jvp).norm() > bound):
            what = "theta" if part == 0 else f"moment {part}"
            return (
                f"{what} moves by {float(seen.norm()):.3g} where its derivative says "
                f"{float(jvp.norm()):.3g}"
            )
    return ""


def _derivative(
    name: str, function: Callable[[State], State], point: State, direction: State
) -> State:
    """Take the JVP, and see that the VJP can be taken, too."""

    def flat(*arguments: Tensor) -> State:
        return function(arguments)

    try:
        made, jvp = pushforward(flat, point, direction)
        pullback(flat, *point)[1](made)
    except Exception as error:
        raise ValueError(f"update {name!r} cannot be differentiated: {_said(error)}") from error
    state: State = jvp
    return state


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def _described(result: object) -> str:
    if isinstance(result, tuple) and all(isinstance(part, Tensor) for part in result):
        return f"{[(tuple(part.shape), str(part.dtype)) for part in result]}"
    return f"a {type(result).__name__}"
