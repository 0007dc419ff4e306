"""The numbers that are compared: one estimate per run, one per variant over its runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from capacity.records.estimate import Estimate, Status, from_samples, not_defined
from capacity.records.intervals import LEVEL, interval
from capacity.records.number_format import PERCENT, POINTS
from capacity.records.numbers import Bounds
from capacity.results.gather import Gathered, Variant
from capacity.results.view import RunView, pick


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A number that every run has.

    Attributes:
        name: Its name in the tables, without unit.
        short: The same in few words, for a terminal.
        unit: Its unit in print; empty for none.
        read: Finds it in a run; None where the run has none.
        scale: Factor from the result to print.
        bounds: The values that are possible, in print.
        better: 1 where more is better, -1 where less is.
    """

    name: str
    short: str
    unit: str
    read: Callable[[RunView], Estimate | None]
    scale: float = 1.0
    bounds: Bounds = None
    better: int = -1

    @property
    def head(self) -> str:
        """Name with unit."""
        return f"{self.name}, {self.unit}" if self.unit else self.name


def quantities(gathered: Gathered) -> list[Quantity]:
    """List what is compared, what the runs ended with first.

    Args:
        gathered: The runs.

    Returns:
        The quantities: of accuracy where all runs classify, else of loss.
    """
    kind, target = (
        ("accuracy", "accuracy_drop") if gathered.classifies else ("loss", "loss_increase")
    )
    scale = 100.0 if gathered.classifies else 1.0
    points = "points" if gathered.classifies else ""
    return [
        Quantity(
            name=f"final mean {kind}",
            short=f"final {kind}",
            unit="%" if gathered.classifies else "",
            read=lambda view: pick(view.result.get("final"), kind),
            scale=scale,
            bounds=PERCENT if gathered.classifies else None,
            better=1 if gathered.classifies else -1,
        ),
        Quantity(
            name="forgetting since learned",
            short="forgetting",
            unit=points,
            read=lambda view: pick(view.result.get("final"), "forgetting_last"),
            scale=scale,
            bounds=POINTS if gathered.classifies else None,
        ),
        Quantity(
            name=f"{kind} just after learning",
            short=f"{kind} when learned",
            unit="%" if gathered.classifies else "",
            read=lambda view: learned_score(view, kind),
            scale=scale,
            bounds=PERCENT if gathered.classifies else None,
            better=1 if gathered.classifies else -1,
        ),
        Quantity(
            name="mean error of the forecasts",
            short="forecast error",
            unit=points,
            read=lambda view: pick(view.result.get("scores"), target, "mean_error"),
            scale=scale,
        ),
        Quantity(
            name="inefficiency, \u00d7 speed limit",
            short="inefficiency",
            unit="",
            read=mean_inefficiency,
        ),
    ]


def learned_score(view: RunView, kind: str) -> Estimate | None:
    """Average the score on every task just after it was learned: how well new tasks are taken up.

    Args:
        view: The run.
        kind: `accuracy` or `loss`.

    Returns:
        Mean over tasks with the spread over replicas; None before the first task.
    """
    samples = []
    for matrix in view.scores(kind).get("replicas") or []:
        own = [value for i in range(view.learned) if (value := matrix[i][i]) is not None]
        if own and len(own) == view.learned:
            samples.append(math.fsum(own) / len(own))
    return from_samples(samples) if samples else None


def mean_inefficiency(view: RunView) -> Estimate | None:
    """Average the inefficiency over the tasks of a run.

    Args:
        view: The run.

    Returns:
        The mean, whose error over replicas is not known; not defined where a task has none; None
        where no task has one.
    """
    found = [pick(phase, "thermo", "inefficiency_path") for phase in view.phases if phase]
    known = [e for e in found if e is not None and e.value is not None]
    if not known:
        return None
    worst = next((e.status for e in known if e.status is not Status.OK), Status.OK)
    missing = len(found) - len(known)
    if missing:
        # A mean over the other tasks would be compared with one over all of them.
        return not_defined(f"The mean needs every task; {missing} of {len(found)} have no value.")
    value = math.fsum(e.value or 0.0 for e in known) / len(known)
    return Estimate(value=value, status=worst)


