"""Parameter groups: one kind of step with other rates and options for some of the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from capacity.optimizers.updates import State, UpdateMap


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


@dataclass(frozen=True)
class Grouped:
    """One update map per group of parameters, each fed with its part of the gradient.

    Attributes:
        maps: One update map per group, all of one kind.
        scales: Learning rate of each group, relative to that of the step.
        layout: The groups.
    """

    maps: tuple[UpdateMap, ...]
    scales: tuple[float, ...]
    layout: Layout
    plain: bool = False

    @property
    def name(self) -> str:
        """The inner maps' name, with the number of groups."""
        return f"{self.maps[0].name} with {len(self.maps)} parameter groups"

    def init(self, theta: Tensor) -> State:
        """Start as the inner maps do: with empty moments."""
        return self.maps[0].init(theta)

    def step(self, state: State, gradient: Tensor, lr: float, count: int) -> State:
        """Take one step."""
        moved = [
            inner.step(tuple(part[..., index] for part in state), gradient[..., index], rate, count)
            for inner, rate, index in self.parts(lr)
        ]
        return tuple(self.join(rows) for rows in zip(*moved, strict=True))

    def parts(self, lr: float) -> list[tuple[UpdateMap, float, Tensor]]:
        """List the groups.

        Args:
            lr: Learning rate of the step.

        Returns:
            Update map, learning rate and components of each group.
        """
        rates = [lr * scale for scale in self.scales]
        return list(zip(self.maps, rates, self.layout.indices, strict=True))

    def join(self, rows: Sequence[Tensor]) -> Tensor:
        """Put the groups' parts together again.

        Args:
            rows: One tensor per group (..., size of the group).

        Returns:
            They in theta's order (..., P).
        """
        return torch.cat(tuple(rows), dim=-1)[..., self.layout.inverse]
