"""What an optimiser states of itself, beside its step; what it does not state is refused by name.

Only what is true of every pure step has an answer here: that its Jacobian is that of its algebra.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Never, get_type_hints

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor
from torch.func import grad

from capacity.base.checks import one_of
from capacity.optimizers.conditioner import Conditioner, Curvature, Outputs, conditioned
from capacity.optimizers.dynamics import Dynamics
from capacity.optimizers.update_map import Loss, Reading, State, UpdateMap
from capacity.recipe.config import Training

if TYPE_CHECKING:
    from capacity.tasks.task import Task

AddHessian = Callable[[Tensor, Tensor], object]
"""(v, into): adds H v (K, P) to `into`."""


@dataclass(frozen=True)
class FollowsGradient:
    """Steps as long as the gradient says: heavy ball, or plain steps where the momentum is 0.

    Attributes:
        heavy: From another mu, and whether it is Nesterov's, the heavy ball with the same weight
            decay.
        momentum: mu.
        nesterov: Step along g + mu m instead of m.
        decay: Coefficient of theta that is added to the gradient.
        euclidean: Whether theta itself follows the gradient, so that the flow in a kernel stands
            for the steps.
    """

    heavy: Callable[[float, bool], UpdateMap]
    momentum: float = 0.0
    nesterov: bool = False
    decay: float = 0.0
    euclidean: bool = True


@dataclass(frozen=True)
class NormalisedSteps:
    """Steps that have the size of the rate whatever the gradient.

    Attributes:
        stretched: From how many steps one stands for, the method that forgets as much in it.
        squares: Decay of the running mean of squared gradients whose root a step is divided by;
            None where steps are normalised otherwise, and no flow is known to stand for them.
        debiased: Whether that mean is corrected for its start at 0.
        eps: Added to the root.
        decay: Weight decay.
        decoupled: Whether it shrinks theta by lr * decay, beside the divided gradient.
    """

    stretched: Callable[[float], UpdateMap]
    squares: float | None = None
    debiased: bool = False
    eps: float = 0.0
    decay: float = 0.0
    decoupled: bool = False


class Optimizer:
    """An optimiser: a frozen dataclass of its options with `init`, `step` and its facts.

    Attributes:
        name: For people.
        elementwise: Whether the step treats every parameter on its own, so that its derivative is a
            few diagonals, several times cheaper than a vmapped JVP.
        linear: Whether `push` and `pull` carry tangents without a derivative.
        from_gradient: Whether the step needs nothing of the batch but its gradient.
        conditions: Whether it is fed with a gradient that its `conditioner` was applied to.
        anchored: Whether the step is another one elsewhere for the same gradient, weight decay
            aside, so that it cannot be taken on a displacement.
        torch_twins: Optimisers of `torch.optim` that it can be read from, with the options that are
            refused there.
        torch_moments: Names of its moments in their state.
    """

    name: str
    elementwise: ClassVar[bool] = False
    linear: ClassVar[bool] = False
    from_gradient: ClassVar[bool] = True
    conditions: ClassVar[bool] = False
    anchored: ClassVar[bool] = False
    torch_twins: ClassVar[dict[type[torch.optim.Optimizer], tuple[str, ...]]] = {}
    torch_moments: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_training(
        cls, training: Training, *, seed: int = 0, path: tuple[str | int, ...] = ()
    ) -> Optimizer:
        """Build what a recipe asks for: its `options`, and `weight_decay`.

        Args:
            training: The recipe's training section.
            seed: Root seed of the noise, for a class with a field of this name.
            path: Name of the noise's stream below the seed, likewise.

        Returns:
            The optimiser.

        Raises:
            ValueError: If there is a weight decay, and the class has none.
        """
        shared = {"weight_decay": training.weight_decay, "seed": seed, "path": path}
        fields = _fields(cls)
        if training.weight_decay and "weight_decay" not in fields:
            raise ValueError(
                f"weight_decay = {training.weight_decay:g} goes with optimisers that have one; "
                f"{training.optimizer!r} has none"
            )
        given = {name: value for name, value in shared.items() if name in fields}
        return cls(**given, **cls.options_of(training))

    @classmethod
    def options_of(cls, training: Training) -> dict[str, Any]:
        """Give what a recipe says of the fields beside `weight_decay`: its `options`.

        Args:
            training: The recipe's training section.

        Returns:
            Values by field, of the fields' types.

        Raises:
            ValueError: If an option is not a field of the class, or not of its type.
        """
        own = [f for f in _fields(cls) if f not in {"weight_decay", "seed", "path"}]
        hints = get_type_hints(cls)
        for name, value in training.options.items():
            one_of("options", name, own)
            kind = TypeAdapter(hints[name], config=ConfigDict(strict=True))
            try:
                kind.validate_python(value)
            except ValidationError as error:
                said = error.errors()[0]["msg"]
                raise ValueError(f"options.{name} = {value!r}: {said}") from None
        return training.options

    @classmethod
    def from_torch(
        cls, kind: type[torch.optim.Optimizer], group: dict[str, Any], *, heavy: bool
    ) -> Optimizer:
        """Read one parameter group of a `torch_twins` optimiser.

        Args:
            kind: Which of them.
            group: Its options.
            heavy: Whether some group has momentum; this one may have one of 0.

        Returns:
            The optimiser.
        """
        del kind, group, heavy
        return _refused(cls.name, "reading of a torch optimiser", "from_torch")

    def as_training(self) -> dict[str, Any]:
        """Say its options as a recipe has them, beside `weight_decay`: what `options_of` reads.

        Returns:
            Fields of the training section.
        """
        own = [f for f in _fields(type(self)) if f not in {"weight_decay", "seed", "path"}]
        return {"options": {name: getattr(self, name) for name in own}}

    def init(self, theta: Tensor) -> State:
        """Start a phase; see `UpdateMap`.

        Args:
            theta: Parameters (..., P).

        Returns:
            The state.
        """
        raise NotImplementedError

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step; see `UpdateMap`.

        Args:
            state: theta and moments (..., P).
            gradient: g of the batch loss at theta (..., P).
            lr: Learning rate.
            count: Steps taken in this phase, this one included.

        Returns:
            The next state.
        """
        raise NotImplementedError

    def advance(
        self, loss: Loss, state: State, x: Tensor, y: Tensor, lr: float, count: int
    ) -> State:
        """Take one step on a batch.

        Args:
            loss: Loss as a function of (theta, x, y).
            state: Optimiser state before the step; tensors (P,), theta first.
            x: Inputs of the batch.
            y: Targets of the batch.
            lr: Learning rate.
            count: Steps taken in this phase, this one included.

        Returns:
            The next state.
        """
        gradient = conditioned(self.conditioner, state[0], x, grad(loss)(state[0], x, y))
        return self.step(state, gradient, lr, count)

    def bound(self, outputs: Outputs, task: Task, *, modes: bool = False) -> Optimizer:
        """Take what the conditioner reads of a network and a task, where there is one.

        Args:
            outputs: The network.
            task: The task that is learned.
            modes: Whether the network trains otherwise than it is evaluated.

        Returns:
            The update map on this task.
        """
        del outputs, task, modes
        return self

    def held(self, curvatures: Sequence[Curvature]) -> Optimizer:
        """Take the curvature of a penalty into the metric, where there is one.

        Args:
            curvatures: Of each replica.

        Returns:
            The update map under the penalty.
        """
        del curvatures
        return self

    @property
    def conditioner(self) -> Conditioner | None:
        """What gradients go through before the map is fed with them; None where nothing."""
        return None

    @property
    def plain(self) -> bool:
        """Whether the step is theta - lr * gradient and nothing else."""
        return False

    @property
    def unclipped(self) -> Optimizer:
        """The map that a clipped gradient is fed to, or the map itself."""
        return self

    def fed(self, gradient: Tensor) -> Tensor:
        """Give what the map makes of a gradient before anything else: clipping shortens it.

        Args:
            gradient: g (..., P).

        Returns:
            What `unclipped` steps along.
        """
        return gradient

    @property
    def symmetric_decay(self) -> float | None:
        """The decay where theta moves by -lr (g + decay theta), noise aside; else None.

        The Jacobian of such a step is the symmetric 1 - lr (H + decay).
        """
        return None

    def push(self, tangents: State, lr: float, add_hessian: AddHessian) -> State:
        """Push tangents through one step, where `linear`.

        Args:
            tangents: One tensor (K, P) per part of the state; overwritten.
            lr: Learning rate.
            add_hessian: Adds Hessian products.

        Returns:
            Their images.
        """
        del tangents, lr, add_hessian
        return _refused(self.name, "linear push", "push")

    def pull(self, cotangents: State, lr: float, add_hessian: AddHessian) -> State:
        """Pull cotangents back: the adjoint of `push`.

        Args:
            cotangents: One tensor (K, P) per part of the state; overwritten.
            lr: Learning rate.
            add_hessian: Adds Hessian products.

        Returns:
            Their images.
        """
        del cotangents, lr, add_hessian
        return _refused(self.name, "linear pull", "pull")

    def blocks(self, lr: float, size: int, most: int) -> Sequence[Block]:
        """Cut theta into parts that an elementwise step is differentiated in.

        Args:
            lr: Learning rate of the step.
            size: P.
            most: Components of a part at most.

        Returns:
            Update map, learning rate and components of each part.
        """
        return [(self, lr, slice(start, start + most)) for start in range(0, size, most)]

    def implied_gradient(self, before: State, after: State, lr: float) -> Reading | None:
        """Read back the gradient behind a step, whatever loss it came from.

        Args:
            before: State before the step; tensors (P,).
            after: State after it, as the optimiser has it.
            lr: Learning rate.

        Returns:
            The gradient and its rounding; None where the step keeps no trace of it, and only
            states can be compared.
        """
        del before, after, lr
        return None

    def learning_time(self, rates: float) -> float | None:
        """Tell the time of gradient flow that steps take.

        Args:
            rates: Sum of their learning rates.

        Returns:
            The time; None where gradient flow is no model of the steps.
        """
        del rates
        return _refused(
            self.name, "learning time", "learning_time", "None where they are no gradient flow"
        )

    def dynamics(self, *, full: bool) -> Dynamics:
        """Tell what moves an ensemble.

        Args:
            full: Whether it sees the whole energy at every step.

        Returns:
            The kind of dynamics; whether it has inertia or noise decides Sigma.
        """
        del full
        return _refused_dynamics(self.name, self._kind)

    @property
    def geometry(self) -> str:
        """Name of the metric in which the steps are steepest descent, if it is known to be flat."""
        return ""

    def flat_move(self, before: Tensor, after: Tensor) -> Tensor:
        """Give the way between two points in coordinates in which `geometry` is flat.

        Args:
            before: A point (..., P).
            after: Another (..., P).

        Returns:
            The difference of their coordinates (..., P), float64.
        """
        del before, after
        return _refused(self.name, "flat geometry", "flat_move")

    def kinetic_energy(self, state: State, before: State | None, lr: float) -> Tensor | None:
        """Kinetic energy of some replicas.

        Args:
            state: Where they are.
            before: Where they were a step before; None at the start.
            lr: dt of that step.

        Returns:
            Energies (R,), float64 on the CPU; None without inertia.
        """
        del state, before, lr
        if self.dynamics(full=True).inert:
            _refused(self.name, "kinetic energy", "kinetic_energy")
        return None

    def compression(self) -> FollowsGradient | NormalisedSteps | None:
        """Tell how a training is compressed (`capacity.forecasting.compression`).

        Returns:
            What it takes; None where no shorter training is known to stand for it, and forecasts
            say so by name.
        """
        return None

    @property
    def _kind(self) -> str:
        return type(self).__name__


