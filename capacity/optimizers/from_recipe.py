"""The optimiser that a recipe asks for."""

from __future__ import annotations

from capacity.optimizers import REGISTRY
from capacity.optimizers.clipped import Clipped
from capacity.optimizers.optimizer import Optimizer
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
        The update map. An unknown name is a ValueError.
    """
    chosen = optimizer_named(training.optimizer).from_training(training, seed=seed, path=path)
    return chosen if training.clip_norm is None else Clipped(chosen, training.clip_norm)
