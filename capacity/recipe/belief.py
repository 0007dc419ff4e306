"""The recipe's part on beliefs: whether a training moves a point, or a Gaussian over parameters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from capacity.recipe.strategy import PositiveFloat, Section


class BeliefOptions(Section):
    """A Gaussian over all trainable parameters, independent of each other, in place of a point.

    Example:
        >>> import capacity
        >>> plan = capacity.Training(belief="transport", temperature=1e-4, lr=0.1)
        >>> plan.belief.draws
        1
    """

    geometry: Literal["transport", "information"]
    """`transport`: the flow of free energy in the Wasserstein metric of Gaussians; `information`:
    in that of Fisher and Rao, variational inference by natural gradients."""
    width: PositiveFloat = 0.02
    """Standard deviation of every parameter before the first task, in the unit of theta."""
    width_rate: PositiveFloat = 1.0
    """Learning rate of the widths over that of the means. Below 1 the curvature that widths follow
    is averaged over as many more steps, which lets the means take longer ones."""
    implicit: Annotated[int, Field(ge=3, le=1000)] | None = None
    """Gradients beside the first in which the end of an implicit step is looked for: the proximal
    step of JKO for `transport`, that of the divergence for `information`. `null` steps along the
    gradient at the start."""
    draws: Annotated[int, Field(ge=1, le=1000)] = 1
    """Antithetic pairs of networks per step, whose mean gradient it takes."""
    predictions: Annotated[int, Field(ge=1, le=1000)] = 2
    """Antithetic pairs whose mean probabilities are the prediction."""

    @model_validator(mode="after")
    def _implicit_has_a_metric(self) -> BeliefOptions:
        if self.implicit is not None and self.geometry == "information" and self.width_rate != 1:
            raise ValueError(
                f"belief.width_rate = {self.width_rate:g} does not go with belief.implicit = "
                f"{self.implicit} and geometry = 'information': a divergence has no rates; leave "
                "one of the two out"
            )
        return self


def _section(given: object) -> object:
    return {"geometry": given} if isinstance(given, str) else given


NamedBelief = Annotated[BeliefOptions | None, BeforeValidator(_section)]
"""A belief in a recipe: its geometry alone, or a section with its options; null for a point."""
