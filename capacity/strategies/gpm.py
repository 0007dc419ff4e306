"""Gradient projection memory (Saha et al. 2021): steps orthogonal to the old inputs of each layer.

A linear layer computes W x + b: its weights' gradient is a sum of outer products with its inputs
(x, 1), so a step that is orthogonal to the old (x, 1) leaves the layer's old outputs as they are.
The bias is an input that is always 1 (the published method has none). A convolution is a linear
layer on patches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

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


class GPM(Strategy):
    """Gradient projection memory.

    Exact for SGD and momentum; adaptive optimisers rescale the projected gradient and leave the
    space. Kept are R sum_layers d k numbers.

    Attributes:
        samples: Most samples per old task behind the spaces.
        threshold: Share of the inputs' energy, per layer, that the space must hold.
    """

    name = "gpm"
    turns_steps = True
    title = "GPM"
    samples: PositiveInt = 128
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.97

    def check(self, model: FlatModel) -> None:
        """Refuse layers of other kinds."""
        from capacity.strategies.input_spaces import layers_of

        layers_of(model)

    def prepare(
        self,
        model: FlatModel,
        theta: Tensor,
        old: tuple[Task, ...],
        state: list[list[Tensor]] | None,
        source: Source,
        watched: Observer | None = None,
    ) -> list[list[Tensor]]:
        """Add the inputs of the task just learned to every layer's space, per replica."""
        from capacity.strategies.input_spaces import grown, layer_inputs, layers_of

        del source, watched
        layers = layers_of(model)
        x = old[-1].train.first(self.samples).x
        made = []
        for r, t in enumerate(theta):
            check()
            inputs = layer_inputs(model, t, layers, x)
            before = [c.new_zeros(len(c), 0) for c in inputs] if state is None else state[r]
            made.append([
                grown(basis, columns, self.threshold)
                for basis, columns in zip(before, inputs, strict=True)
            ])
        return made

    def contribution(
        self,
        model: FlatModel,
        old: tuple[Task, ...],
        new: Task,
        training: Training,
        state: list[list[Tensor]],
        source: Source,
    ) -> Contribution:
        """Project on what leaves the old inputs' images alone."""
        from torch.nn.utils.rnn import pad_sequence

        from capacity.strategies.input_spaces import OffInputs, layers_of

        del old, new, source
        bases = tuple(
            pad_sequence([b.T for b in layer], batch_first=True).mT.contiguous()
            for layer in zip(*state, strict=True)
        )
        projector = OffInputs(layers=layers_of(model), bases=bases)
        return Contribution(training=training, projector=projector)

    def price(self, gradient: float, old: int, outputs: int) -> Price:
        """Run the network on the samples: a third of a gradient each."""
        del outputs
        each = gradient * old * (1 / 3)
        return Price(self.samples * each, each)
