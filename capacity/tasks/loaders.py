"""The batch size of somebody's own loader is the batch size of the training."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from capacity.recipe.config import Training
from capacity.tasks.task import Task


def with_loader_batches(training: Training | None, tasks: Sequence[Task]) -> Training:
    """Let a training take the batch size of the loaders that its tasks came from.

    A batch size that the training was given stands, with a warning where a loader has another.

    Args:
        training: The training as it was asked for; None takes the defaults.
        tasks: The tasks that it learns.

    Returns:
        The training.

    Raises:
        ValueError: If the training is of another kind, or has no batch size of its own and the
            loaders disagree.
    """
    if training is not None and not isinstance(training, Training):
        raise ValueError(
            f"training is a {type(training).__name__}; pass capacity.Training(lr=..., epochs=...)"
        )
    sizes = sorted({task.batch_size for task in tasks if task.batch_size is not None})
    how = Training() if training is None else training
    if not sizes:
        return how
    if training is not None and "batch_size" in training.model_fields_set:
        if sizes != [training.batch_size]:
            warnings.warn(
                f"training.batch_size = {training.batch_size} is taken, and not that of the "
                f"DataLoader ({', '.join(map(str, sizes))})",
                stacklevel=4,
            )
        return training
    if len(sizes) > 1:
        raise ValueError(
            f"tasks come from DataLoaders of batch sizes {sizes}, and a training has one: pass "
            "training=capacity.Training(batch_size=...)"
        )
    return how.model_copy(update={"batch_size": sizes[0]})
