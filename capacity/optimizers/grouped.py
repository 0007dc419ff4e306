"""Parameter groups: one kind of step with other rates and options for some of the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from capacity.optimizers.dynamics import Dynamics
from capacity.optimizers.optimizer import (
    Block,
    FollowsGradient,
    NormalisedSteps,
    Optimizer,
    stated,
)
from capacity.optimizers.update_map import Reading, State


@dataclass(frozen=True, eq=False)
class Layout:
    """Which of theta's components belong to which group.

    Attributes:
        indices: Components of each group, disjoint, all of theta together.
        inverse: Where each component lies in the groups' parts, side by side (P,).
    """

    indices: tuple[Tensor, ...]
    inverse: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "inverse", torch.cat(self.indices).argsort())

    def follow(self, device: torch.device) -> None:
        """Go where theta is: an index that is elsewhere would be copied at every step.

        Args:
            device: Its device.
        """
        if self.inverse.device != device:
            object.__setattr__(self, "indices", tuple(part.to(device) for part in self.indices))
            object.__setattr__(self, "inverse", self.inverse.to(device))


@dataclass(frozen=True)
class Grouped(Optimizer):
    """One update map per group of parameters, each fed with its part of the gradient.

    Attributes:
        maps: One update map per group, all of one kind.
        scales: Learning rate of each group, relative to that of the step.
        layout: The groups; None where only facts are asked for, and no network is at hand.
    """

    maps: tuple[Optimizer, ...]
    scales: tuple[float, ...]
    layout: Layout | None

    @property
    def name(self) -> str:  # type: ignore[override]
        """The inner maps' name, with the number of groups."""
        return f"{self.maps[0].name} with {len(self.maps)} parameter groups"

    @property
    def elementwise(self) -> bool:  # type: ignore[override]
        """Whether its groups are, as a linear step is, too."""
        return all(inner.elementwise for inner in self.maps)

    @property
    def anchored(self) -> bool:  # type: ignore[override]
        """Whether a group's step is another one elsewhere."""
        return any(inner.anchored for inner in self.maps)

    def init(self, theta: Tensor) -> State:
        """Start as the inner maps do: with empty moments."""
        self._placed.follow(theta.device)
        return self.maps[0].init(theta)

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step."""
        moved = [
            inner.step(tuple(part[..., index] for part in state), gradient[..., index], rate, count)
            for inner, rate, index in self.parts(lr)
        ]
        return tuple(self.join(rows) for rows in zip(*moved, strict=True))

    def parts(self, lr: float) -> list[tuple[Optimizer, float, Tensor]]:
        """List the groups.

        Args:
            lr: Learning rate of the step.

        Returns:
            Update map, learning rate and components of each group.
        """
        rates = [lr * scale for scale in self.scales]
        return list(zip(self.maps, rates, self._placed.indices, strict=True))

    def join(self, rows: Sequence[Tensor]) -> Tensor:
        """Put the groups' parts together again.

        Args:
            rows: One tensor per group (..., size of the group).

        Returns:
            They in theta's order (..., P).
        """
        return torch.cat(tuple(rows), dim=-1)[..., self._placed.inverse]

    def blocks(self, lr: float, size: int, most: int) -> list[Block]:
        """Cut theta into parts of one group each."""
        del size
        return [
            (inner, rate, part)
            for inner, rate, index in self.parts(lr)
            for part in index.split(most)
        ]

    def implied_gradient(self, before: State, after: State, lr: float) -> Reading | None:
        """Read every group's gradient."""
        read = []
        for inner, rate, index in self.parts(lr):
            part = inner.implied_gradient(_part(before, index), _part(after, index), rate)
            if part is None:
                return None
            read.append(part)
        return self.join([g for g, _ in read]), self.join([r for _, r in read])

    def learning_times(self, rates: float) -> tuple[float | None, ...]:
        """Tell the time of gradient flow in every group.

        Args:
            rates: Sum of the learning rates of the steps.

        Returns:
            The times, each as the group's own map has it at its own rate.
        """
        pairs = zip(self.maps, self.scales, strict=True)
        return tuple(inner.learning_time(rates * scale) for inner, scale in pairs)

    def learning_time(self, rates: float) -> float | None:
        """The groups' time, where they share one; with several it is the flow of no one loss."""
        times = set(self.learning_times(rates))
        return times.pop() if len(times) == 1 else None

    def dynamics(self, *, full: bool) -> Dynamics:
        """No free energy is dissipated at a rate E|v|^2, where the groups differ."""
        for inner in self.maps:
            inner.dynamics(full=full)
        return Dynamics.OTHER

    def compression(self) -> FollowsGradient | NormalisedSteps | None:
        """As its groups, each with its own rate and weight decay."""
        kinds = [inner.compression() for inner in self.maps]
        first = kinds[0]
        if isinstance(first, FollowsGradient):
            balls = [kind.heavy for kind in kinds if isinstance(kind, FollowsGradient)]

            def heavy(mu: float, nesterov: bool) -> Grouped:
                return replace(self, maps=tuple(stated(ball(mu, nesterov)) for ball in balls))

            return FollowsGradient(heavy, first.momentum, first.nesterov)
        if isinstance(first, NormalisedSteps):
            longer = [kind.stretched for kind in kinds if isinstance(kind, NormalisedSteps)]

            def stretched(stretch: float) -> Grouped:
                return replace(self, maps=tuple(stated(make(stretch)) for make in longer))

            return NormalisedSteps(stretched)
        return None

    @property
    def _placed(self) -> Layout:
        if self.layout is None:
            raise ValueError(
                f"update {self.name!r} does not know the network whose parameters are grouped; "
                "make it with capacity.optimizers.from_recipe.from_training(training, "
                "layout=model.layout)"
            )
        return self.layout


def _part(state: State, index: Tensor) -> State:
    return tuple(part[index] for part in state)
