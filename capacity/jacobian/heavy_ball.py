"""Momentum steps, whose algebra is linear: tangents and cotangents go through it in place.

Heavy ball: m <- mu m + g + decay theta, theta <- theta - lr m; Nesterov steps along g + decay theta
+ mu m instead of m. Tangents follow the same lines with H v for g. Heavy ball allocates nothing of
the tangents' size, and neither the gradient nor a derivative of the algebra is needed.
"""

from __future__ import annotations

from capacity.jacobian.precision import Products
from capacity.jacobian.trajectory import TrainingStep
from capacity.optimizers.updates import Momentum, State


def push_momentum(
    update: Momentum, products: Products, step: TrainingStep, tangents: State
) -> State:
    """Push tangents of (theta, m) through one step.

    Args:
        update: The step's map.
        products: Hessian products of the loss.
        step: The step.
        tangents: Two tensors (K, P); overwritten.

    Returns:
        The tangents.
    """
    v, m = tangents
    m.mul_(update.mu)
    kept = m.clone() if update.nesterov else None
    if update.weight_decay:
        m.add_(v, alpha=update.weight_decay)
    products.add_to(v, step.state[0], step.x, step.y, scale=1.0, into=m)
    if kept is None:
        v.add_(m, alpha=-step.lr)
    else:
        # With g' = m - mu m_old the step g' + mu m is (1 + mu) m - mu m_old.
        v.add_(m, alpha=-step.lr * (1 + update.mu)).add_(kept, alpha=step.lr)
    return tangents


def pull_momentum(
    update: Momentum, products: Products, step: TrainingStep, cotangents: State
) -> State:
    """Pull cotangents (a, b) of (theta, m) back: the adjoint of `push_momentum`.

    With c what reaches the gradient, a <- a + (H + decay) c.

    Args:
        update: The step's map.
        products: Hessian products of the loss.
        step: The step.
        cotangents: Two tensors (K, P); overwritten.

    Returns:
        The cotangents.
    """
    a, b = cotangents
    mu, lr = update.mu, step.lr
    if update.nesterov:
        c = b.add(a, alpha=-lr * (1 + mu))
        b.mul_(mu).add_(a, alpha=-lr * mu * mu)
    else:
        c = b.add_(a, alpha=-lr)
    products.add_to(c, step.state[0], step.x, step.y, scale=1.0, into=a)
    if update.weight_decay:
        a.add_(c, alpha=update.weight_decay)
    if not update.nesterov:
        b.mul_(mu)
    return cotangents
