"""What a run does not measure of a network that trains otherwise than it is evaluated."""

from __future__ import annotations

from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Recipe


def check_two_modes(model: FlatModel, recipe: Recipe) -> None:
    """Check that a recipe asks of a network with dropout or batch norm what can be done with it.

    Args:
        model: The network, as the door left it.
        recipe: The recipe.

    Raises:
        ValueError: If J_t or R_A is asked for, a strategy for several replicas, or one on
            accumulated gradients.
    """
    if not model.two_modes:
        return
    layers = model.modes.named
    if recipe.measure.transport or recipe.measure.capacity:
        raise ValueError(
            f"measure asks for J_t or R_A, but {layers} trains otherwise than it is evaluated, and "
            "the step is no function of theta alone; pass "
            'measure=capacity.Measure(level="forecast"), or call .eval() on the layer'
        )
    named, batches = recipe.training.strategy.name, recipe.training.accumulate
    if batches > 1 and named != "naive":
        raise ValueError(
            f"training.accumulate = {batches} with training.strategy = {named!r} takes one "
            f"gradient of all samples, and {layers} may see each batch by itself; leave one of the "
            "two out, or call .eval() on the layer"
        )
    if recipe.replicas > 1 and named != "naive":
        raise ValueError(
            f"training.strategy = {named!r} remembers the old tasks for all {recipe.replicas} "
            f"replicas at once, and {layers} has running statistics or masks of its own in each; "
            "pass replicas=1 (and several seeds, as with capacity run --seeds)"
        )
