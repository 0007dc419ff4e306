"""What every strategy states: its options, its name for people, what it adds and what it costs."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from capacity.recipe import strategy as recipe

if TYPE_CHECKING:  # a recipe with a strategy is checked without torch
    from torch import Tensor

    from capacity.networks.flat_model import FlatModel
    from capacity.recipe.config import Training
    from capacity.strategies.contribution import Contribution
    from capacity.strategies.terms import Source
    from capacity.tasks.task import Task
    from capacity.training.steps import Observer, Watcher


class Price(NamedTuple):
    """Operations that a strategy takes before the next task, to remember the old ones.

    Attributes:
        whole: In all, with the options as they are.
        sample: For one sample of every old task, where the strategy may do with fewer of them: its
            option `samples`. 0 where it may not.
    """

    whole: float = 0.0
    sample: float = 0.0


class Strategy(recipe.Strategy):
    """One way to act against forgetting: a frozen record of its options.

    A subclass has a `name`, and its options as annotated fields with their defaults, as pydantic
    has them: `strength: Annotated[float, Field(gt=0)] = 1.0`.
    """

    def check(self, model: FlatModel) -> None:
        """Refuse a network that it cannot work with, by a ValueError.

        Args:
            model: The network.
        """
        del model

    def check_task(self, task: Task) -> None:
        """Refuse a task that it cannot work with, by a ValueError.

        Args:
            task: A task, before it is learned.
        """
        del task

    def watch(self, state: Any) -> Watcher | None:
        """Say what must see the steps of the next task, the first included.

        Args:
            state: What the strategy remembers; None before the first task.

        Returns:
            An observer for `prepare`, or None where the end of training is enough.
        """
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
    ) -> Any:
        """Remember a task that was just learned; nothing, unless a subclass does.

        Args:
            model: The network.
            theta: Parameters (R, P) after it.
            old: The tasks so far; it is the last.
            state: What the strategy remembers of those before; None at the first.
            source: Names the strategy's random streams.
            watched: What `watch` returned before the task.

        Returns:
            What it remembers now.
        """
        del model, theta, old, state, source, watched
        return None

    @abstractmethod
    def contribution(
        self,
        model: FlatModel,
        old: tuple[Task, ...],
        new: Task,
        training: Training,
        state: Any,
        source: Source,
    ) -> Contribution:
        """Say what the strategy adds to learning the next task.

        Args:
            model: The network.
            old: The tasks so far, at least one.
            new: The next task.
            training: Its plan.
            state: What `prepare` returned last.
            source: Names the strategy's random streams.

        Returns:
            The contribution.
        """

    def price(self, gradient: float, old: int, outputs: int) -> Price:
        """State what remembering costs; a forecast within a budget pays it.

        Args:
            gradient: Operations of the gradient of one sample.
            old: Number of old tasks.
            outputs: Outputs of the network, each of which has a gradient of its own.

        Raises:
            ValueError: If the strategy does not state it.
        """
        del gradient, old, outputs
        raise ValueError(
            f"strategy {self.name!r} does not state what remembering the old tasks costs, which a "
            f"forecast within a budget pays; define {type(self).__name__}.price, or take no budget"
        )

    def steps_worth(self, batch: int, old: int) -> float:
        """Say what a training takes, counted in gradients of a sample, over plain training.

        Args:
            batch: Samples of the new task per step.
            old: Number of old tasks.

        Returns:
            The factor: 1 unless a subclass says otherwise. What it does to P numbers once per step
            is not counted.
        """
        del batch, old
        return 1.0

    def thinned(self, samples: int) -> Self:
        """Do with fewer samples.

        Args:
            samples: At most so many of each old task.

        Returns:
            The strategy with `samples` lowered.

        Raises:
            ValueError: If it states a price per sample, and has no option `samples`.
        """
        kept = getattr(self, "samples", None)
        if kept is None:
            raise ValueError(
                f"strategy {self.name!r} states a price per sample and has no option samples to do "
                f"with fewer; give {type(self).__name__} one, or state the price as a whole"
            )
        return self.model_copy(update={"samples": min(kept, samples)})
