"""The optimiser that a recipe asks for."""

from __future__ import annotations

import torch

from capacity.optimizers import REGISTRY
from capacity.optimizers.clipped import Clipped
from capacity.optimizers.optimizer import Optimizer
from capacity.optimizers.own_steps import GradientStep
from capacity.recipe.config import Training


def optimizer_named(name: str) -> Optimizer | type[Optimizer]:
    """Look an optimiser up.

    Args:
        name: Its name in recipes.

    Returns:
        The class; a step of a user's own as it was registered.

    Raises:
        ValueError: If nobody knows it, or it is no `Optimizer`.
    """
    kind = REGISTRY.load(name)
    if isinstance(kind, Optimizer) or (isinstance(kind, type) and issubclass(kind, Optimizer)):
        return kind
    raise ValueError(
        f"training.optimizer = {name!r} is registered as {kind!r}; register a class on "
        "capacity.optimizers.optimizer.Optimizer, or a capacity.GradientStep"
    )


def from_training(
    training: Training, *, seed: int = 0, path: tuple[str | int, ...] = ()
) -> Optimizer:
    """Build the optimiser that a recipe asks for.

    Args:
        training: The recipe's training section.
        seed: Root seed of the noise, where the optimiser has any.
        path: Name of the noise's stream below the seed.

    Returns:
        The update map. A name that nobody knows, and a class whose step mixes replicas, is a
        ValueError.
    """
    chosen = optimizer_named(training.optimizer).from_training(training, seed=seed, path=path)
    if training.optimizer not in REGISTRY.built_in:
        _check_replicas(training.optimizer, chosen)
    return chosen if training.clip_norm is None else Clipped(chosen, training.clip_norm)


def _check_replicas(name: str, update: Optimizer) -> None:
    """Refuse a class that adds up over replicas: a run would answer wrongly without a word."""
    if isinstance(update, GradientStep):  # takes them one by one
        return
    theta = torch.linspace(-1.0, 1.0, 6, dtype=torch.float64).reshape(2, 3)
    both = update.step(update.init(theta), theta.flip(0).exp(), 0.1, 1)
    alone = update.step(update.init(theta[0]), theta[1].exp(), 0.1, 1)
    if any(not torch.allclose(b[0], a, rtol=1e-9) for b, a in zip(both, alone, strict=True)):
        raise ValueError(
            f"training.optimizer = {name!r} steps otherwise with other replicas beside it; its "
            "state is (..., P): let sums and norms run over the last dimension only (dim=-1)"
        )
