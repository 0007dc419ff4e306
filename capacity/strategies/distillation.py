"""Learning without forgetting (Li & Hoiem 2016): keep the old outputs on the *new* inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from capacity.strategies.contribution import Contribution
from capacity.strategies.terms import Private, Source
from capacity.tasks.task import Task
from capacity.training.steps import Observer, Watcher


@dataclass(frozen=True, kw_only=True)
class OldOutputs:
    """strength times the divergence of the outputs from those of the old weights, on one batch.

    Per old head KL(p_old || p) of the softmax at a temperature, over the classes seen so far; for
    regression half the squared distance. Both are least, and flat, at the old weights. Kept are
    R P numbers; a step costs one more forward pass.

    Attributes:
        model: The network.
        teacher: The old weights (R, P).
        heads: Outputs of each old classification head.
        values: Outputs of the old regressions.
        strength: Weight in the loss.
        temperature: Of the softmax.
    """

    model: FlatModel
    teacher: Tensor
    heads: tuple[tuple[int, ...], ...]
    values: tuple[int, ...]
    strength: float
    temperature: float

    @property
    def private(self) -> Private:
        """The old weights."""
        return {"teacher": self.teacher}

    def value(self, outputs: Tensor, x: Tensor, private: Private) -> Tensor:
        """Evaluate it for one replica.

        Args:
            outputs: The network's outputs now (b, n_outputs).
            x: The inputs that led to them (b, ...).
            private: The replica's old weights.

        Returns:
            A scalar.
        """
        before = self.model.outputs(private["teacher"], x)
        total = outputs.new_zeros(())
        for head in self.heads:
            now, then = (
                log_softmax(f[:, list(head)] / self.temperature, dim=1) for f in (outputs, before)
            )
            total = total + kl_div(now, then, reduction="batchmean", log_target=True)
        if self.values:
            moved = outputs[:, list(self.values)] - before[:, list(self.values)]
            total = total + 0.5 * moved.square().sum(-1).mean()
        return self.strength * total


@dataclass(frozen=True, kw_only=True)
class LwF:
    """Learning without forgetting.

    Attributes:
        strength: Weight of the distillation.
        temperature: Of the softmax whose divergence it is.
    """

    strength: float = 1.0
    temperature: float = 2.0
    name: str = "lwf"

    def watch(self, state: Any) -> Watcher | None:
        """Nothing needs to see the steps."""
        del state
        return None

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
            model=model,
            teacher=state,
            heads=tuple(tuple(sorted(classes)) for classes in seen.values()),
            values=tuple(sorted(values)),
            strength=self.strength,
            temperature=self.temperature,
        )
        return Contribution(training=training, distillation=made)
