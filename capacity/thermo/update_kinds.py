"""What an update map does, as far as the meaning of Sigma depends on it."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from capacity.base.checks import positive_int
from capacity.optimizers.langevin import ExactLangevin, UnderdampedLangevin
from capacity.optimizers.own_steps import GradientStep
from capacity.optimizers.updates import (
    SGD,
    Adam,
    Clipped,
    Langevin,
    Momentum,
    RMSprop,
    State,
    UpdateMap,
)
from capacity.thermo.ensemble_record import Dynamics

_KNOWN = (
    SGD, Momentum, Adam, RMSprop, Clipped, GradientStep,
    Langevin, ExactLangevin, UnderdampedLangevin,
)  # fmt: skip


def _known(update: object) -> None:
    """Refuse a kind of which nothing is known: whether it has inertia or noise decides Sigma."""
    if not isinstance(update, _KNOWN):
        name = getattr(update, "name", type(update).__name__)
        names = ", ".join(kind.__name__ for kind in _KNOWN)
        raise ValueError(
            f"update {name!r} is a {type(update).__name__}, whose dynamics is not known here; "
            f"pass one of {names}: a step of your own goes in as "
            "capacity.GradientStep(function)"
        )
    if isinstance(update, Clipped):
        _known(update.inner)


def dynamics_of(update: object, *, full: bool) -> Dynamics:
    """Tell what an update map does, as far as the meaning of Sigma depends on it.

    Args:
        update: The update map.
        full: Whether it sees the whole energy at every step.

    Returns:
        The kind of dynamics.
    """
    _known(update)
    if isinstance(update, SGD):
        return Dynamics.GRADIENT if full else Dynamics.MINIBATCH
    if isinstance(update, Momentum) and not update.nesterov:
        return Dynamics.HEAVY_BALL
    if isinstance(update, Langevin | ExactLangevin):
        return Dynamics.LANGEVIN
    return Dynamics.UNDERDAMPED if isinstance(update, UnderdampedLangevin) else Dynamics.OTHER


def explicit(update: object) -> bool:
    """Tell whether a step is theta - lr gradient, noise aside, so that it can fold.

    Args:
        update: The update map.

    Returns:
        True for plain SGD and Euler steps of Langevin dynamics.
    """
    return isinstance(update, SGD | Langevin)


def check_update(update: UpdateMap, kind: Dynamics, log_volume: int) -> None:
    """Refuse what cannot be measured.

    Args:
        update: The update map.
        kind: What it does.
        log_volume: Hessian products per step.

    Raises:
        ValueError: If Langevin dynamics has no noise, the energy's decay is in the update, or the
            log-volume of its steps is not known.
    """
    if kind.noisy and not getattr(update, "temperature", 0.0) > 0:
        raise ValueError(
            "temperature = 0 leaves Langevin dynamics without noise and the free energy without "
            "an entropy: use SGD, whose Sigma is the action of its path, or a temperature above 0"
        )
    decay: float = getattr(update, "weight_decay", 0.0)
    if kind is not Dynamics.OTHER and decay:
        raise ValueError(
            f"update {update.name!r} has weight_decay = {decay:g}, which belongs to the "
            "energy here: give it to the landscape as decay, and to the update none"
        )
    # J of momentum and Adam on the extended state has a determinant that knows no Hessian.
    if log_volume and not explicit(update):
        raise ValueError(
            f"log_volume = {log_volume!r} is not defined for {update.name!r}: the volume of theta "
            "alone changes in a known way for plain SGD and Langevin steps only; use 0"
        )
    if log_volume:
        positive_int("log_volume", log_volume)


def of_replicas(update: UpdateMap, first: int) -> UpdateMap:
    """Let row 0 be replica `first`, for the maps whose noise is named after replicas.

    Args:
        update: The update map.
        first: Number of the first replica.

    Returns:
        The map of these replicas.
    """
    return replace(update, first=first) if hasattr(update, "first") else update  # type: ignore[type-var]


def time_scale_of(update: UpdateMap) -> float:
    """Time in which T Sigma >= W2^2 is meant, over the sum of the rates.

    Args:
        update: The update map.

    Returns:
        1/(1 - mu) for heavy ball, 1/friction for underdamped Langevin dynamics, else 1.
    """
    _known(update)
    if isinstance(update, Momentum) and not update.nesterov:
        return 1 / (1 - update.mu)
    return 1 / update.friction if isinstance(update, UnderdampedLangevin) else 1.0


def kinetic_energy(
    update: UpdateMap, state: State, before: State | None, lr: float
) -> Tensor | None:
    """Kinetic energy of some replicas.

    Args:
        update: The update map.
        state: Where they are.
        before: Where they were a step before; None at the start.
        lr: dt of that step.

    Returns:
        p^2/2 with inertia, |last step|^2/(2 lr) for momentum, float64 on the CPU; else None.
    """
    _known(update)
    if isinstance(update, UnderdampedLangevin):
        return 0.5 * state[1].double().square().sum(-1).cpu()
    if isinstance(update, Momentum) and before is not None:
        return (state[0] - before[0]).double().square().sum(-1).cpu() / (2 * lr)
    return None
