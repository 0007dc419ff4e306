"""What an update map has to be for an ensemble."""

from __future__ import annotations

from dataclasses import replace

from capacity.base.checks import positive_int
from capacity.optimizers.dynamics import Dynamics
from capacity.optimizers.optimizer import Optimizer


def check_update(update: Optimizer, kind: Dynamics, log_volume: int) -> None:
    """Refuse what cannot be measured.

    Args:
        update: The update map.
        kind: What it does.
        log_volume: Hessian products per step.

    Raises:
        ValueError: If Langevin dynamics has no noise, the energy's decay is in the update, it
            conditions gradients, or the log-volume of its steps is not known.
    """
    if update.unclipped.conditions:
        raise ValueError(
            f"update {update.name!r} steps in a metric that it reads off every batch, in which an "
            "ensemble has no cost that is known; take sgd, momentum, adam, or mirror"
        )
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
    if log_volume and update.symmetric_decay is None:
        raise ValueError(
            f"log_volume = {log_volume!r} is not defined for {update.name!r}: the volume of theta "
            "alone changes in a known way for plain SGD and Langevin steps only; use 0"
        )
    if log_volume:
        positive_int("log_volume", log_volume)


def of_replicas(update: Optimizer, first: int) -> Optimizer:
    """Let row 0 be replica `first`, for the maps whose noise is named after replicas.

    Args:
        update: The update map.
        first: Number of the first replica.

    Returns:
        The map of these replicas.
    """
    return replace(update, first=first) if hasattr(update, "first") else update  # type: ignore[type-var]


def time_scale_of(update: Optimizer) -> float:
    """Time in which T Sigma >= W2^2 is meant, over the sum of the rates.

    Args:
        update: The update map.

    Returns:
        What its learning time says; 1 where it dissipates no free energy.
    """
    if update.dynamics(full=True) is Dynamics.OTHER:
        return 1.0
    scale = update.learning_time(1.0)
    assert scale is not None, "what has a dynamics has a time"
    return scale