def of_variant(variant: Variant, quantity: Quantity) -> Estimate | None:
    """Average a quantity over the finished runs of a variant.

    Args:
        variant: The variant.
        quantity: What to average.

    Returns:
        Several runs: their mean with the spread over seeds. One run: its own estimate, whose
        spread is over replicas. None where no finished run has it. A run that has no value is
        left out and counted in the note.
    """
    found = [quantity.read(entry.view) for entry in variant.counted]
    present = [e for e in found if e is not None]
    known = [e for e in present if e.value is not None]
    if not known:
        return present[0] if present else None
    missing = len(found) - len(known)
    note = f"{missing} of {len(found)} runs have no value and are left out." if missing else ""
    if len(known) == 1:
        return replace(known[0], note=f"{known[0].note} {note}".strip())
    worst = next((e.status for e in known if e.status is not Status.OK), Status.OK)
    notes = list(dict.fromkeys(e.note for e in known if e.note))
    said = " ".join([*notes[:1], note]).strip()
    return from_samples([e.value for e in known if e.value is not None], status=worst, note=said)


def difference(first: Estimate, second: Estimate, level: float = LEVEL) -> Estimate:
    """Subtract two independent means (Welch: unequal variances, Satterthwaite's degrees).

    Args:
        first: Mean with its standard error and count.
        second: The one to subtract.
        level: Coverage of the interval.

    Returns:
        The difference; without an interval where a spread is not known.
    """
    value = (first.value or 0.0) - (second.value or 0.0)
    if first.stderr is None or second.stderr is None or not first.n or not second.n:
        return Estimate(value=value)
    parts = [(first.stderr**2, first.n), (second.stderr**2, second.n)]
    variance = sum(v for v, _ in parts)
    if variance == 0:
        return Estimate(value=value, stderr=0.0, interval=(value, value), level=level)
    degrees = variance**2 / sum(v**2 / (n - 1) for v, n in parts)
    stderr = math.sqrt(variance)
    return Estimate(
        value=value,
        stderr=stderr,
        interval=interval(value, stderr, degrees=degrees, level=level),
        level=level,
    )


def ranked(gathered: Gathered, quantity: Quantity) -> list[tuple[Variant, Estimate]]:
    """Order the variants by a quantity.

    Args:
        gathered: The runs.
        quantity: What to order by.

    Returns:
        Variants that have a value, the best first.
    """
    found = [(variant, of_variant(variant, quantity)) for variant in gathered.variants]
    known = [(v, e) for v, e in found if e is not None and e.value is not None]
    return sorted(known, key=lambda pair: -quantity.better * (pair[1].value or 0.0))


def course(variant: Variant, kind: str) -> Sequence[Estimate]:
    """Follow the mean score over the tasks learned so far, task after task.

    Args:
        variant: The variant.
        kind: `accuracy` or `loss`.

    Returns:
        One estimate per learned task, over the tasks that were scored then: over seeds, or over
        replicas where there is one run.
    """
    runs = [
        [
            _courses(matrix, chosen=bool(entry.view.old_said))
            for matrix in entry.view.scores(kind).get("replicas") or []
        ]
        for entry in variant.counted
    ]
    runs = [replicas for replicas in runs if replicas]
    if not runs:
        return []
    if len(runs) == 1:
        samples = runs[0]
    else:
        samples = [
            [math.fsum(column) / len(column) for column in zip(*replicas, strict=True)]
            for replicas in runs
        ]
    length = min(map(len, samples))
    return [from_samples([sample[i] for sample in samples]) for i in range(length)]


def _courses(matrix: Sequence[Sequence[float | None]], *, chosen: bool) -> list[float]:
    # Where only some old tasks were chosen to be scored, the mean is over those.
    out = []
    for i, row in enumerate(matrix):
        seen = [value for value in row[: i + 1] if value is not None]
        if row[i] is None or (len(seen) <= i and not chosen):
            break
        out.append(math.fsum(seen) / len(seen))
    return out
