"""What a run measures of a network that trains otherwise than it is evaluated."""

from __future__ import annotations

from torch import Tensor

from capacity.networks.flat_model import FlatModel
from capacity.networks.purity import check_derivatives
from capacity.networks.replays import check_replays
from capacity.recipe.config import Recipe
from capacity.tasks.task import Task

_SAMPLES = 8


def check_two_modes(model: FlatModel, theta: Tensor, task: Task, recipe: Recipe) -> None:
    """Check that a recipe asks of a network with dropout or batch norm what can be done with it.

    J_t is that of the steps as they are taken, in training mode, with the masks of their seeds.
    R_A, m_B and verdicts are of the network in evaluation mode, with its running statistics there.

    Args:
        model: The network, as the door left it.
        theta: Its parameters (P,).
        task: A task, for its inputs.
        recipe: The recipe.

    Raises:
        ValueError: If J_t is asked for where a step is no function of theta and the batch or has no
            second derivative, a strategy for several replicas with running statistics, or one on
            accumulated gradients.
    """
    if not model.two_modes:
        return
    layers = model.modes.named
    if recipe.measure.transport:
        few = task.train.x[:_SAMPLES]
        check_replays(model, theta, few)
        with model.training(0, moving=False):
            check_derivatives(model, theta, few, twice=True)
    named, batches = recipe.training.strategy.name, recipe.training.accumulate
    if batches > 1 and named != "naive":
        raise ValueError(
            f"training.accumulate = {batches} with training.strategy = {named!r} takes one "
            f"gradient of all samples, and {layers} may see each batch by itself; leave one of the "
            "two out, or call .eval() on the layer"
        )
    # Masks and a belief's draws belong to a step; what is remembered is of the evaluated network.
    if recipe.replicas > 1 and named != "naive" and model.has_buffers:
        raise ValueError(
            f"training.strategy = {named!r} remembers the old tasks for all {recipe.replicas} "
            f"replicas at once, and {layers} has running statistics of its own in each; "
            "pass replicas=1 (and several seeds, as with capacity run --seeds)"
        )
