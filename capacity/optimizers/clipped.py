"""Any optimiser behind gradient clipping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from capacity.optimizers.conditioner import Conditioner, Curvature, Outputs
from capacity.optimizers.dynamics import Dynamics
from capacity.optimizers.optimizer import (
    FollowsGradient,
    NormalisedSteps,
    Optimizer,
    stated,
)
from capacity.optimizers.update_map import State, UpdateMap

if TYPE_CHECKING:
    from capacity.tasks.task import Task


@dataclass(frozen=True)
class Clipped(Optimizer):
    """Another update map, fed with the gradient clipped to a norm, as `clip_grad_norm_` does.

    It is never elementwise: the norm couples the parameters.

    Attributes:
        inner: The update map.
        max_norm: Largest norm of the gradient of one replica.
    """

    inner: UpdateMap
    max_norm: float

    @property
    def name(self) -> str:  # type: ignore[override]
        """The inner map's name, with what was added."""
        return f"{self.inner.name}, gradient clipped to {self.max_norm:g}"

    def init(self, theta: Tensor) -> State:
        """Start as the inner map does."""
        return self.inner.init(theta)

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step."""
        return self.inner.step(state, self.fed(gradient), lr, count)

    def bound(self, outputs: Outputs, task: Task, *, modes: bool = False) -> Clipped:
        """Bind the inner map."""
        return replace(self, inner=self.unclipped.bound(outputs, task, modes=modes))

    def held(self, curvatures: Sequence[Curvature]) -> Clipped:
        """Let the inner map take it in."""
        return replace(self, inner=self.unclipped.held(curvatures))

    @property
    def conditioner(self) -> Conditioner | None:
        """The inner map's."""
        return stated(self.inner).conditioner

    @property
    def unclipped(self) -> Optimizer:
        """The inner map."""
        return stated(self.inner)

    def fed(self, gradient: Tensor) -> Tensor:
        """Shorten the gradient."""
        norm = gradient.norm(dim=-1, keepdim=True)
        # torch adds 1e-6 to the norm before it divides; parity includes that.
        return gradient * (self.max_norm / (norm + 1e-6)).clamp(max=1.0)

    def learning_time(self, rates: float) -> None:
        """Clipped steps are no gradient flow, whatever they step with."""
        del rates

    def dynamics(self, *, full: bool) -> Dynamics:
        """No free energy is dissipated at a rate E|v|^2, if anything is known of the inner map."""
        self.unclipped.dynamics(full=full)
        return Dynamics.OTHER

    def kinetic_energy(self, state: State, before: State | None, lr: float) -> None:
        """None: it says nothing of Sigma here."""
        del state, before, lr
        self.dynamics(full=True)

    def compression(self) -> FollowsGradient | NormalisedSteps | None:
        """As the inner map; the compressed steps are clipped, too."""
        return self.unclipped.compression()
