"""Generative replay: the network draws the old samples that it is taught again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capacity.recipe.strategy import PositiveFloat, PositiveInt
from capacity.strategies.contribution import Contribution
from capacity.strategies.strategy import Price, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from capacity.networks.flat_model import FlatModel
    from capacity.recipe.config import Training
    from capacity.strategies.terms import Source
    from capacity.tasks.task import Split, Task
    from capacity.training.steps import Observer


class GenerativeReplay(Strategy):
    """Generative replay (Shin et al. 2017): samples drawn from the old network, beside new ones.

    After every task the network as it is draws samples of all it has learned, in place of those
    drawn before; they are training samples of the next task, and no old sample is kept. For tasks
    that say how samples are drawn from a network, as those of `diffusion-digits`.

    Attributes:
        strength: Weight of a drawn sample against a new one.
        generated: Samples drawn after every task.
        memory_batch: Drawn samples per step.
    """

    name = "generative_replay"
    title = "generative replay"
    of_generators = True
    strength: PositiveFloat = 1.0
    generated: PositiveInt = 256
    memory_batch: PositiveInt = 64

    def check_task(self, task: Task) -> None:
        """Refuse a task that says of no samples how they are drawn."""
        if not callable(getattr(task.generator, "training_samples", None)):
            raise ValueError(
                f"strategy {self.name!r} replays what the network itself draws, and task "
                f"{task.name!r} does not say how samples are drawn from a network; it goes with "
                "generative tasks, as tasks.dataset: diffusion-digits; take 'replay' or 'ewc'"
            )

    def prepare(
        self,
        model: FlatModel,
        theta: Tensor,
        old: tuple[Task, ...],
        state: Any,
        source: Source,
        watched: Observer | None = None,
    ) -> tuple[Split, ...]:
        """Draw samples from every replica's network."""
        from capacity.base.random_streams import stream_seed

        del state, watched
        still, generator = model.as_it_is(), old[-1].generator
        assert generator is not None

        def drawn(replica: int, point: Tensor) -> Split:
            seed = stream_seed(source.seed, *source.path, "generated", len(old), replica)
            return generator.training_samples(
                lambda x: still.outputs(point, x), point, self.generated, seed=seed
            )

        return tuple(drawn(replica, point) for replica, point in enumerate(theta))

    def contribution(
        self,
        model: FlatModel,
        old: tuple[Task, ...],
        new: Task,
        training: Training,
        state: tuple[Split, ...],
        source: Source,
    ) -> Contribution:
        """Put the drawn samples beside the new ones."""
        import torch

        from capacity.strategies.replay import Replay

        del model
        x, y = (torch.stack(part) for part in zip(*((s.x, s.y) for s in state), strict=True))
        replicas, size = x.shape[:2]
        batch = min(self.memory_batch, size)
        weighted = self.strength * batch
        fresh = min(training.samples_per_step, len(new.train))
        drawn = Replay(
            inputs=x.flatten(0, 1),
            readers=(old[-1],),
            private={
                "row": torch.arange(replicas * size, device=x.device).reshape(replicas, size),
                "target": y,
            },
            size=size,
            batch=batch,
            share=weighted / (weighted + fresh),
            source=source._replace(path=(*source.path, len(old))),
        )
        return Contribution(training=training, replay=drawn)

    def price(self, gradient: float, old: int, outputs: int) -> Price:
        """Run the network at every step of every drawn sample: a third of a gradient each."""
        from capacity.tasks.generation import STEPS

        del old, outputs
        return Price(self.generated * STEPS * gradient / 3)

    def steps_worth(self, batch: int, old: int) -> float:
        """Learn the drawn batch beside the new one."""
        del old
        return 1 + self.memory_batch / batch
