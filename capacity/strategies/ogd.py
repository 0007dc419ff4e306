"""Orthogonal gradient descent (Farajtabar et al. 2020): steps off the old outputs' gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capacity.base.interruption import check
from capacity.recipe.strategy import PositiveInt
from capacity.strategies.contribution import Contribution
from capacity.strategies.strategy import Price, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from capacity.networks.flat_model import FlatModel
    from capacity.recipe.config import Training
    from capacity.strategies.terms import Source
    from capacity.tasks.task import Task
    from capacity.training.steps import Observer


class OGD(Strategy):
    """Orthogonal gradient descent (Farajtabar et al. 2020), with all outputs of each sample.

    Every step is orthogonal to the gradients of the old outputs on stored samples, which therefore
    stay as they are to first order - for SGD and momentum; adaptive optimisers rescale the
    projected gradient and leave the space. Kept are R k P numbers, k = samples x outputs per task.

    Attributes:
        samples: Most samples per old task whose gradients are kept.
    """

    name = "ogd"
    turns_steps = True
    title = "OGD"
    samples: PositiveInt = 20

    def prepare(
        self,
        model: FlatModel,
        theta: Tensor,
        old: tuple[Task, ...],
        state: Tensor | None,
        source: Source,
        watched: Observer | None = None,
    ) -> Tensor:
        """Add the gradients of the task just learned to the basis."""
        import torch
        from torch.func import jacrev

        from capacity.base.differential import vmap
        from capacity.strategies.projectors import extended

        del source, watched
        task = old[-1]
        x = task.train.first(self.samples).x
        check()

        def gradients(t: Tensor) -> Tensor:
            return jacrev(lambda p: task.select(model.outputs(p, x)).flatten())(t)

        with torch.no_grad():
            return extended(state, vmap(gradients)(theta))

    def contribution(
        self,
        model: FlatModel,
        old: tuple[Task, ...],
        new: Task,
        training: Training,
        state: Tensor,
        source: Source,
    ) -> Contribution:
        """Project on what is orthogonal to the basis."""
        from capacity.strategies.projectors import OffRows

        del model, old, new, source
        return Contribution(training=training, projector=OffRows(rows=state))

    def price(self, gradient: float, old: int, outputs: int) -> Price:
        """A gradient of every output of the samples."""
        each = gradient * old * outputs
        return Price(self.samples * each, each)
