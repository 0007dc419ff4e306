"""Strategies with a memory of old samples: replay, DER, DER++, A-GEM; and all old data, jointly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from capacity.recipe.strategy import PositiveFloat, PositiveInt
from capacity.strategies.contribution import Contribution
from capacity.strategies.strategy import Price, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from capacity.networks.flat_model import FlatModel
    from capacity.recipe.config import Training
    from capacity.strategies.sample_memory import Memory
    from capacity.strategies.terms import Source
    from capacity.tasks.task import Task
    from capacity.training.steps import Observer

Selection = Literal["balanced", "reservoir"]


class _Rehearsal(Strategy):
    """A memory of old samples."""

    reads_old_outputs = True

    def prepare(
        self,
        model: FlatModel,
        theta: Tensor,
        old: tuple[Task, ...],
        state: Any,
        source: Source,
        watched: Observer | None = None,
    ) -> Any:
        """Remember R alone: what is kept follows from the streams and the tasks so far."""
        del model, old, state, source, watched
        return len(theta)

    def price(self, gradient: float, old: int, outputs: int) -> Price:
        """The samples are at hand."""
        del gradient, old, outputs
        return Price()

    def steps_worth(self, batch: int, old: int) -> float:
        """Learn the memory batch beside the new one."""
        del old
        return 1 + min(getattr(self, "memory_batch", 0), getattr(self, "memory", 0)) / batch


class ExperienceReplay(_Rehearsal):
    """Replay: the loss is the mean over the new batch and a memory batch, put together.

    Attributes:
        strength: Weight of a memory sample against a new one.
        memory: Most samples kept.
        memory_batch: Memory samples per step.
        selection: balanced or reservoir.
    """

    name = "replay"
    strength: PositiveFloat = 1.0
    memory: PositiveInt = 200
    memory_batch: PositiveInt = 64
    selection: Selection = "balanced"

    def contribution(
        self,
        model: FlatModel,
        old: tuple[Task, ...],
        new: Task,
        training: Training,
        state: int,
        source: Source,
    ) -> Contribution:
        """Put the memory's labels beside the new ones."""
        from capacity.strategies import replay

        del model
        kept = _kept(self, old, state, source)
        weighted = self.strength * min(self.memory_batch, kept.row.shape[1])
        fresh = min(training.samples_per_step, len(new.train))
        made = replay.build(
            old,
            kept,
            batch=self.memory_batch,
            source=_per_task(source, old),
            share=weighted / (weighted + fresh),
        )
        return Contribution(training=training, replay=made)


