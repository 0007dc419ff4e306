"""Which plans a corpus speaks of: of bare constant rates, or of schedules and weight decay, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from capacity.recipe.config import Training
from capacity.recipe.schedules import warm_units

_BEYOND = 2.0
"""How far outside those of the corpus, as a factor, warmup, weight decay and clipping may lie."""
_COEFFICIENTS = ("momentum", "nesterov", "betas", "eps")
"""Of optimisers; no corpus has others than the defaults."""


@dataclass(frozen=True, kw_only=True)
class KnownPlans:
    """What the plans of a corpus had beside a constant rate.

    Attributes:
        schedules: Names of their schedules.
        warmup: Largest warmup, as a share of the steps.
        weight_decay: Largest weight decay, by optimiser.
        clip_norm: Smallest norm that gradients were clipped to; infinite where none was.
    """

    schedules: Sequence[str] = ("constant",)
    warmup: float = 0.0
    weight_decay: Mapping[str, float] | None = None
    clip_norm: float = float("inf")

    def why_not(self, plan: Training, samples: int) -> str | None:
        """Say why they do not speak of a plan.

        Args:
            plan: The plan, with an optimiser of the corpus.
            samples: Samples of the new task.

        Returns:
            The reason, for people; None where they do.
        """
        for name in _COEFFICIENTS:
            given, known = getattr(plan, name), Training.model_fields[name].default
            if given != known:
                return f"the corpus holds {name} = {known} only, and the plan has {given}"
        if self == BARE:
            bare = plan.schedule == "constant" and not (plan.warmup or plan.decays or plan.groups)
            if bare and plan.clip_norm is None:
                return None
            return "the corpus holds constant rates, without weight decay, groups or clipping"
        if plan.schedule not in self.schedules:
            return f"the corpus has no schedule {plan.schedule!r} ({', '.join(self.schedules)})"
        units = plan.steps(samples) if plan.schedule_per == "step" else plan.passes(samples)
        if warm_units(plan.warmup, units) > _BEYOND * self.warmup * units:
            return (
                f"a warmup of {plan.warmup} is far from the corpus's {self.warmup:g} of the steps"
            )
        if any(group.lr_factor != 1 for group in plan.groups):
            return "the corpus has no parameters with a learning rate of their own"
        decays = [plan.weight_decay, *(group.weight_decay or 0.0 for group in plan.groups)]
        most = (self.weight_decay or {}).get(plan.optimizer, 0.0)
        if max(decays) > _BEYOND * most:
            return (
                f"a weight decay of {max(decays):g} is far from the corpus's {most:g} "
                f"with {plan.optimizer}"
            )
        if plan.clip_norm is not None and plan.clip_norm < self.clip_norm / _BEYOND:
            return (
                f"gradients clipped to {plan.clip_norm:g} are far from the corpus's "
                f"{self.clip_norm:g}"
            )
        return None


BARE = KnownPlans()
"""Constant rates, without weight decay, groups or clipping."""
