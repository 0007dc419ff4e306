"""The recipe's part on curricula: which samples of a task are seen first."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from capacity.recipe.strategy import Section


class CurriculumOptions(Section):
    """Samples of a task in stages: each stage draws from more of them, ordered by their loss.

    The loss is that of the network as the task finds it, each replica's own, and of a sample alone:
    weights of classes, or how many of its tokens count, do not make it harder. Steps and learning
    rates are those of the training without a curriculum.

    Example:
        >>> import capacity
        >>> plan = capacity.Training(curriculum={"first": "easy", "stages": 4, "share": 0.5})
        >>> [plan.curriculum.seen(k / 8) for k in range(8)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]
    """

    first: Literal["easy", "hard"]
    """`easy`: samples of small loss first; `hard`: those of large loss."""
    stages: Annotated[int, Field(ge=2, le=1000)] = 5
    """Stage s of S draws from the first s/S of the samples."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the task's epochs that the stages take; then all samples are drawn from."""

    def seen(self, passed: float) -> float:
        """Say from which share of the samples is drawn.

        Args:
            passed: Share of the training that is over, from 0 to below 1.

        Returns:
            The share, from 1/S to 1.
        """
        # A hair of rounding must not hold a stage back.
        stage = math.floor(passed / self.share * self.stages + 1e-9) + 1
        return min(stage / self.stages, 1.0)

    def check_epochs(self, epochs: int) -> None:
        """Refuse by ValueError a training that ends before all samples are drawn from.

        Args:
            epochs: Passes over the task's training data; a stage begins with one of them.

        Raises:
            ValueError: If the last of them draws from a part of the samples.
        """
        share = self.seen((epochs - 1) / epochs)
        if share < 1:
            raise ValueError(
                f"curriculum with stages = {self.stages} and share = {self.share:g} would never "
                f"show {1 - share:.3g} of the samples, since stages begin with an epoch and a task "
                f"takes {epochs}; give more epochs, fewer stages or a smaller share, or leave "
                "curriculum out"
            )

    def within(self, epochs: int) -> CurriculumOptions | None:
        """Give the most of its stages that so many epochs show all samples with.

        Args:
            epochs: Passes over the task's training data, at least one.

        Returns:
            The curriculum; None where there is time for one stage alone.
        """
        for stages in range(self.stages, 1, -1):
            kept = self.model_copy(update={"stages": stages})
            if kept.seen((epochs - 1) / epochs) == 1:
                return kept
        return None


def _section(given: object) -> object:
    return {"first": given} if isinstance(given, str) else given


NamedCurriculum = Annotated[CurriculumOptions | None, BeforeValidator(_section)]
"""A curriculum in a recipe: what comes first, or a section with its options; null for none."""