Block = tuple[Optimizer, float, "slice | Tensor"]
"""Update map, learning rate and components of a part of theta."""


@dataclass(frozen=True)
class Unstated(Optimizer):
    """An update map of another class, which states nothing of itself.

    Attributes:
        inner: The update map.
    """

    inner: UpdateMap

    @property
    def name(self) -> str:  # type: ignore[override]
        """The inner map's name."""
        return str(getattr(self.inner, "name", self._kind))

    def init(self, theta: Tensor) -> State:
        """Start as the inner map does."""
        return self.inner.init(theta)

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step."""
        return self.inner.step(state, gradient, lr, count)

    @property
    def _kind(self) -> str:
        return type(self.inner).__name__


def stated(update: UpdateMap) -> Optimizer:
    """Give the facts that an update map states.

    Args:
        update: An update map, of any class.

    Returns:
        The map itself where it is an `Optimizer`; else a wrapper that states nothing.
    """
    return update if isinstance(update, Optimizer) else Unstated(update)


def _fields(kind: type[Optimizer]) -> list[str]:
    return [f.name for f in dataclasses.fields(kind) if f.init and f.name != "name"]  # type: ignore[arg-type]


def _refused(name: str, fact: str, method: str, hint: str = "") -> Never:
    more = f" ({hint})" if hint else ""
    raise ValueError(
        f"optimizer {name!r} states no {fact}; give its class the method {method}{more}, as "
        "capacity.optimizers.optimizer.Optimizer describes it, or take another optimizer"
    )


def _refused_dynamics(name: str, kind: str) -> Never:
    raise ValueError(
        f"update {name!r} is a {kind}, whose dynamics is not known here; state it with a method "
        "dynamics(full) of its class, which returns a capacity.optimizers.dynamics.Dynamics; a "
        "step of your own goes in as capacity.GradientStep(function)"
    )
