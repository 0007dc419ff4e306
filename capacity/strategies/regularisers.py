"""Strategies that hold the weights: L2, EWC, SI and MAS.

All add strength/2 sum_i importance_i (theta_i - theta_old,i)^2 and differ in the importance. (Some
write the penalty without the 1/2: their coefficient is half of this strength.)
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from capacity.recipe.strategy import PositiveFloat, PositiveInt
from capacity.strategies.contribution import Contribution
from capacity.strategies.strategy import Price, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from capacity.networks.flat_model import FlatModel
    from capacity.recipe.config import Training
    from capacity.strategies.penalties import GaussNewton, Quadratic
    from capacity.strategies.terms import Source
    from capacity.tasks.task import Task
    from capacity.training.steps import Observer, Step


class _Regulariser(Strategy):
    """The penalty is what is remembered."""

    def contribution(
        self,
        model: FlatModel,
        old: tuple[Task, ...],
        new: Task,
        training: Training,
        state: Any,
        source: Source,
    ) -> Contribution:
        """Add the penalty, which is the state."""
        del model, old, new, source
        return Contribution(training=training, penalty=state)


class L2(_Regulariser):
    """Importance 1: strength/2 |theta - theta_old|^2, theta_old the weights after the last task.

    Attributes:
        strength: Weight in the loss.
    """

    name = "l2"
    title = "L2"
    strength: PositiveFloat = 0.1

    def prepare(
        self,
        model: FlatModel,
        theta: Tensor,
        old: tuple[Task, ...],
        state: Quadratic | None,
        source: Source,
        watched: Observer | None = None,
    ) -> Quadratic:
        """Hold the weights as they are now."""
        import torch

        from capacity.strategies.penalties import Quadratic

        del model, old, state, source, watched
        return Quadratic.around(theta, torch.full_like(theta, self.strength))

    def price(self, gradient: float, old: int, outputs: int) -> Price:
        """Weights alone are remembered."""
        del gradient, old, outputs
        return Price()


class EWC(_Regulariser):
    """Elastic weight consolidation (Kirkpatrick et al. 2017): the Fisher information per old task.

    Every old task has its own minimum ("separate"). The diagonals take 3 R P numbers in all; with
    `ggn` the whole Gauss-Newton matrix acts, without being formed (`penalties.GaussNewton`).

    Attributes:
        strength: Weight in the loss.
        fisher: true, empirical or ggn.
        samples: Most samples per task behind it.
    """

    name = "ewc"
    title = "EWC"
    strength: PositiveFloat = 10.0
    fisher: Literal["true", "empirical", "ggn"] = "true"
    samples: PositiveInt = 512

    def prepare(
        self,
        model: FlatModel,
        theta: Tensor,
        old: tuple[Task, ...],
        state: Any,
        source: Source,
        watched: Observer | None = None,
    ) -> Quadratic | GaussNewton:
        """Measure what matters to the task just learned."""
        import torch

        from capacity.strategies.importance import IMPORTANCES
        from capacity.strategies.penalties import GaussNewton, Quadratic

        del source, watched
        task = old[-1]
        split = task.train.first(self.samples)
        if self.fisher == "ggn":
            if state is None:
                return GaussNewton(
                    model=model.as_it_is(),
                    tasks=(task,),
                    samples=(split,),
                    anchors=theta[:, None],
                    strength=self.strength,
                )
            return replace(
                state,
                tasks=(*state.tasks, task),
                samples=(*state.samples, split),
                anchors=torch.cat([state.anchors, theta[:, None]], dim=1),
            )
        importance = IMPORTANCES[self.fisher](model, theta, task, split)
        made = Quadratic.around(theta, self.strength * importance)
        return made if state is None else state.plus(made)

    def price(self, gradient: float, old: int, outputs: int) -> Price:
        """A gradient per sample, and of every output for the true Fisher."""
        each = gradient * old * (outputs if self.fisher == "true" else 1)
        # With the whole matrix nothing is prepared: every step of the training pays for it.
        return Price(0.0 if self.fisher == "ggn" else self.samples * each, each)


class MAS(_Regulariser):
    """Memory-aware synapses (Aljundi et al. 2018): how much the outputs' energy hangs on a weight.

    Importances of the old tasks add up, around the weights after the last.

    Attributes:
        strength: Weight in the loss.
        samples: Most samples per task behind the importance.
    """

    name = "mas"
    title = "MAS"
    strength: PositiveFloat = 0.1
    samples: PositiveInt = 512

    def prepare(
        self,
        model: FlatModel,
        theta: Tensor,
        old: tuple[Task, ...],
        state: Quadratic | None,
        source: Source,
        watched: Observer | None = None,
    ) -> Quadratic:
        """Measure what matters to the task just learned."""
        from capacity.strategies.importance import output_sensitivity
        from capacity.strategies.penalties import Quadratic

        del source, watched
        task = old[-1]
        split = task.train.first(self.samples)
        curvature = self.strength * output_sensitivity(model, theta, task, split)
        return Quadratic.around(theta, curvature if state is None else state.curvature + curvature)

    def price(self, gradient: float, old: int, outputs: int) -> Price:
        """A gradient per sample."""
        del outputs
        each = gradient * old
        return Price(self.samples * each, each)


class PathIntegral:
    """Sums -g_i d theta_i over the steps of one task: how much of the loss's drop each weight made.

    g is the gradient of the task's own loss; what the penalty adds to it is taken off. Holds two
    (R, P) tensors in float64.

    Attributes:
        drop: The sums (R, P), after the first step.
        start: Weights at the start of the task (R, P).
    """

    def __init__(self, penalty: Quadratic | None) -> None:
        self._penalty = penalty
        self.drop: Tensor | None = None
        self.start: Tensor | None = None

    def observe(self, step: Step) -> None:
        """Add one step.

        Args:
            step: The step.
        """
        before, gradient = step.before[0], step.gradient
        if self._penalty is not None:
            gradient = gradient - self._penalty.gradient(before)
        part = -(gradient * (step.after[0] - before)).double()
        if self.drop is None or self.start is None:
            self.drop, self.start = part, before
        else:
            self.drop += part

    def state(self) -> dict[str, Tensor]:
        """Give what `restore` needs to go on from here.

        Returns:
            The sums and the start; nothing before the first step.
        """
        if self.drop is None or self.start is None:
            return {}
        return {"drop": self.drop, "start": self.start}

    def restore(self, kept: dict[str, Tensor]) -> None:
        """Go on where `state` was taken.

        Args:
            kept: What `state` gave.
        """
        if kept:
            self.drop, self.start = kept["drop"], kept["start"]


class SI(_Regulariser):
    """Synaptic intelligence (Zenke et al. 2017): each weight's part in the drop of the loss.

    Importance_i = sum over old tasks of max(0, drop_i) / (moved_i^2 + damping), around the weights
    after the last. Needs the steps of every task, the first included.

    Attributes:
        strength: Weight in the loss.
        damping: Added to the squared displacement.
    """

    name = "si"
    title = "SI"
    needs_path = True
    strength: PositiveFloat = 0.1
    damping: PositiveFloat = 0.1

    def watch(self, state: Quadratic | None) -> PathIntegral:
        """Sum up the path of the next task."""
        return PathIntegral(state)

    def prepare(
        self,
        model: FlatModel,
        theta: Tensor,
        old: tuple[Task, ...],
        state: Quadratic | None,
        source: Source,
        watched: Observer | None = None,
    ) -> Quadratic:
        """Turn the path of the task just learned into importances."""
        from capacity.strategies.penalties import Quadratic

        del model, old, source
        assert isinstance(watched, PathIntegral)
        assert watched.drop is not None
        assert watched.start is not None
        moved = (theta - watched.start).double()
        importance = watched.drop.clamp(min=0) / (moved.square() + self.damping)
        curvature = (self.strength * importance).to(theta.dtype)
        return Quadratic.around(theta, curvature if state is None else state.curvature + curvature)

    def price(self, gradient: float, old: int, outputs: int) -> Price:
        """The path was watched on the way."""
        del gradient, old, outputs
        return Price()
