"""Learning without forgetting (Li & Hoiem 2016): keep the old outputs on the *new* inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capacity.recipe.strategy import PositiveFloat
from capacity.strategies.contribution import Contribution
from capacity.strategies.strategy import Price, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from capacity.networks.flat_model import FlatModel
    from capacity.recipe.config import Training
    from capacity.strategies.terms import Source
    from capacity.tasks.task import Task
    from capacity.training.steps import Observer


class LwF(Strategy):
    """Learning without forgetting.

    Attributes:
        strength: Weight of the distillation.
        temperature: Of the softmax whose divergence it is.
    """

    name = "lwf"
    title = "LwF"
    reads_old_outputs = True
    strength: PositiveFloat = 1.0
    temperature: PositiveFloat = 2.0

    def prepare(
        self,
        model: FlatModel,
        theta: Tensor,
        old: tuple[Task, ...],
        state: Any,
        source: Source,
        watched: Observer | None = None,
    ) -> Tensor:
        """Keep the weights."""
        del model, old, state, source, watched
        return theta

    def contribution(
        self,
        model: FlatModel,
        old: tuple[Task, ...],
        new: Task,
        training: Training,
        state: Tensor,
        source: Source,
    ) -> Contribution:
        """Add the distillation of every old head."""
        import torch

        from capacity.strategies.distillation import OldOutputs

        del new, source
        with torch.no_grad():
            width = model.outputs(state[0], old[0].train.x[:1]).shape[-1]
        seen: dict[tuple[int, ...], set[int]] = {}
        values: set[int] = set()
        for task in old:
            outputs = tuple(range(width)) if task.outputs is None else task.outputs
            if task.classifies:
                labels = task.train.y.unique().tolist()
                seen.setdefault(outputs, set()).update(outputs[label] for label in labels)
            else:
                values.update(outputs)
        made = OldOutputs(
            model=model.as_it_is(),
            teacher=state,
            heads=tuple(tuple(sorted(classes)) for classes in seen.values()),
            values=tuple(sorted(values)),
            strength=self.strength,
            temperature=self.temperature,
        )
        return Contribution(training=training, distillation=made)

    def steps_worth(self, batch: int, old: int) -> float:
        """Run the old network on the new samples: a third of a gradient each."""
        del batch, old
        return 4 / 3

    def price(self, gradient: float, old: int, outputs: int) -> Price:
        """Weights alone are remembered."""
        del gradient, old, outputs
        return Price()
