"""Critical-period closure: when the capacity for the next task falls below its need.

Along the training of the old tasks, capacity for the task to come and its need are measured at some
checkpoints (theory.md#closure). What is measured is up to the caller, since the literal form hardly
ever closes: any function of theta that gives two estimates in one unit will do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from capacity.records.estimate import Estimate, Status, not_defined
from capacity.records.intervals import Z90
from capacity.records.plain import Plain

RoomAndNeed = Callable[[Tensor], tuple[Estimate, Estimate]]
"""theta (P,) -> capacity for the next task, and its need, in the same unit."""


@dataclass(frozen=True, kw_only=True)
class ClosurePoint(Plain):
    """Capacity and need at one moment of the training.

    Attributes:
        time: Learning time.
        capacity: Room for the next task.
        need: What the next task needs.
    """

    time: float
    capacity: Estimate
    need: Estimate

    @property
    def margin(self) -> float | None:
        """Capacity minus need; None where one of them has no value."""
        if self.capacity.value is None or self.need.value is None:
            return None
        return self.capacity.value - self.need.value

    @property
    def slack(self) -> float:
        """Half-width of the margin's 90 % interval."""
        return Z90 * ((self.capacity.stderr or 0.0) ** 2 + (self.need.stderr or 0.0) ** 2) ** 0.5


@dataclass(frozen=True, kw_only=True)
class Closure(Plain):
    """A closure curve.

    Attributes:
        points: In the order of time.
        time: Learning time at which capacity first falls below the need, between checkpoints by
            linear interpolation; `not_defined` where it does not close, `not_resolved` where the
            two never differ by more than their uncertainty.
        closes: True, False, or None where it is undecided.
    """

    points: tuple[ClosurePoint, ...]
    time: Estimate
    closes: bool | None


def closure_of(points: list[ClosurePoint]) -> Closure:
    """Find the closure time of a curve that was measured already.

    Args:
        points: In the order of time, at least one.

    Returns:
        The curve.
    """
    known = [(p.time, p.margin, p.slack) for p in points if p.margin is not None]
    curve = tuple(points)
    if not known:
        nothing = not_defined("Capacity and need have no values along this training.")
        return Closure(points=curve, time=nothing, closes=None)
    first = next((k for k, (_, margin, slack) in enumerate(known) if margin < -slack), None)
    if first is None:
        sure = all(margin > slack for _, margin, slack in known)
        if sure:
            nothing = not_defined("It does not close: capacity stays above the need.")
            return Closure(points=curve, time=nothing, closes=False)
        open_ = Estimate(
            value=None,
            status=Status.NOT_RESOLVED,
            note="Capacity and need differ by less than their uncertainty.",
        )
        return Closure(points=curve, time=open_, closes=None)
    time, margin, _ = known[first]
    if not first:
        already = Estimate(value=time, note="Closed at the first checkpoint already.")
        return Closure(points=curve, time=already, closes=True)
    # It was not certainly closed one checkpoint earlier: that is how well the time is known.
    before, was, _ = known[first - 1]
    value = time if was <= 0 else before + (time - before) * was / (was - margin)
    open_at = max((t for t, m, s in known[:first] if m > s), default=known[0][0])
    return Closure(
        points=curve,
        time=Estimate(value=value, interval=(open_at, time), level=1.0),
        closes=True,
    )
