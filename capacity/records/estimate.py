"""The record that every estimator returns: a value with its uncertainty, status and price."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from capacity.records.html_table import table
from capacity.records.intervals import LEVEL, interval
from capacity.records.numbers import MISSING, number, with_error
from capacity.records.plain import Plain


class Status(StrEnum):
    """What a reader may conclude from an estimate.

    Example:
        >>> import capacity
        >>> capacity.Status.OK
        <Status.OK: 'ok'>
        >>> capacity.Estimate(value=2.0, stderr=0.1).status == "ok"
        True
    """

    OK = "ok"
    """The value stands, within its standard error."""
    UNCALIBRATED = "uncalibrated"
    """The value stands; its interval covers only part of what is unknown (the note says which)."""
    NOT_RESOLVED = "not_resolved"
    """The method cannot see the quantity at this effort; a value, if any, is a one-sided bound."""
    NOT_CONVERGED = "not_converged"
    """An iterative method stopped at its limit; the note says what is missing."""
    NOT_DEFINED = "not_defined"
    """The quantity does not exist here (the note says why); there is no value."""
    OUT_OF_REGIME = "out_of_regime"
    """The value is right as a number, but what gives it its name does not hold here (the note says
    what): it must not be read as the quantity that it equals elsewhere."""
    DIVERGED = "diverged"
    """The training that should have been measured produced non-finite numbers."""

    @property
    def words(self) -> str:
        """What stands beside a value; empty for `ok`."""
        return "" if self is Status.OK else self.value.replace("_", " ")


@dataclass(frozen=True, kw_only=True)
class Estimate(Plain):
    """A number that knows how sure it is.

    Attributes:
        value: The estimate, or None where the status says that there is none.
        stderr: Standard error of the value; None when it is exact or unknown.
        status: What may be concluded (see `Status`).
        interval: Lower and upper end at `level`, or None.
        level: Nominal coverage of `interval`.
        n: Number of replicas, probes or samples behind the standard error.
        cost: Price in gradient evaluations (one batch, one network); 0 when negligible.
        note: One plain sentence for the reader of a report; empty when nothing needs saying.
    """

    value: float | None
    stderr: float | None = None
    status: Status = Status.OK
    interval: tuple[float, float] | None = None
    level: float = LEVEL
    n: int | None = None
    cost: float = 0.0
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("value", "stderr"):
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                object.__setattr__(self, name, None)
                if name == "value" and self.status is Status.OK:
                    object.__setattr__(self, "status", Status.DIVERGED)
        if self.interval is not None and not all(map(math.isfinite, self.interval)):
            object.__setattr__(self, "interval", None)

    @property
    def resolved(self) -> bool:
        """Whether the value may be read as the quantity itself."""
        return self.value is not None and self.status in {Status.OK, Status.UNCALIBRATED}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Estimate:
        """Rebuild an estimate from `to_dict`'s output.

        Args:
            record: A dictionary as `to_dict` makes it.

        Returns:
            The same estimate.
        """
        interval = record["interval"]
        return cls(**{
            **record,
            "status": Status(record["status"]),
            "interval": None if interval is None else tuple(interval),
        })

    def row(self) -> tuple[str, str, str]:
        """Write it in three entries.

        Returns:
            Value with standard error and interval, status (empty for ok), note.
        """
        if self.value is None:
            said = MISSING
        elif self.stderr is None:
            said = number(self.value)
        else:
            said = with_error(self.value, self.stderr)
        if self.interval is not None:
            low, high = (number(end) for end in self.interval)
            said += f"  ({low} to {high}, {100 * self.level:.0f} %)"
        return said, self.status.words, self.note

    def _repr_html_(self) -> str:
        return table("Estimate", [self.row()])


def not_defined(note: str) -> Estimate:
    """Return the estimate of something that does not exist here.

    Args:
        note: Why it does not exist, and what is reported instead.

    Returns:
        An estimate without a value.
    """
    return Estimate(value=None, status=Status.NOT_DEFINED, note=note)


def with_note(estimate: Estimate, said: str) -> Estimate:
    """Say something more with an estimate.

    Args:
        estimate: The estimate.
        said: Sentences; may be empty.

    Returns:
        The estimate, with them behind its note.
    """
    return replace(estimate, note=f"{estimate.note} {said}".strip())


def from_error(
    value: float,
    stderr: float,
    *,
    n: int | None = None,
    status: Status = Status.OK,
    cost: float = 0.0,
    note: str = "",
) -> Estimate:
    """Give a value with a known standard error its normal 90 % interval.

    Args:
        value: The estimate.
        stderr: Its standard error.
        n: Number of probes or samples behind the standard error.
        status: Status to record.
        cost: Price to record.
        note: Sentence to record.

    Returns:
        The estimate; `diverged` where the value is not finite.
    """
    return Estimate(
        value=value,
        stderr=stderr,
        interval=interval(value, stderr),
        n=n,
        status=status,
        cost=cost,
        note=note,
    )


def from_samples(
    samples: Sequence[float],
    *,
    level: float = LEVEL,
    status: Status = Status.OK,
    cost: float = 0.0,
    note: str = "",
    predict: bool = False,
) -> Estimate:
    """Mean of independent samples with a Student-t interval.

    Args:
        samples: Independent values (replicas, seeds, probes). Non-finite ones are left out of the
            mean, counted in the note, and turn the status into `diverged` when none remains.
        level: Nominal coverage of the interval.
        status: Status of the result when at least one sample is finite.
        cost: Price to record.
        note: Sentence to record.
        predict: Give the interval for one further sample instead of the mean.

    Returns:
        The mean, its standard error (None for one sample) and its interval.
    """
    finite = [float(s) for s in samples if math.isfinite(s)]
    lost = len(samples) - len(finite)
    if lost:
        note = f"{note} {lost} of {len(samples)} replicas are not finite and left out.".strip()
    if not finite:
        return Estimate(value=None, status=Status.DIVERGED, n=0, cost=cost, note=note)
    n = len(finite)
    mean = math.fsum(finite) / n
    if n == 1:
        return Estimate(value=mean, status=status, n=1, cost=cost, note=note)
    spread = math.sqrt(math.fsum((s - mean) ** 2 for s in finite) / (n - 1))
    stderr = spread / math.sqrt(n)
    width = spread * math.sqrt(1 + 1 / n) if predict else stderr
    return Estimate(
        value=mean,
        stderr=stderr,
        status=status,
        interval=interval(mean, width, degrees=n - 1, level=level),
        level=level,
        n=n,
        cost=cost,
        note=note,
    )