class _DarkReplay(_Rehearsal):
    """The old outputs of a memory, right after its samples' tasks were learned."""

    if TYPE_CHECKING:
        strength: float
        memory: int
        memory_batch: int
        selection: Selection

    def _labels(self) -> float:
        return 0.0

    def prepare(
        self,
        model: FlatModel,
        theta: Tensor,
        old: tuple[Task, ...],
        state: tuple[Tensor, ...] | None,
        source: Source,
        watched: Observer | None = None,
    ) -> tuple[Tensor, ...]:
        """Keep the outputs of the samples that the memory may ever hold of the new old task."""
        import torch

        from capacity.networks.evaluate import outputs as outputs_of
        from capacity.strategies.sample_memory import key_order

        del watched
        task, number = old[-1], len(old) - 1
        _, rows = key_order(len(task.train), number, len(theta), source)
        first = rows[:, : self.memory].to(theta.device)
        made = torch.stack([
            outputs_of(model, t[None], task.train.x[row])[0]
            for t, row in zip(theta, first, strict=True)
        ])
        return (*(state or ()), made)

    def contribution(
        self,
        model: FlatModel,
        old: tuple[Task, ...],
        new: Task,
        training: Training,
        state: tuple[Tensor, ...],
        source: Source,
    ) -> Contribution:
        """Add the memory's outputs, and its labels for DER++."""
        from capacity.strategies import replay

        del model, new
        kept = _kept(self, old, len(state[0]), source)
        batch = min(self.memory_batch, kept.row.shape[1])
        if self._labels():
            batch = 2 * min(batch, kept.row.shape[1] // 2)
        if not batch:
            raise ValueError(
                f"memory = {self.memory} is too small for strategy {self.name!r}, whose outputs "
                "and labels take a sample each; keep at least 2"
            )
        made = replay.build(
            old,
            kept,
            batch=batch,
            source=_per_task(source, old),
            outputs=state,
            label_strength=self._labels(),
            output_strength=self.strength,
        )
        return Contribution(training=training, replay=made)

    def price(self, gradient: float, old: int, outputs: int) -> Price:
        """Run the network on the memory: a third of a gradient each."""
        del old, outputs
        return Price(self.memory * gradient / 3)


class DarkReplay(_DarkReplay):
    """DER (Buzzega et al. 2020): keep the old outputs of a memory, by their mean square.

    The outputs are those right after a sample's task was learned, so R K M C numbers are kept for
    K old tasks.

    Attributes:
        strength: Weight of the mean squared change of the outputs.
        memory: Most samples kept.
        memory_batch: Memory samples per step.
        selection: balanced or reservoir.
    """

    name = "der"
    title = "DER"
    strength: PositiveFloat = 0.5
    memory: PositiveInt = 200
    memory_batch: PositiveInt = 64
    selection: Selection = "reservoir"


class DarkReplayLabels(_DarkReplay):
    """DER++ (Buzzega et al. 2020): DER, and the labels of a second memory batch beside.

    Attributes:
        strength: Weight of the mean squared change of the outputs.
        label_strength: Weight of the labels' mean loss.
        memory: Most samples kept.
        memory_batch: Memory samples per step, for the outputs and for the labels each.
        selection: balanced or reservoir.
    """

    name = "derpp"
    title = "DER++"
    strength: PositiveFloat = 0.5
    label_strength: PositiveFloat = 0.5
    memory: PositiveInt = 200
    memory_batch: PositiveInt = 64
    selection: Selection = "reservoir"

    def _labels(self) -> float:
        return self.label_strength

    def steps_worth(self, batch: int, old: int) -> float:
        """Learn two memory batches beside the new one."""
        return 2 * super().steps_worth(batch, old) - 1


class AGEM(_Rehearsal):
    """A-GEM (Chaudhry et al. 2019): never oppose the gradient of a memory batch.

    Where g . g_ref < 0 the step takes g - (g . g_ref / g_ref . g_ref) g_ref. Which side of that
    a step is on depends on theta, so it is no fixed projector; a step costs two gradients.

    Attributes:
        memory: Most samples kept.
        memory_batch: Memory samples per step.
        selection: balanced or reservoir.
    """

    name = "agem"
    turns_steps = True
    title = "A-GEM"
    memory: PositiveInt = 200
    memory_batch: PositiveInt = 64
    selection: Selection = "balanced"

    def contribution(
        self,
        model: FlatModel,
        old: tuple[Task, ...],
        new: Task,
        training: Training,
        state: int,
        source: Source,
    ) -> Contribution:
        """Give the memory whose gradient is the reference."""
        from capacity.strategies import replay

        del model, new
        kept = _kept(self, old, state, source)
        made = replay.build(old, kept, batch=self.memory_batch, source=_per_task(source, old))
        return Contribution(training=training, reference=made)


class Joint(_Rehearsal):
    """All old data beside the new, in proportion: the upper reference.

    A step has a batch of b new samples and b n_old / n_new old ones, so an epoch passes over all
    data once; its cost grows with the number of old tasks.
    """

    name = "joint"
    title = "joint (upper reference)"
    mitigates = False

    def steps_worth(self, batch: int, old: int) -> float:
        """Learn all old data beside the new, for tasks of one size."""
        del batch
        return 1.0 + old

    def contribution(
        self,
        model: FlatModel,
        old: tuple[Task, ...],
        new: Task,
        training: Training,
        state: int,
        source: Source,
    ) -> Contribution:
        """Put all old data beside the new."""
        from capacity.strategies import replay
        from capacity.strategies.sample_memory import select

        del model
        sizes = [len(task.train) for task in old]
        kept = select(sizes, sum(sizes), "balanced", state, source)
        fresh = min(training.samples_per_step, len(new.train))
        made = replay.build(
            old,
            kept,
            batch=max(1, round(fresh * sum(sizes) / len(new.train))),
            source=_per_task(source, old),
            share=sum(sizes) / (sum(sizes) + len(new.train)),
        )
        return Contribution(training=training, replay=made)


def _per_task(source: Source, old: tuple[Task, ...]) -> Source:
    """Name the draws of one task's training; the memory's keys are named for all together."""
    return source._replace(path=(*source.path, len(old)))


def _kept(
    options: ExperienceReplay | _DarkReplay | AGEM,
    old: tuple[Task, ...],
    replicas: int,
    source: Source,
) -> Memory:
    from capacity.strategies.sample_memory import select

    sizes = [len(task.train) for task in old]
    return select(sizes, options.memory, options.selection, replicas, source)
