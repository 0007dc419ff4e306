"""One step of gradient descent as a variational problem, and what finite steps change.

On a quadratic of curvature a everything is known: how much of the ideal drop W2^2/lr an explicit
step (gradient descent) and an implicit one (the minimising movement of Jordan, Kinderlehrer and
Otto) achieve, the action of a whole run, and where minibatch noise settles. Graham, *Variational
flows in learning*: its (56) and (58) disagree in sign; the signs here are those of the map itself,
below 1 for the explicit step and above 1 for the implicit one (theory.md#variational-step).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from capacity.closed_forms._inputs import (
    Array,
    below,
    finite,
    non_negative,
    positive,
    together,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class DescentAction:
    """Gradient descent on a quadratic, per mode.

    Attributes:
        action: sum_k |theta_{k+1} - theta_k|^2/lr, the Sigma of the path.
        loss_drop: L(theta_0) - L(theta_K) = action (1 - lr lambda/2).
    """

    action: Array
    loss_drop: Array


def explicit_step_ratio(*, curvature: ArrayLike, lr: ArrayLike) -> Array:
    """Loss drop of one gradient step over W2^2/lr: 1 - lr a/2.

    Args:
        curvature: Curvature a along the mode, 0 or more.
        lr: Learning rate, above 0.

    Returns:
        The ratio; below 0 where the step is so long that the loss rises.
    """
    a, step = together(curvature=non_negative("curvature", curvature), lr=positive("lr", lr))
    return 1 - 0.5 * step * a


def implicit_step_ratio(*, curvature: ArrayLike, lr: ArrayLike) -> Array:
    """Loss drop of one implicit (JKO, proximal) step over W2^2/lr: 1 + lr a/2.

    Args:
        curvature: Curvature a along the mode, 0 or more.
        lr: Step length, above 0.

    Returns:
        The ratio, at least 1.
    """
    a, step = together(curvature=non_negative("curvature", curvature), lr=positive("lr", lr))
    return 1 + 0.5 * step * a


@dataclass(frozen=True, kw_only=True, eq=False)
class BeliefStep:
    """Where one implicit step takes a Gaussian belief, per mode.

    Attributes:
        mean: Mean after the step.
        deviation: Standard deviation after it.
    """

    mean: Array
    deviation: Array


def jko_step(
    *,
    curvature: ArrayLike,
    target: ArrayLike,
    temperature: ArrayLike,
    mean: ArrayLike,
    deviation: ArrayLike,
    lr: ArrayLike,
) -> BeliefStep:
    """Minimise F(q) + W2^2(q, q_0)/(2 lr) over Gaussians: the step of Jordan, Kinderlehrer, Otto.

    F = E_q[a/2 (theta - m)^2] - tau H. mean+ = (mean + lr a m)/(1 + lr a), and with c = 1 + lr a
    deviation+ = (s + sqrt(s^2 + 4 lr tau c))/(2 c), which is above 0 whatever the step.

    Args:
        curvature: a, 0 or more.
        target: m, where the loss is least.
        temperature: tau, above 0.
        mean: Mean before the step.
        deviation: Standard deviation s before it, above 0.
        lr: Step length, above 0.

    Returns:
        The belief after the step.
    """
    a, m, tau, mu, s, step = _checked(curvature, target, temperature, mean, deviation, lr)
    c = 1 + step * a
    wide = (s + np.sqrt(s**2 + 4 * step * tau * c)) / (2 * c)
    return BeliefStep(mean=(mu + step * a * m) / c, deviation=wide)


def kl_step(
    *,
    curvature: ArrayLike,
    target: ArrayLike,
    temperature: ArrayLike,
    mean: ArrayLike,
    deviation: ArrayLike,
    lr: ArrayLike,
) -> BeliefStep:
    """Minimise F(q) + KL(q | q_0)/lr over Gaussians: mirror descent of beliefs.

    With precision P = 1/s^2: P+ = (P + lr a)/(1 + lr tau), P+ mean+ = (P mean + lr a m)/(1 + lr
    tau).

    Args:
        curvature: a, 0 or more.
        target: m, where the loss is least.
        temperature: tau, above 0.
        mean: Mean before the step.
        deviation: Standard deviation s before it, above 0.
        lr: Step length, above 0.

    Returns:
        The belief after the step.
    """
    a, m, tau, mu, s, step = _checked(curvature, target, temperature, mean, deviation, lr)
    kept = s**-2 + step * a
    return BeliefStep(
        mean=(mu / s**2 + step * a * m) / kept, deviation=np.sqrt((1 + step * tau) / kept)
    )


def _checked(
    curvature: ArrayLike,
    target: ArrayLike,
    temperature: ArrayLike,
    mean: ArrayLike,
    deviation: ArrayLike,
    lr: ArrayLike,
) -> list[Array]:
    return together(
        curvature=non_negative("curvature", curvature),
        target=finite("target", target),
        temperature=positive("temperature", temperature),
        mean=finite("mean", mean),
        deviation=positive("deviation", deviation),
        lr=positive("lr", lr),
    )


def sgd_stationary_variance(*, curvature: ArrayLike, lr: ArrayLike, noise: ArrayLike) -> Array:
    """Variance lr C/(2h - lr h^2) at which SGD with gradient noise C settles, per mode.

    Args:
        curvature: Curvature h, above 0.
        lr: Learning rate, above 0 and below 2/h: SGD does not settle beyond.
        noise: Variance C of the minibatch gradient, 0 or more.

    Returns:
        The stationary variance of theta; lr h/2 of it and more is missed by the SDE.
    """
    h, step, c = together(
        curvature=positive("curvature", curvature),
        lr=positive("lr", lr),
        noise=non_negative("noise", noise),
    )
    below("lr", step, 2 / h, "2/curvature, else SGD diverges")
    return step * c / (2 * h - step * h**2)


def sde_stationary_variance(*, curvature: ArrayLike, lr: ArrayLike, noise: ArrayLike) -> Array:
    """Variance lr C/(2h) at which the SDE that stands for SGD settles, per mode.

    The first order in lr of `sgd_stationary_variance`, and always below it.

    Args:
        curvature: Curvature h, above 0.
        lr: Learning rate, above 0.
        noise: Variance C of the minibatch gradient, 0 or more.

    Returns:
        The stationary variance of theta.
    """
    h, step, c = together(
        curvature=positive("curvature", curvature),
        lr=positive("lr", lr),
        noise=non_negative("noise", noise),
    )
    return step * c / (2 * h)


def descent_action(
    *, curvature: ArrayLike, residue: ArrayLike, lr: ArrayLike, steps: ArrayLike
) -> DescentAction:
    """Action and loss drop of K steps of gradient descent on a quadratic.

    action = Delta^2 (1 - q^{2K})/(2 - lr lambda), q = 1 - lr lambda, per mode, where
    Delta^2 = lambda (theta_0 - m)^2 is the squared residue: L = 1/2 Delta^2. The loss drop is
    smaller, action = drop/(1 - lr lambda/2): they agree in the limit of small steps only.

    Args:
        curvature: Curvature lambda, 0 or more.
        residue: Delta = sqrt(lambda) (theta_0 - m).
        lr: Learning rate, above 0 and below 2/lambda.
        steps: Number of steps K, 0 or more.

    Returns:
        Action and drop, additive over modes.

    Raises:
        ValueError: If an argument is out of its range or `steps` is not whole.
    """
    rate, delta, step, count = together(
        curvature=non_negative("curvature", curvature),
        residue=finite("residue", residue),
        lr=positive("lr", lr),
        steps=non_negative("steps", steps),
    )
    if np.any(count % 1 != 0):
        raise ValueError(f"steps = {count[count % 1 != 0].flat[0]:g} must be a whole number")
    with np.errstate(divide="ignore"):
        below("lr", step, 2 / rate, "2/curvature, else gradient descent diverges")
    x = step * rate
    with np.errstate(divide="ignore", invalid="ignore"):
        log_q = np.where(x < 1, np.log1p(-np.minimum(x, 1.0)), np.log(np.abs(1 - x)))
        lost = np.where(count > 0, -np.expm1(2 * count * log_q), 0.0)
    action = delta**2 * lost / (2 - x)
    return DescentAction(action=action, loss_drop=0.5 * delta**2 * lost)
