"""How much of the steps taken the observed loss does not explain, and what follows for figures.

A term that the tracker was not told of (a penalty, clipping, another mode) has a curvature, too,
and J_t is that of another training without it. Its gradient may be small where its curvature is
not, so the size of what is unexplained says little: rounding differs from one step to the next,
an unknown term points the same way, or grows with the distance from where it is at rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from capacity.base.on_host import read
from capacity.jacobian.spectrum_record import SingularValue
from capacity.records.estimate import Estimate, Status

Figure = TypeVar("Figure")

_LARGEST = 0.05
"""Share above which the Hessian products are in doubt by as much, whatever it is: above that of a
mixed-precision forward pass."""

_ALIKE = 0.5
"""Mean cosine of residuals from step to step, or with the gradient, above which it is no noise."""

_ENOUGH = 3
"""Steps beyond rounding that tell noise from a trend; fewer are judged by their size alone."""

_FEW = 1e-3
"""Share of them."""

_SIGNIFICANT = 5.0
"""Standard errors of a trend: it is looked for at every figure."""

_MATERIAL = 0.05
"""Nats of log|det J_t| that a trend has to be worth."""


@dataclass(frozen=True)
class Unexplained:
    """What the steps taken do not owe to the observed loss.

    Attributes:
        share: Root mean square of the unexplained part of the gradient over that of the explained.
        rounding: The share that rounding can make up.
        systematic: Why what is left is no rounding; empty where it may be.
        checked: Steps that were compared with what the optimiser did.
        steps: Steps observed.
    """

    share: float
    rounding: float
    systematic: str
    checked: int
    steps: int

    @property
    def note(self) -> str:
        """One sentence or two for a reader."""
        if not self.checked:
            return "No step has been compared with what the optimizer did."
        said = f"Unexplained share of the steps: {self.share:.1e}"
        if self.systematic:
            return (
                f"{said}, which is no rounding ({self.systematic}): the loop steps on more than "
                "the observed loss, and this is the figure of the observed loss alone. Give the "
                "tracker the whole loss, penalties included, or clip_norm."
            )
        if self.checked < self.steps:
            said += f" (the last of {self.steps} could not be compared)"
        return f"{said}."


def qualified(figure: Figure, unexplained: Unexplained) -> Figure:
    """Say with a figure how much of the steps is unexplained.

    Args:
        figure: An estimate, or a record of estimates.
        unexplained: The share.

    Returns:
        The figure with a note; where an unknown term is at work its values are `not_resolved` and
        have no intervals.
    """
    made: Any = figure
    if isinstance(figure, Estimate):
        note = f"{figure.note} {unexplained.note}".strip()
        made = replace(figure, note=note)
        if unexplained.systematic and figure.value is not None:
            made = replace(made, status=Status.NOT_RESOLVED, stderr=None, interval=None)
    elif isinstance(figure, SingularValue):
        made = replace(figure, resolved=figure.resolved and not unexplained.systematic)
    elif isinstance(figure, tuple):
        made = tuple(qualified(part, unexplained) for part in figure)
    elif is_dataclass(figure) and not isinstance(figure, type):
        parts = {f.name: getattr(figure, f.name) for f in fields(figure) if f.init}
        made = replace(figure, **{n: qualified(part, unexplained) for n, part in parts.items()})
    result: Figure = made
    return result


class Evidence:
    """Adds up residuals of the gradient over steps.

    Attributes:
        checked: Steps taken in.
        peak: Largest norm of an expected gradient.
    """

    def __init__(self) -> None:
        self.checked = 0
        self.peak = 0.0
        self._squares = self._explained = self._rounding = 0.0
        self._loud = 0
        self._alike = self._alike_of = self._along = self._along_of = 0.0
        self._pairs = 0
        self._moved = 0.0
        self._before: Tensor | None = None
        self._trends = {"the distance from the start": _Trend(), "the parameters": _Trend()}

    def add(
        self,
        residual: Tensor,
        gradient: Tensor,
        floor: float,
        *,
        theta: Tensor,
        start: Tensor,
        rate: float,
    ) -> tuple[float, float]:
        """Take one step in.

        Args:
            residual: Gradient that the optimiser was fed minus the expected one (P,).
            gradient: The expected one (P,).
            floor: Norm of the residual that rounding can make up.
            theta: Parameters before the step (P,).
            start: Parameters before the first step (P,).
            rate: How far the step moves the parameters per gradient.

        Returns:
            Norms of the residual and of the expected gradient.
        """
        before = residual if self._before is None else self._before
        causes = (theta - start, theta)
        size, explained, along, alike, last, *trends = read(
            residual.norm(), gradient.norm(), residual @ gradient, residual @ before, before.norm(),
            *(part for cause in causes for part in _Trend.terms(residual, cause)),
        )  # fmt: skip
        if not math.isfinite(size + explained + floor):
            return size, explained  # training diverged; J_t says so itself
        self.checked += 1
        self.peak = max(self.peak, explained)
        self._squares += size**2
        self._explained += explained**2
        self._rounding += floor**2
        self._moved += rate
        for trend, k in zip(self._trends.values(), (0, 2), strict=True):
            trend.add(*trends[k : k + 2])
        if size <= floor:
            self._before = None
            return size, explained
        self._loud += 1
        self._along += along
        self._along_of += size * explained
        if self._before is not None:
            self._alike += alike
            self._alike_of += size * last
        self._before = residual
        return size, explained

    def verdict(self, steps: int, size: int) -> Unexplained:
        """Sum up.

        Args:
            steps: Steps observed.
            size: P.

        Returns:
            The share, and whether an unknown term is behind it.
        """
        scale = math.sqrt(self._explained) or 1.0
        share, rounding = math.sqrt(self._squares) / scale, math.sqrt(self._rounding) / scale
        return Unexplained(share, rounding, self._why(share, rounding, size), self.checked, steps)

    def _why(self, share: float, rounding: float, size: int) -> str:
        beyond = share > rounding and self._loud
        if beyond and share > _LARGEST:
            return "it is large"
        if beyond and self._loud < _ENOUGH and share > _FEW:
            return "it is larger than rounding from the first steps on"
        if self._loud >= _ENOUGH:
            if self._alike_of and self._alike / self._alike_of > _ALIKE:
                return "it points the same way from step to step"
            if self._along_of and abs(self._along) / self._along_of > _ALIKE:
                return "it points along the gradient"
        for name, trend in self._trends.items():
            worth = abs(trend.slope) * self._moved * size
            if trend.significance > _SIGNIFICANT and worth > _MATERIAL:
                return f"it grows with {name}"
        return ""


class _Trend:
    """Regression of residuals on something, its error taken from the terms themselves."""

    def __init__(self) -> None:
        self._sum = self._squares = self._norm = 0.0

    @staticmethod
    def terms(residual: Tensor, cause: Tensor) -> tuple[Tensor, Tensor]:
        return torch.dot(residual.double(), cause.double()), cause.double().square().sum()

    def add(self, term: float, norm: float) -> None:
        self._sum += term
        self._squares += term**2
        self._norm += norm

    @property
    def slope(self) -> float:
        return self._sum / self._norm if self._norm else 0.0

    @property
    def significance(self) -> float:
        return abs(self._sum) / math.sqrt(self._squares) if self._squares else 0.0
